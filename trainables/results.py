"""What a trial leaves behind: results per fold and per trial, as plain data and back."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from spaces.space import Assignment
from trainables.metrics.interval import Interval

Scores: TypeAlias = Mapping[str, float | None]
"""Score name to value; None where the value is undefined."""

TrialState: TypeAlias = Literal["unfinished", "completed", "pruned", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One stage of a fold: what it was, what computing it cost, and whether it was found in the store.

    ``seconds`` is its wall time and ``peak_bytes`` the GPU memory that it needed (0: not known) when it was computed,
    also where it was found.
    """

    name: str
    key: str
    seconds: float
    reused: bool
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Out-of-fold class probabilities of one test image, in the order of the search's classes."""

    image: str
    patient: str
    label: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One finished fold of one trial, or one training for the locked test set (``locked``); ``name`` says which.

    ``counts`` are the numbers of real and synthetic training images and of test images; ``seconds`` is the fold's own
    wall time, without what was reused. ``predictions`` are empty where only scores were asked for. ``fidelity`` says
    how good the synthetic images are (``kid``, ``copy_rate``, ...); it is empty where there are none.
    """

    fold: int
    scores: Scores
    stages: tuple[StageRecord, ...]
    predictions: tuple[Prediction, ...]
    counts: Mapping[str, int]
    seconds: float
    peak_bytes: int
    fidelity: Scores = field(default_factory=dict)
    name: str = ""
    locked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, predictions: bool = True) -> FoldResult:
        """The inverse of ``to_dict``; records of searches that knew neither fidelity nor names are read too.

        ``predictions`` False leaves these out: they are most of a result.
        """
        return cls(
            fold=data["fold"],
            scores=data["scores"],
            stages=tuple(StageRecord(**each) for each in data["stages"]),
            predictions=tuple(
                Prediction(**{**each, "probabilities": tuple(each["probabilities"])})
                for each in (data["predictions"] if predictions else ())
            ),
            counts=data["counts"],
            seconds=data["seconds"],
            peak_bytes=data["peak_bytes"],
            fidelity=data.get("fidelity", {}),
            name=data.get("name", ""),
            locked=data.get("locked", False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Mean and sample standard deviation over the folds where a score is defined; None where it is undefined."""

    mean: float | None
    std: float | None


def summarise(folds: Iterable[FoldResult]) -> dict[str, Summary]:
    """Every score's mean and sample standard deviation (n - 1) over folds, those of the locked test set left out.

    A score that is undefined in a fold is left out of that fold; one that is defined nowhere has mean None; the
    standard deviation of a single value is None.
    """
    return _summaries([fold.scores for fold in folds if not fold.locked])


def _summaries(rows: Sequence[Scores]) -> dict[str, Summary]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _summary([row.get(name) for row in rows]) for name in names}


def _summary(values: list[float | None]) -> Summary:
    defined = [value for value in values if value is not None and math.isfinite(value)]
    if not defined:
        return Summary(mean=None, std=None)
    mean = statistics.fmean(defined)
    squares = math.fsum((value - mean) ** 2 for value in defined)
    return Summary(mean=mean, std=math.sqrt(squares / (len(defined) - 1)) if len(defined) > 1 else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One trial as the ledger has it.

    ``reference`` names the reference policy that the trial is, or is None. ``folds`` are in the order of their
    numbers. ``error`` says why it failed, or was stopped early. Times are seconds since the epoch; ``ended`` is None
    while the trial is unfinished. ``intervals`` are those of its scores over all folds, by name,
    once it is complete.
    """

    id: str
    config: Assignment
    reference: str | None
    state: TrialState
    folds: tuple[FoldResult, ...]
    error: str | None
    created: float
    ended: float | None
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, Summary]:
        """Every score's mean and standard deviation over the finished folds."""
        return summarise(self.folds)

    def score(self, name: str) -> Summary:
        """One score's mean and standard deviation over the finished folds."""
        return _summary([fold.scores.get(name) for fold in self.folds if not fold.locked])

    @property
    def locked_scores(self) -> dict[str, Summary]:
        """Every score on the locked test set, summarised over the trainings for it; empty where there were none."""
        return _summaries([fold.scores for fold in self.folds if fold.locked])

    @property
    def fidelity(self) -> dict[str, Summary]:
        """Every measure of the synthetic images, summarised like ``scores``; empty where the trial has none."""
        return _summaries([fold.fidelity for fold in self.folds])

    @property
    def copy_rate(self) -> float | None:
        """Mean share of the synthetic images that copy a training image; None without such images."""
        return _summary([fold.fidelity.get("copy_rate") for fold in self.folds]).mean

    def feasible(self, max_copy_rate: float | None) -> bool:
        """Whether the trial's copy rate, as far as it is defined, is within the search's limit (None: no limit)."""
        if max_copy_rate is None:
            return True
        rate = self.copy_rate
        return rate is None or rate <= max_copy_rate
