"""The rule of ``search.schedulers.FoldAsha`` without Ray, for simulations and for comparisons with racing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from search.objectives import Objective, trial_value
from trainables.results import TrialResult

GRACE_FOLDS = 2
REDUCTION = 2


class AshaRule:
    """Stops a trial whose running mean is below the median of those that got as far, after 2, 4, ... folds.

    Reference policies set a bar for others, and never stop. Copy rates are not looked at.

    Args:
        objective: the score that is compared.
        folds: of a whole trial, computed in the order of their numbers.

    Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", as Ray Tune has it.
    """

    def __init__(self, *, objective: Objective, folds: int) -> None:
        self._objective = objective
        rungs = [GRACE_FOLDS]
        while rungs[-1] * REDUCTION <= folds:
            rungs.append(rungs[-1] * REDUCTION)
        self._rungs: dict[int, dict[str, float]] = {rung: {} for rung in reversed(rungs)}

    def stops(self, trial: TrialResult, trials: Sequence[TrialResult]) -> str | None:
        """Why a trial that has just finished a fold stops, in words, or None if it goes on."""
        value = trial_value(trial, self._objective)
        if value is None:
            return None
        reward = value if self._objective.maximize else -value
        for rung, recorded in self._rungs.items():
            if len(trial.folds) < rung or trial.id in recorded:
                continue
            bar = statistics.median(recorded.values()) if recorded else reward
            recorded[trial.id] = reward
            if reward < bar and trial.reference is None:
                return f"it is in the worse half of the trials after {rung} folds"
            return None
        return None
