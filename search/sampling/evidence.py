"""What a surrogate learns from: trials as rows, values and their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

import numpy as np

from search.objectives import Objective, fold_value
from search.sampling.columns import FloatArray
from search.sampling.costs import seconds_of
from search.sampling.surrogate import chebyshev, without_fold_effects
from search.sampling.tpe import fails_again
from spaces.space import Assignment
from trainables.results import TrialResult

OWN = ""
"""The source of a search's own trials."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """One trial as evidence.

    Args:
        id: of the trial, with its search's name in front where it is another's.
        config: its configuration.
        row: its columns, with those of the sources behind.
        source: the search whose folds it was scored on; ``OWN``: this one.
        scores: of each objective, by fold.
        means: of each objective over its folds; None where one has none.
        standings: by each objective, the larger the better: whether its scores are ones to exceed, and its mean.
        is_own: whether it is this search's, or one of the same fidelity.
        can_be_best: whether its scores are ones to exceed.
        is_feasible: whether its copy rate is within the limit.
        has_failed: whether it would fail again.
        has_ended: whether it is no longer running; ``ended`` is when.
        seconds: of each of its parts.
    """

    id: str
    config: Assignment
    row: FloatArray
    source: str
    scores: tuple[Mapping[int, float], ...]
    means: tuple[float, ...] | None
    standings: tuple[tuple[bool, float], ...]
    is_own: bool
    can_be_best: bool
    is_feasible: bool
    has_failed: bool
    has_ended: bool
    ended: float
    seconds: Mapping[str, float]

    @property
    def is_known(self) -> bool:
        """Whether it has ended with scores."""
        return self.means is not None and self.has_ended


def piece_of(
    trial: TrialResult,
    row: FloatArray,
    objectives: Sequence[Objective],
    *,
    source: str = OWN,
    is_own: bool = True,
    max_copy_rate: float | None,
) -> Piece:
    """Read one trial as evidence. ``row`` is that of its configuration, the sources' columns included."""
    folds = [fold for fold in trial.folds if not fold.locked]
    scores = tuple(
        {fold.fold: value for fold in folds if (value := fold_value(fold, each.name)) is not None}
        for each in objectives
    )
    means = tuple(fmean(each.values()) for each in scores) if all(scores) else None
    is_feasible, has_failed = trial.feasible(max_copy_rate), fails_again(trial)
    can_be_best = means is not None and is_own and is_feasible and not has_failed
    signed = [(1 if each.maximize else -1) * mean for each, mean in zip(objectives, means or (), strict=False)]
    return Piece(
        id=trial.id,
        config=trial.config,
        row=row,
        source=source,
        scores=scores,
        means=means,
        standings=tuple((can_be_best, mean) for mean in signed or [0.0] * len(objectives)),
        is_own=is_own,
        can_be_best=can_be_best,
        is_feasible=is_feasible,
        has_failed=has_failed,
        has_ended=trial.state != "unfinished",
        ended=trial.ended or 0.0,
        seconds=seconds_of(trial),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """All trials as evidence.

    Args:
        pieces: in their order, those of earlier searches first.
        known: those that have ended with scores, likewise.
        by_end: the same in the order in which they ended.
        ranked: the same by each objective, those that can be named the best first, then the larger score.
        running: those that have not ended.
    """

    pieces: Sequence[Piece]
    known: Sequence[Piece]
    by_end: Sequence[Piece]
    ranked: Sequence[Sequence[Piece]]
    running: Sequence[Piece]

    def latest(self, many: int, counts: Callable[[Piece], bool]) -> list[Piece]:
        """The last so many pieces that count, in their order."""
        return list(islice(filter(counts, reversed(self.pieces)), many))[::-1]


def leading(evidence: Evidence, many: int, *, but: Set[str] = frozenset()) -> list[Piece]:
    """The best trials, those that can be named the best first; by one objective after the other in turn.

    Args:
        evidence: whose known pieces are ranked.
        many: how many.
        but: ids of pieces that are left out.
    """
    orders = [list(islice((piece for piece in order if piece.id not in but), many)) for order in evidence.ranked]
    best = {piece.id: piece for ranked in zip(*orders, strict=True) for piece in ranked}
    return list(best.values())[:many]


def values_of(
    pieces: Sequence[Piece], objectives: Sequence[Objective], weights_K: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """One number for each trial, more of it better, and the variance of its error.

    Args:
        pieces: trials that have every objective in some fold; at least one.
        objectives: of which the pieces have scores.
        weights_K: of the objectives, when they are several; they sum to 1.
    """
    adjusted = [
        _adjusted([piece.scores[index] for piece in pieces], [piece.source for piece in pieces])
        for index in range(len(objectives))
    ]
    signs = [1.0 if each.maximize else -1.0 for each in objectives]
    values_NK = np.stack([sign * values for sign, (values, _) in zip(signs, adjusted, strict=True)], axis=1)
    variances_NK = np.stack([variances for _, variances in adjusted], axis=1)
    if len(objectives) == 1:
        return values_NK[:, 0], variances_NK[:, 0]
    range_K = np.maximum(values_NK.max(0) - values_NK.min(0), 1e-12)
    scaled_NK = (values_NK - values_NK.min(0)) / range_K
    return chebyshev(scaled_NK, weights_K), (variances_NK * (weights_K / range_K) ** 2).sum(1)


def _adjusted(scores: Sequence[Mapping[int, float]], sources: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Trials' values without the effects of folds, those of each source apart, and the variances of their errors."""
    values, variances = np.zeros(len(scores)), np.zeros(len(scores))
    for source in dict.fromkeys(sources):
        chosen = [index for index, each in enumerate(sources) if each == source]
        folds = sorted({fold for index in chosen for fold in scores[index]})
        scores_NF = np.array([[scores[index].get(fold, np.nan) for fold in folds] for index in chosen])
        values[chosen], variance = without_fold_effects(scores_NF)
        variances[chosen] = variance / np.isfinite(scores_NF).sum(1)
    return values, variances
