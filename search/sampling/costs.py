"""What a configuration will cost, learnt from the seconds that the stages of finished folds took."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.sampling.columns import Columns, FloatArray
from trainables.results import TrialResult

TRAINING, DRAWING, REST = "training", "drawing", "rest"
_PARTS: Mapping[str, str] = {"generator": TRAINING, "pool": DRAWING, "fidelity": DRAWING, "classifier": REST}
"""The stages that cost; what all trials of a search share (preprocessing, the extractor) tells none apart."""
_LEAST_SECONDS = 1e-3
_SHRINKAGE = 0.3


def seconds_of(trial: TrialResult) -> dict[str, float]:
    """Seconds a fold of each part of a trial, as if nothing had been reused; parts that it does not have are left out.

    The median over its folds: one that a busy machine slowed down does not count.
    """
    sums: dict[str, list[float]] = {}
    for fold in trial.folds:
        found: dict[str, float] = {}
        for stage in fold.stages:
            if stage.name in _PARTS:
                found[_PARTS[stage.name]] = found.get(_PARTS[stage.name], 0.0) + stage.seconds
        for part, seconds in found.items():
            sums.setdefault(part, []).append(seconds)
    return {part: statistics.median(seconds) for part, seconds in sums.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A trial's row and the seconds of its parts."""

    row: FloatArray
    seconds: Mapping[str, float]


def ridge(rows_NC: FloatArray, values_N: FloatArray) -> tuple[FloatArray, float]:
    """Slopes and level of the ridge regression with penalty ``_SHRINKAGE`` on the slopes (Hoerl & Kennard 1970)."""
    centre_C, level = rows_NC.mean(0), float(values_N.mean())
    apart_NC = rows_NC - centre_C
    penalty_CC = _SHRINKAGE * np.eye(rows_NC.shape[1])
    slopes_C = np.linalg.solve(apart_NC.T @ apart_NC + penalty_CC, apart_NC.T @ (values_N - level))
    return slopes_C, level - float(centre_C @ slopes_C)


class Costs:
    """Predicts the seconds of each part from a configuration's columns: a ridge regression of their logarithm.

    Args:
        columns: of the rows.
        measured: trials with finished folds; parts that none of them has are taken to cost nothing.
    """

    def __init__(self, columns: Columns, measured: Sequence[Measured]) -> None:
        self._columns = columns
        self._models: dict[str, tuple[FloatArray, float]] = {}
        for part in (TRAINING, DRAWING, REST):
            known = [each for each in measured if part in each.seconds]
            if known:
                rows = np.stack([each.row for each in known])[:, self._of(part)]
                logs = np.log([max(each.seconds[part], _LEAST_SECONDS) for each in known])
                self._models[part] = ridge(rows, logs)

    def of(self, part: str, rows_MC: FloatArray) -> FloatArray:
        """Seconds a fold that a part of some configurations will take."""
        if part not in self._models:
            return np.zeros(len(rows_MC))
        slopes_C, level = self._models[part]
        return np.asarray(np.exp(rows_MC[:, self._of(part)] @ slopes_C + level))

    def _of(self, part: str) -> list[int]:
        """The columns that a part's seconds depend on."""
        if part == REST or not self._columns.generator:
            return list(range(self._columns.width))
        return list(self._columns.generator)
