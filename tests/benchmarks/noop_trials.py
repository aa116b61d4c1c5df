"""Trials that compute nothing, for what surrounds a trial to be measured: this project's, and two of bare Ray Tune.

In a module of their own, so that Ray's processes can import them however the benchmark was started.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from ray import tune

from spaces.config import TrialConfig
from spaces.space import digest_of
from trainables import tune_trainable
from trainables.data.splits import FoldSplit
from trainables.fold import Environment, FoldOutcome
from trainables.metrics.catalogue import SCORES
from trainables.results import FoldResult, Prediction, StageRecord
from trainables.tune_trainable import FoldTrainable

FOLDS, STAGES, PREDICTIONS = 3, ("preprocess", "generator", "classifier"), 270
_FIDELITY = ("kid", "kid_std", "precision", "recall", "density", "coverage", "copy_rate")


class InstantFolds(FoldTrainable):
    """This project's trainable, with all that it does for a fold but the fold's computation itself."""

    def setup(self, config: dict[str, Any]) -> None:
        """See ``FoldTrainable``; only this process, which runs nothing else, computes instantly."""
        mock.patch.object(tune_trainable, "run_trial", instant_trial).start()
        super().setup(config)


def instant_trial(config: TrialConfig, splits: Sequence[FoldSplit], environment: Environment) -> Iterator[FoldOutcome]:
    """As ``trainables.trial.run_trial``, with results made up from the configuration and the fold."""
    for split in splits:
        environment.report("classifier", 0, 0)
        yield FoldOutcome(result=_result(config, split), weights=_weights())


def _weights() -> Path:
    """Some file to link to, as a finished classifier would be: this one."""
    return Path(__file__)


def _result(config: TrialConfig, split: FoldSplit) -> FoldResult:
    rng = random.Random(f"{config.digest}/{split.fold}")
    parts: Mapping[str, Any] = {"preprocess": 0, "generator": repr(config.generator), "classifier": config.digest}
    return FoldResult(
        fold=split.fold,
        scores={name: rng.uniform(0.5, 0.9) for name in SCORES},
        stages=tuple(
            StageRecord(name=name, key=digest_of([parts[name], split.fold], digits=32), seconds=0.5, reused=False)
            for name in STAGES
        ),
        predictions=tuple(_prediction(split.fold, index, rng) for index in range(PREDICTIONS)),
        counts={"real": 2 * PREDICTIONS, "synthetic": 2 * PREDICTIONS, "validation": 0, "test": PREDICTIONS},
        fidelity={name: rng.uniform(0.0, 0.1) for name in _FIDELITY} if config.synthetic is not None else {},
        seconds=1.5,
        peak_bytes=2**28,
        name=split.name,
        locked=split.locked,
    )


def _prediction(fold: int, index: int, rng: random.Random) -> Prediction:
    share = rng.random()
    return Prediction(
        image=f"class/{fold}_{index:04d}_000.png",
        patient=f"patient_{fold}_{index:04d}",
        label=index % 2,
        probabilities=(share, 1 - share),
    )


class BareTrainable(tune.Trainable):  # type: ignore[misc]
    """A class trainable that reports a number for each of three steps, and can be reused."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin."""
        self._done = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin anew."""
        self._done = 0
        return True

    def step(self) -> dict[str, Any]:
        """Report."""
        self._done += 1
        return {"score": self._done / FOLDS, "done": self._done == FOLDS}


def bare_function(config: dict[str, Any]) -> None:
    """The same as a function."""
    for fold in range(FOLDS):
        tune.report({"score": (fold + 1) / FOLDS})
