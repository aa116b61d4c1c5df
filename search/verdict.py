"""What a confirmation found: the best policy against every reference, with intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from search.outcome import policy
from trainables.ledger import SearchRecord
from trainables.metrics.catalogue import maximizes
from trainables.metrics.comparison import (
    PairedComparison,
    PairedDifference,
    compare_evaluations,
    holm,
    paired_difference_by_patient,
)
from trainables.metrics.interval import Interval
from trainables.pooled_intervals import score_intervals
from trainables.results import Summary, TrialResult

LEVEL = 0.05
"""A difference is claimed where its p value, after Holm's correction, is below this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """One configuration, evaluated again.

    Args:
        trial: its trial in the confirmation.
        searched_as: its trial in the search, or None.
        role: the reference policy that it is, or None.
        policy: the configuration in a few words.
        state: how its evaluation ended.
        score: the search's metric over the fresh splits.
        interval: of the metric over the out-of-fold predictions, by bootstrap over patients; None where there is none.
        locked: the search's metric on the locked test set over the trainings; None without such a set.
        locked_interval: of the metric there.
        searched: the search's own score; None if the search did not try it.
        optimism: how much better the search's score is than the confirmed one; None if the latter is not complete.
    """

    trial: str
    searched_as: str | None
    role: str | None
    policy: str
    state: str
    score: Summary | None
    interval: Interval | None
    locked: Summary | None
    locked_interval: Interval | None
    searched: float | None
    optimism: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The best policy against one reference: positive differences are improvements.

    Args:
        role: the reference.
        splits: difference of the search's metric over the fresh splits, by ``compare_evaluations``.
        p_holm: its p value, corrected for the number of references.
        locked: difference of balanced accuracy on the locked test set; None without one.
        locked_p_holm: its p value, corrected alike.
    """

    role: str
    splits: PairedComparison
    p_holm: float | None
    locked: PairedDifference | None
    locked_p_holm: float | None

    @property
    def on_splits(self) -> bool:
        """Whether the splits show an improvement."""
        return self.splits.mean is not None and self.splits.mean > 0 and _is_low(self.p_holm)

    @property
    def on_locked(self) -> bool:
        """Whether the locked test set shows an improvement."""
        return self.locked is not None and self.locked.difference > 0 and _is_low(self.locked_p_holm)

    @property
    def contradicted(self) -> bool:
        """Whether the locked test set shows that the policy is worse."""
        return self.locked is not None and self.locked.difference < 0 and _is_low(self.locked_p_holm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that a confirmation found.

    Args:
        metric: the search's score.
        rows: every configuration, the best policy first.
        comparisons: the best policy against each reference.
        reused: in how far the confirmation used what the search or an earlier confirmation had used, a sentence each.
    """

    metric: str
    rows: tuple[Confirmed, ...]
    comparisons: tuple[Compared, ...]
    reused: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def judge(
    record: SearchRecord,
    searched: Sequence[TrialResult],
    confirmed: Sequence[TrialResult],
    *,
    searched_as: Mapping[str, str | None],
    reused: tuple[str, ...] = (),
) -> Verdict:
    """Compare the best policy with the references on fresh splits and on the locked test set.

    Args:
        record: the confirmation's record.
        searched: the search's trials.
        confirmed: the confirmation's trials, the best policy first; ``reference`` names the reference policies.
        searched_as: the search's trial of each of them, if it has one.
        reused: sentences on what was not fresh in it.
    """
    scores = {trial.id: _mean(trial.scores.get(record.metric)) for trial in searched}
    rows = tuple(_row(trial, record, searched_as.get(trial.id), scores) for trial in confirmed)
    best, references = confirmed[0], [each for each in confirmed[1:] if each.reference is not None]
    splits = [_over_splits(best, each, record) for each in references]
    locked = [_on_locked(best, each, record) for each in references]
    p_splits = holm([each.p_value for each in splits])
    p_locked = holm([None if each is None else each.p_value for each in locked])
    comparisons = tuple(
        Compared(role=str(each.reference), splits=one, p_holm=p_one, locked=other, locked_p_holm=p_other)
        for each, one, p_one, other, p_other in zip(references, splits, p_splits, locked, p_locked, strict=True)
    )
    return Verdict(metric=record.metric, rows=rows, comparisons=comparisons, reused=reused)


def _row(
    trial: TrialResult, record: SearchRecord, searched_as: str | None, scores: Mapping[str, float | None]
) -> Confirmed:
    score = trial.scores.get(record.metric)
    before, now = scores.get(searched_as or ""), _mean(score)
    sign = 1 if maximizes(record.metric) else -1
    comparable = trial.state == "completed" and before is not None and now is not None
    return Confirmed(
        trial=trial.id,
        searched_as=searched_as,
        role=trial.reference,
        policy=policy(trial.config, record.space),
        state=trial.state,
        score=score,
        interval=score_intervals(trial, record).get(record.metric),
        locked=trial.locked_scores.get(record.metric),
        locked_interval=score_intervals(trial, record, locked=True).get(record.metric),
        searched=before,
        optimism=sign * ((before or 0.0) - (now or 0.0)) if comparable else None,
    )


def _is_low(p_value: float | None) -> bool:
    return p_value is not None and p_value < LEVEL


def _mean(summary: Summary | None) -> float | None:
    return None if summary is None else summary.mean


def _over_splits(best: TrialResult, other: TrialResult, record: SearchRecord) -> PairedComparison:
    """Improvements over a reference on the splits that both have finished."""
    sign = 1 if maximizes(record.metric) else -1
    theirs = {fold.fold: fold for fold in other.folds if not fold.locked}
    pairs = [(fold, theirs[fold.fold]) for fold in best.folds if not fold.locked and fold.fold in theirs]
    values = {one.fold: (one.scores.get(record.metric), two.scores.get(record.metric)) for one, two in pairs}
    differences = {
        number: sign * (one - two) for number, (one, two) in values.items() if one is not None and two is not None
    }
    if not differences:
        return PairedComparison(mean=None, low=None, high=None, t=None, p_value=None, n=0)
    train = statistics.fmean(one.counts["real"] for one, _ in pairs)
    test = statistics.fmean(one.counts["test"] for one, _ in pairs)
    return compare_evaluations(
        differences,
        record.protocol,
        evaluations=record.folds - record.protocol.test_repeats,
        n_train=round(train),
        n_test=round(test),
    )


def _on_locked(best: TrialResult, other: TrialResult, record: SearchRecord) -> PairedDifference | None:
    """Improvement of balanced accuracy over a reference on the locked test set, trainings paired by their draws."""
    theirs = {fold.fold: fold for fold in other.folds if fold.locked}
    pairs = [(fold, theirs[fold.fold]) for fold in best.folds if fold.locked and fold.fold in theirs]
    if not pairs:
        return None
    images = pairs[0][0].predictions
    first, second = (
        np.array([[each.probabilities for each in pair[side].predictions] for pair in pairs]) for side in (0, 1)
    )
    found = paired_difference_by_patient(
        [each.label for each in images],
        first,
        second,
        [each.patient for each in images],
        positive=record.data.positive,
        seed=record.seed,
    )
    return found["balanced_accuracy"]
