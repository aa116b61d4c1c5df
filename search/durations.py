"""How long stages take: learnt from records of them, or known for one CPU core."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from spaces.budget import Budget
from spaces.config import TrialConfig
from spaces.generators import TrainedConfig

REFERENCE_IMAGES = 200
"""Training images of a fold when the reference durations were recorded."""

Kind: TypeAlias = tuple[str, str]
"""A stage's name, and which of its kinds it is: the generator's name, the classifier's and the mixer's, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Seconds of a kind of stage: the median, and the standard deviation of their logarithms."""

    median: float
    sigma: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long each kind of stage takes under a budget's own settings.

    Args:
        spreads: by kind; a stage whose kind is missing takes what the kind of its first word takes, else what the kind
            "" of its name takes.
        measured: how many stages they were learnt from; 0: none.
        reference: whether reference durations are among them.
        images: training images of a fold that they were scaled to; 0: they were not.
    """

    spreads: Mapping[Kind, Spread]
    measured: int = 0
    reference: bool = False
    images: int = 0

    def spread(self, stage: str, variant: str) -> Spread:
        """Seconds of a stage. Raises: KeyError if nothing is known of its name."""
        for kind in ((stage, variant), (stage, variant.partition(" ")[0])):
            if kind in self.spreads:
                return self.spreads[kind]
        return self.spreads[stage, ""]

    def knows(self, stage: str, name: str) -> bool:
        """Whether a generator or a classifier of that name is among them, not only others."""
        return any(stage == known and name == variant.partition(" ")[0] for known, variant in self.spreads)

    def over(self, others: Durations) -> Durations:
        """These, and those of ``others`` for kinds that they do not have."""
        return Durations(
            spreads={**others.spreads, **self.spreads},
            measured=self.measured,
            reference=self.reference or others.reference,
            images=self.images or others.images,
        )


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
    """Which kind of classifier stage: besides the classifier, what a mixer shows it decides how long it trains."""
    return f"{config.classifier.name} {config.mixer.name}"


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
"""Twelve epochs over ``REFERENCE_IMAGES`` on one CPU core, 32 pixels, of the classifier below."""
_REFERENCE_CLASSIFIER = "small_cnn"
_REFERENCE_EPOCHS = 12


def reference_durations(budget: Budget, *, images: int | None) -> Durations | None:
    """What stages of a budget take on one CPU core; None where that has not been measured.

    Args:
        budget: the search's.
        images: training images of a fold, in proportion to which all but generators are; None: as many as were
            recorded with.
    """
    trained = _GENERATOR_SECONDS.get(budget.name)
    if trained is None:
        return None
    scale = (images or REFERENCE_IMAGES) / REFERENCE_IMAGES
    epochs = float(budget.settings["classifier.epochs"]) / _REFERENCE_EPOCHS
    spreads = {("generator", name): Spread(median=seconds) for name, seconds in trained.items()}
    spreads |= {
        ("classifier", f"{_REFERENCE_CLASSIFIER} {mixer}"): Spread(median=seconds * scale * epochs)
        for mixer, seconds in _CLASSIFIER_SECONDS.items()
    }
    spreads["generator", ""] = Spread(median=statistics.median(trained.values()))
    spreads["classifier", ""] = spreads["classifier", f"{_REFERENCE_CLASSIFIER} real"]
    spreads["preprocess", ""] = Spread(median=0.06 * scale)
    spreads["pool", ""] = Spread(median=0.06 * scale)
    spreads["pool", "diffusion"] = Spread(median=5.0 * scale)
    spreads["extractor", ""] = Spread(median=0.8 * scale)
    spreads["fidelity", ""] = Spread(median=0.8 * scale)
    return Durations(spreads=spreads, reference=True, images=images or REFERENCE_IMAGES)
