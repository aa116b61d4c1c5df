"""How long stages take: learnt from records of them, measured in a storage, or known for one CPU core."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from spaces.budget import Budget
from spaces.config import TrialConfig
from spaces.generators import TrainedConfig
from spaces.parameter import Value
from trainables.ledger import SHARED

REFERENCE_IMAGES = 200
"""Training images of a fold when the reference durations were recorded."""
_MOST_MANIFESTS = 1000
"""Read of one kind of stage, so that an estimate stays quick."""

Kind: TypeAlias = tuple[str, str]
"""A stage's name, and which of its kinds it is: the generator's or the mixer's name, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Seconds of a kind of stage: the median, and the standard deviation of their logarithms."""

    median: float
    sigma: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long each kind of stage takes.

    Args:
        spreads: by kind; a stage whose kind is missing takes what the kind "" of its name takes.
        measured: how many stages they were learnt from; 0: reference durations.
        images: training images of a fold that reference durations were scaled to; 0: there are none among them.
    """

    spreads: Mapping[Kind, Spread]
    measured: int = 0
    images: int = 0

    def spread(self, stage: str, variant: str) -> Spread:
        """Seconds of a stage. Raises: KeyError if nothing is known of its name."""
        found = self.spreads.get((stage, variant))
        return found if found is not None else self.spreads[stage, ""]

    def over(self, others: Durations) -> Durations:
        """These, and those of ``others`` for kinds that they do not have."""
        images = self.images or others.images
        return Durations(spreads={**others.spreads, **self.spreads}, measured=self.measured, images=images)


def learn(rows: Iterable[tuple[str, str, float]]) -> Durations:
    """Durations from stages, each given as name, variant and seconds."""
    seconds: dict[Kind, list[float]] = {}
    for name, variant, value in rows:
        seconds.setdefault((name, variant), []).append(max(value, 1e-6))
    spreads = {kind: _spread(values) for kind, values in seconds.items()}
    return Durations(spreads=spreads, measured=sum(map(len, seconds.values())))


def _spread(seconds: list[float]) -> Spread:
    sigma = statistics.stdev(map(math.log, seconds)) if len(seconds) > 1 else 0.0
    return Spread(median=statistics.median(seconds), sigma=sigma)


def generator_variant(config: TrainedConfig) -> str:
    """Which kind of generator stage a configuration has."""
    return config.name


def classifier_variant(config: TrialConfig) -> str:
    """Which kind of classifier stage: what a mixer shows it decides how long it trains."""
    return config.mixer.name


_GENERATOR_SECONDS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "quick": {
            "dcgan": 9.3,
            "acgan": 10.0,
            "wgan_gp": 7.0,
            "egan": 13.1,
            "dae_gan": 6.1,
            "stylegan": 8.7,
            "diffusion": 11.3,
        },
        "standard": {
            "dcgan": 56.0,
            "acgan": 53.0,
            "wgan_gp": 74.0,
            "egan": 66.0,
            "dae_gan": 94.0,
            "stylegan": 117.0,
            "diffusion": 108.0,
        },
    }
)
"""One training on one CPU core, 32 pixels: of the table of ``tests/benchmarks``, and of the README's ten minutes."""
_CLASSIFIER_SECONDS: Mapping[str, float] = MappingProxyType(
    {"real": 1.5, "mixup": 1.55, "cutmix": 1.6, "augmix": 4.5, "genmix": 1.5, "blend": 2.9}
)
"""Twelve epochs over ``REFERENCE_IMAGES`` on one CPU core, small CNN, 32 pixels."""
_REFERENCE_EPOCHS = 12


def reference_durations(budget: Budget, *, images: int | None) -> Durations | None:
    """What stages of a budget take on one CPU core; None where that has not been measured.

    Args:
        budget: the search's.
        images: training images of a fold, by which classifiers are scaled; None: as many as were recorded with.
    """
    trained = _GENERATOR_SECONDS.get(budget.name)
    if trained is None:
        return None
    scale = (images or REFERENCE_IMAGES) / REFERENCE_IMAGES
    epochs = float(budget.settings["classifier.epochs"]) / _REFERENCE_EPOCHS
    spreads = {("generator", name): Spread(median=seconds) for name, seconds in trained.items()}
    spreads |= {
        ("classifier", name): Spread(median=seconds * scale * epochs) for name, seconds in _CLASSIFIER_SECONDS.items()
    }
    spreads["generator", ""] = Spread(median=statistics.median(trained.values()))
    spreads["classifier", ""] = spreads["classifier", "real"]
    spreads["preprocess", ""] = Spread(median=0.06 * scale)
    spreads["pool", ""] = Spread(median=0.06 * scale)
    spreads["pool", "diffusion"] = Spread(median=5.0 * scale)
    spreads["extractor", ""] = Spread(median=0.8)
    spreads["fidelity", ""] = Spread(median=0.8)
    return Durations(spreads=spreads, images=images or REFERENCE_IMAGES)


def measured_durations(storage: Path, budget: Budget) -> Durations:
    """What stages of a budget took in a storage, whatever the data and the machine; empty where it has none."""
    root = storage / SHARED / "stages"
    return learn(_measured(root, budget))


def _measured(root: Path, budget: Budget) -> Iterator[tuple[str, str, float]]:
    """Stages whose settings are the budget's: trainings of other lengths count in proportion to their steps."""
    preprocessed, extractors = set[str](), set[str]()
    for digest, key, seconds in _manifests(root / "preprocess"):
        if key["config"]["pixels"] == budget.settings["preprocess.pixels"]:
            preprocessed.add(digest)
            yield "preprocess", "", seconds
    for digest, key, seconds in _manifests(root / "extractor"):
        if key["inputs"][0] in preprocessed:
            extractors.add(digest)
            yield "extractor", "", seconds
    for _, key, seconds in _manifests(root / "fidelity"):
        if key["inputs"][0] in extractors:
            yield "fidelity", "", seconds
    for _, key, seconds in _manifests(root / "generator"):
        name = key["config"]["name"]
        own = budget.generators.get(name, {})
        if key["inputs"][0] in preprocessed and _agree(key["config"], own, ("batch_size", "width")):
            yield "generator", name, seconds * int(own.get("steps", key["position"])) / key["position"]
    for _, key, seconds in _manifests(root / "classifier"):
        own = {name.partition(".")[2]: value for name, value in budget.settings.items() if "classifier." in name}
        if _agree(key["config"]["classifier"], own, ("name", "batch_size")):
            yield "classifier", key["config"]["mixer"]["name"], seconds * int(own["epochs"]) / _epochs(key)


def _agree(config: Mapping[str, Any], own: Mapping[str, Value], names: tuple[str, ...]) -> bool:
    return all(config.get(name) == own[name] for name in names if name in own)


def _epochs(key: Mapping[str, Any]) -> int:
    """How long a classifier was trained; earlier versions kept that among the settings."""
    return int(key["position"] or key["config"]["classifier"]["epochs"])


def _manifests(folder: Path) -> Iterator[tuple[str, Mapping[str, Any], float]]:
    """Digest, key and seconds of the finished stages of one kind that did not fail; what cannot be read is left out."""
    paths = sorted(folder.glob("*/stage.json"))[:_MOST_MANIFESTS]
    for path in paths:
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["failed"] is None:
                yield path.parent.name, manifest["key"], float(manifest["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
