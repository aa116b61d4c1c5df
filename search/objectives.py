"""What a search improves: one score, or several that are traded against each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trainables.ledger import SearchRecord
from trainables.metrics.catalogue import SECONDS, maximizes
from trainables.results import FoldResult, TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A score, or ``seconds`` (what a fold costs), and whether more of it is better."""

    name: str
    maximize: bool


def objectives_of(record: SearchRecord) -> tuple[Objective, ...]:
    """The objectives of a search; the first is the one by which the best of a search is named."""
    return tuple(Objective(name=name, maximize=maximizes(name)) for name in (record.metric, *record.further_metrics))


def fold_value(fold: FoldResult, name: str) -> float | None:
    """An objective's value in one fold; None where it is undefined.

    ``seconds`` is what the fold's stages cost when they were computed: the same whoever computed them.
    """
    if name == SECONDS:
        return sum(stage.seconds for stage in fold.stages)
    value = fold.scores.get(name)
    return value if value is not None and math.isfinite(value) else None


def trial_value(trial: TrialResult, objective: Objective) -> float | None:
    """The mean over a trial's finished folds where it is defined, those of the locked test set left out."""
    values = [fold_value(fold, objective.name) for fold in trial.folds if not fold.locked]
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else None


def front(trials: Sequence[TrialResult], objectives: Sequence[Objective]) -> list[TrialResult]:
    """The trials that no other dominates, in their order; of equal ones all.

    Args:
        trials: those that can be the best, ``rank`` says which; one with an undefined objective is left out.
        objectives: at least one.
    """
    points = {trial.id: _point(trial, objectives) for trial in trials}
    known = {name: point for name, point in points.items() if point is not None}
    return [
        trial
        for trial in trials
        if trial.id in known and not any(_dominates(other, known[trial.id]) for other in known.values())
    ]


def _point(trial: TrialResult, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """A trial's values, each such that more is better."""
    values = [trial_value(trial, each) for each in objectives]
    if any(value is None for value in values):
        return None
    signed = zip(values, objectives, strict=True)
    return tuple((value or 0.0) if each.maximize else -(value or 0.0) for value, each in signed)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
