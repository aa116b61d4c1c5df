"""The refit: a policy trained once more, on all images that its search may see, for use on new ones.

It goes through the stages of a fold whose test is empty, under random streams of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from spaces.config import TrialConfig, as_dict
from spaces.protocol import Protocol
from trainables import pool
from trainables.data.evaluations import everything
from trainables.data.readers import SliceRule
from trainables.data.splits import FoldSplit
from trainables.environment import Environment
from trainables.errors import DataError
from trainables.files import write_json
from trainables.fold_stages import FoldStages
from trainables.model_folder import CARD, load_model, read_card, write_model

STREAM = "refit"
_CPU = torch.device("cpu")


def refit_stages(config: TrialConfig, protocol: Protocol, environment: Environment) -> FoldStages:
    """The stages of a policy over all images of a search.

    Args:
        config: the policy.
        protocol: the search's; early stopping keeps its validation patients.
        environment: the search's cohort, which has no image of the locked test set, and its seed.

    Raises:
        DataError: the validation patients cannot be chosen.
    """
    return FoldStages(config, _split(protocol, environment), environment)


def _split(protocol: Protocol, environment: Environment) -> FoldSplit:
    return everything(environment.cohort, protocol, seed=environment.seed, stream=STREAM)


def refit(
    config: TrialConfig,
    protocol: Protocol,
    environment: Environment,
    *,
    folder: Path,
    about: Mapping[str, Any],
    versions: Mapping[str, str],
    slice_rule: SliceRule = None,
) -> bool:
    """Train a policy on all images of a search and write the model; a model that is there already stays.

    Args:
        config: the policy.
        protocol: the search's.
        environment: the search's cohort, store, seed and device. The caller holds ``environment.store.in_use()`` where
            stages may be evicted.
        folder: where the model is written.
        about: what is to be known of the search; ``name`` and ``trial`` among it. It is renewed in a model that stays.
        versions: what the training's numbers may depend on.
        slice_rule: which slice of a volume the images of the cohort are.

    Returns:
        Whether it was trained; False where the folder had the same model.

    Raises:
        DivergedError: the training led nowhere.
        StopRequested: passed on from ``environment.report``; the same call goes on from where it was.
    """
    split = _split(protocol, environment)
    stages = FoldStages(config, split, environment)
    if _renew(folder, _key(stages, config, split, environment), about):
        return False
    trained = stages.train()
    entries = [environment.cohort.entries[index] for index in (*split.train, *split.validation)]
    synthetic = trained.synthetic.counts if trained.synthetic else (0,) * len(trained.real.classes)
    two = len(trained.real.classes) == 2
    card = {
        "classes": list(trained.real.classes),
        "positive": trained.real.classes[environment.positive] if two else None,
        "channels": 1,
        "preprocess": {**as_dict(config.preprocess), **trained.scaling.to_dict()},
        "slice": slice_rule,
        "settings": as_dict(config),
        "data": {"digest": environment.cohort.digest, "phantom": environment.cohort.is_phantom},
        "training": {
            "key": trained.key,
            "seed": environment.seed,
            "stream": STREAM,
            "threads": environment.threads,
            "device": environment.device.type,
            "versions": dict(versions),
            "images": dict(zip(trained.real.classes, trained.real.counts, strict=True)),
            "synthetic": dict(zip(trained.real.classes, synthetic, strict=True)),
            "validation": len(split.validation),
            "patients": len({entry.patient for entry in entries}) if environment.cohort.patients_known else None,
            "regions": sum(entry.roi is not None for entry in entries),
            "fidelity": dict(trained.fidelity),
            "stages": [{"name": each.name, "key": each.key, "seconds": each.seconds} for each in stages.records],
            "seen": sorted({entry.pixel_digest for entry in entries}),
        },
        "search": dict(about),
    }
    write_model(folder, load_file(trained.weights), card)
    return True


def _key(stages: FoldStages, config: TrialConfig, split: FoldSplit, environment: Environment) -> str:
    """The key of the classifier's stage, known before anything is computed."""
    labels = [environment.cohort.entries[index].label for index in split.train]
    counts = tuple(labels.count(label) for label in range(len(environment.cohort.classes)))
    synthetic = pool.shares(counts, config.synthetic) if config.synthetic is not None else ()
    return stages.keys.classifier_of(counts, synthetic).digest


def _renew(folder: Path, key: str, about: Mapping[str, Any]) -> bool:
    """Whether the folder has this very model, whole; what it says of the search is then brought up to date."""
    try:
        card = read_card(folder)
        if card["training"]["key"] != key:
            return False
        load_model(folder, device=_CPU)
    except (DataError, KeyError, TypeError):
        return False
    if card["search"] != dict(about):
        write_json(folder / CARD, {**card, "search": dict(about)})
    return True
