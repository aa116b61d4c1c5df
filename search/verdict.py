"""What a confirmation found: the best policy against every reference, with intervals, and one honest sentence."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from search.outcome import intervals, policy
from trainables.ledger import SearchRecord
from trainables.metrics.catalogue import maximizes
from trainables.metrics.comparison import (
    PairedComparison,
    PairedDifference,
    corrected_resampled_t_test,
    holm,
    paired_difference_by_patient,
)
from trainables.metrics.intervals import Interval
from trainables.results import Summary, TrialResult

LEVEL = 0.05
"""A difference is claimed where its p value, after Holm's correction, is below this."""

_ROLES = {
    "none": "no augmentation",
    "affine": "classical augmentation (affine)",
    "mixup": "mixup at 0.2",
    "genmix": "GenMix at its paper's settings",
}


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
        interval: of the out-of-fold predictions, by bootstrap over patients; None where it is undefined.
        locked: the search's metric on the locked test set over the trainings; None without such a set.
        locked_interval: of balanced accuracy there.
        searched: the search's own score; None if the search did not try it.
        optimism: how much better the search's score is than the confirmed one.
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
        splits: difference of the search's metric over the fresh splits, by the corrected resampled t-test.
        p_holm: its p value, corrected for the number of references.
        locked: difference of balanced accuracy on the locked test set; None without one.
        locked_p_holm: its p value, corrected alike.
    """

    role: str
    splits: PairedComparison
    p_holm: float | None
    locked: PairedDifference | None
    locked_p_holm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that a confirmation found; ``sentences`` say it."""

    metric: str
    rows: tuple[Confirmed, ...]
    comparisons: tuple[Compared, ...]
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def judge(
    record: SearchRecord,
    searched: Sequence[TrialResult],
    confirmed: Sequence[TrialResult],
    *,
    searched_as: Mapping[str, str | None],
    locked_before: bool = False,
) -> Verdict:
    """Compare the best policy with the references on fresh splits and on the locked test set.

    Args:
        record: the confirmation's record.
        searched: the search's trials.
        confirmed: the confirmation's trials, the best policy first; ``reference`` names the reference policies.
        searched_as: the search's trial of each of them, if it has one.
        locked_before: whether an earlier confirmation has opened the locked test set.
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
    sentences = (*_sentences(record, rows[0], comparisons), *_warnings(rows, locked_before=locked_before))
    return Verdict(metric=record.metric, rows=rows, comparisons=comparisons, sentences=sentences)


def _row(
    trial: TrialResult, record: SearchRecord, searched_as: str | None, scores: Mapping[str, float | None]
) -> Confirmed:
    score = trial.scores.get(record.metric)
    before, now = scores.get(searched_as or ""), _mean(score)
    sign = 1 if maximizes(record.metric) else -1
    tested = [fold.scores.get(record.metric) for fold in trial.folds if fold.locked]
    name = "balanced_accuracy"
    return Confirmed(
        trial=trial.id,
        searched_as=searched_as,
        role=trial.reference,
        policy=policy(trial.config, record.space),
        state=trial.state,
        score=score,
        interval=intervals(trial, record).get(record.metric if record.metric == "auroc" else name),
        locked=_summary(tested) if tested else None,
        locked_interval=intervals(trial, record, locked=True).get(name),
        searched=before,
        optimism=None if before is None or now is None else sign * (before - now),
    )


def _summary(values: Sequence[float | None]) -> Summary:
    defined = [value for value in values if value is not None]
    return Summary(
        mean=statistics.fmean(defined) if defined else None, std=statistics.stdev(defined) if len(defined) > 1 else None
    )


def _mean(summary: Summary | None) -> float | None:
    return None if summary is None else summary.mean


def _over_splits(best: TrialResult, other: TrialResult, record: SearchRecord) -> PairedComparison:
    """Improvements over a reference on the splits that both have finished."""
    sign = 1 if maximizes(record.metric) else -1
    theirs = {fold.fold: fold for fold in other.folds if not fold.locked}
    pairs = [(fold, theirs[fold.fold]) for fold in best.folds if not fold.locked and fold.fold in theirs]
    values = [(one.scores.get(record.metric), two.scores.get(record.metric)) for one, two in pairs]
    differences = [sign * (one - two) for one, two in values if one is not None and two is not None]
    if not differences:
        return PairedComparison(mean=None, low=None, high=None, t=None, p_value=None, n=0)
    train = statistics.fmean(one.counts["real"] for one, _ in pairs)
    test = statistics.fmean(one.counts["test"] for one, _ in pairs)
    return corrected_resampled_t_test(differences, n_train=round(train), n_test=round(test))


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


def _sentences(record: SearchRecord, best: Confirmed, comparisons: Sequence[Compared]) -> list[str]:
    """The verdict, on fresh splits and then on the locked test set."""
    metric = record.metric.replace("_", " ")
    name = f"{best.searched_as or best.trial} ({best.policy})"
    if best.score is None or best.score.mean is None:
        return [f"Verdict: none, as the best policy, {name}, could not be evaluated again ({best.state})."]
    if best.role is not None:
        told = [f"Verdict: nothing beats the references: the best trial, {name}, is itself '{_role(best.role)}'."]
    else:
        won = [each for each in comparisons if _claimed(each.splits.mean, each.p_holm)]
        told = [
            f"Verdict: {name} is better than {_listed([_against(each) for each in won])} in {metric}."
            if won
            else f"Verdict: nothing beats the references: {name} is not shown to be better in {metric}."
        ]
    open_ = [each for each in comparisons if best.role is not None or not _claimed(each.splits.mean, each.p_holm)]
    if open_:
        told.append(f"Not shown to be better than {_listed([_against(each) for each in open_])}.")
    tested = [each for each in comparisons if each.locked is not None]
    if tested:
        told.append(
            "On the locked test set, which no part of the search has seen, its balanced accuracy differs from that of "
            + _listed([_against_locked(each) for each in tested])
            + "."
        )
    if best.optimism is not None and best.searched is not None:
        told.append(
            f"Optimism: the search scored it {best.searched:.3f}, fresh splits {best.score.mean:.3f}, so that the "
            f"search was {abs(best.optimism):.3f} too {'hopeful' if best.optimism >= 0 else 'doubtful'}."
        )
    return told


def _claimed(difference: float | None, p_value: float | None) -> bool:
    return difference is not None and difference > 0 and p_value is not None and p_value < LEVEL


def _against(compared: Compared) -> str:
    found = compared.splits
    if found.mean is None:
        return f"{_role(compared.role)} (not evaluated)"
    if found.low is None or found.high is None:
        return f"{_role(compared.role)} ({found.mean:+.3f} over {found.n} evaluations, too few for an interval)"
    return (
        f"{_role(compared.role)} ({found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], p = {_p(compared.p_holm)})"
    )


def _against_locked(compared: Compared) -> str:
    found = compared.locked
    assert found is not None  # noqa: S101 - only those with a locked test set are told
    interval = f"[{found.low:+.3f}, {found.high:+.3f}]"
    return f"{_role(compared.role)} by {found.difference:+.3f} {interval} (p = {_p(compared.locked_p_holm)})"


def _p(value: float | None) -> str:
    return "undefined" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _role(role: str) -> str:
    return _ROLES.get(role, f"{role} at ratio 1" if role.startswith("plain ") else role)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _warnings(rows: Sequence[Confirmed], *, locked_before: bool) -> list[str]:
    told = [
        f"{row.trial} ({row.policy}) could not be evaluated to its end ({row.state})."
        for row in rows
        if row.state != "completed"
    ]
    if locked_before:
        told.append(
            "An earlier confirmation has opened the locked test set: what was chosen since may have been chosen by it."
        )
    return told


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print every configuration's confirmed scores, then the verdict."""
    table = Table(title="Confirmation: fresh seeds and fresh splits", title_justify="left")
    headings = ("policy", "search", "confirmed", "95 % interval", "optimism")
    tested = any(row.locked is not None for row in verdict.rows)
    for heading in (*headings, *(("locked test", "95 % interval") if tested else ())):
        table.add_column(heading, overflow="fold", justify="left" if heading == "policy" else "right")
    for row in verdict.rows:
        name = row.policy + (f" [reference: {row.role}]" if row.role else "")
        cells = [_score(row.searched), _with_spread(row.score), _interval(row.interval), _signed(row.optimism)]
        table.add_row(name, *cells, *((_with_spread(row.locked), _interval(row.locked_interval)) if tested else ()))
    console.print(table)
    for sentence in verdict.sentences:
        console.print(sentence)
    console.print(
        f"({verdict.metric.replace('_', ' ')}; differences with 95 % intervals and p values of the corrected resampled "
        f"t-test (Nadeau & Bengio 2003), p after Holm's correction; intervals of scores by bootstrap over patients)"
    )


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _with_spread(summary: Summary | None) -> str:
    if summary is None or summary.mean is None:
        return "undefined"
    return f"{summary.mean:.3f}" + (f" ± {summary.std:.3f}" if summary.std is not None else "")


def _interval(interval: Interval | None) -> str:
    return "undefined" if interval is None else f"[{interval.low:.3f}, {interval.high:.3f}]"
