"""Whether the orders that a paper claims hold in a search: paired differences over the folds that rows share."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from spaces.paper_table import Claim, GainClaim
from trainables.ledger import SearchRecord
from trainables.metrics.comparison import PairedComparison, compare_evaluations, holm
from trainables.results import FoldResult, TrialResult

LEVEL = 0.05

Verdict: TypeAlias = Literal["holds", "does not hold", "cannot be told"]
Trials: TypeAlias = Mapping[str, TrialResult]
"""Label of a row to its completed trial, of one classifier."""
NOT_HERE = ("no pipeline", "left out")
"""Why a row has no trial and will have none: what is claimed "for every generator" is then judged by the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One difference that a claim says is positive.

    Args:
        text: what is compared, "DAE GAN - DCGAN".
        test: of the difference; None where a row has no completed trial, or no fold in common defines the score.
        missing: why there is no test, in a few words.
        p_holm: adjusted for the number of comparisons of the claim; None where undefined.
    """

    text: str
    test: PairedComparison | None = None
    missing: str = ""
    p_holm: float | None = None

    @property
    def verdict(self) -> Verdict:
        """By the sign of the difference, where it is distinguishable from 0."""
        if self.test is None or self.test.mean is None or self.p_holm is None or self.p_holm >= LEVEL:
            return "cannot be told"
        return "holds" if self.test.mean > 0 else "does not hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of a claim.

    Args:
        text: the claim.
        score: which score it was judged by.
        comparisons: every one that the claim makes.
        observed: what was seen, one line; empty where there is nothing to add.
        needs_all: whether the claim is about nothing where one of its rows will never be there.
    """

    text: str
    score: str
    comparisons: tuple[Comparison, ...]
    observed: str = ""
    needs_all: bool = False

    @property
    def tested(self) -> int:
        """How many of the comparisons have a difference."""
        return sum(each.test is not None for each in self.comparisons)

    @property
    def verdict(self) -> Verdict:
        """One comparison that is reversed refutes the claim; all are needed to hold it, but those of rows not here."""
        needed = [each for each in self.comparisons if self.needs_all or each.missing not in NOT_HERE]
        verdicts = {each.verdict for each in needed}
        if "does not hold" in verdicts:
            return "does not hold"
        return "holds" if verdicts == {"holds"} else "cannot be told"


def judge(claim: Claim, trials: Trials, score: str, *, missing: Mapping[str, str], record: SearchRecord) -> Judgement:
    """Test a claim on the folds that its rows share, each comparison adjusted for the others (Holm).

    Args:
        claim: an order, or which gain is the largest.
        trials: completed trials by the label of their row.
        score: a score that more is better of.
        missing: why each other row has none, in a few words.
        record: the search.
    """
    if isinstance(claim, GainClaim):
        return _judge_gains(claim, trials, score, missing, record)
    compared = [
        _compare(f"{higher} - {lower}", [(higher, 1), (lower, -1)], trials, score, missing, record)
        for lower, higher in claim.pairs
    ]
    labels = dict.fromkeys(label for pair in claim.pairs for label in pair) if claim.is_chain else ()
    means = {label: mean for label in labels if (mean := _mean(trials.get(label), score)) is not None}
    ascending = " < ".join(f"{label} {means[label]:.3f}" for label in sorted(means, key=lambda label: means[label]))
    return Judgement(
        text=claim.text,
        score=score,
        comparisons=_adjusted(compared),
        observed=f"observed: {ascending}" if len(means) > 1 else "",
        needs_all=claim.is_chain,
    )


def _judge_gains(
    claim: GainClaim, trials: Trials, score: str, missing: Mapping[str, str], record: SearchRecord
) -> Judgement:
    """The gain with the least faithful generator, less each other gain."""
    gains = dict(claim.pairs)
    kid = {label: mean for label in gains if label in trials and (mean := _kid(trials[label])) is not None}
    unknown = {label: "KID undefined" for label in gains if label in trials and label not in kid}
    missing = {**missing, **unknown}
    if not kid:
        compared = [
            _untested(f"gain with {label}", pair, missing) for label, pair in zip(gains, claim.pairs, strict=True)
        ]
        return Judgement(text=claim.text, score=score, comparisons=tuple(compared))
    least = max(kid, key=lambda label: kid[label])
    compared = [
        _compare(
            f"gain with {least} - gain with {other}",
            [(gains[least], 1), (least, -1), (gains[other], -1), (other, 1)],
            {label: trial for label, trial in trials.items() if label not in unknown},
            score,
            missing,
            record,
        )
        for other in gains
        if other != least
    ]
    listed = ", ".join(f"{label} {kid[label]:.3f}" for label in sorted(kid, key=lambda label: -kid[label]))
    return Judgement(
        text=claim.text, score=score, comparisons=_adjusted(compared), observed=f"KID, least faithful first: {listed}"
    )


def _untested(text: str, labels: Iterable[str], missing: Mapping[str, str]) -> Comparison:
    """A comparison without a test; a row that will never be there says more than one that is not there yet."""
    reasons = sorted((missing[label] for label in labels if label in missing), key=lambda each: each not in NOT_HERE)
    return Comparison(text=text, missing=reasons[0] if reasons else "no fold in common")


def _compare(
    text: str,
    signs: Sequence[tuple[str, int]],
    trials: Trials,
    score: str,
    missing: Mapping[str, str],
    record: SearchRecord,
) -> Comparison:
    """Test a signed sum of rows against 0, over the folds in which all of them have the score."""
    labels = [label for label, _ in signs]
    if any(label not in trials for label in labels):
        return _untested(text, labels, missing)
    rows = [(_scored(trials[label], score), sign) for label, sign in signs]
    common = sorted(set.intersection(*(set(folds) for folds, _ in rows)))
    if not common:
        return _untested(text, labels, missing)
    differences = {number: sum(sign * _value(folds[number], score) for folds, sign in rows) for number in common}
    sizes = [rows[0][0][number].counts for number in common]
    test = compare_evaluations(
        differences,
        record.protocol,
        evaluations=record.folds - record.protocol.test_repeats,
        n_train=_size(sizes, "real"),
        n_test=_size(sizes, "test"),
    )
    return Comparison(text=text, test=test)


def _scored(trial: TrialResult, score: str) -> dict[int, FoldResult]:
    """The folds in which a score is defined, by number: equal numbers of one search are equal splits."""
    return {fold.fold: fold for fold in trial.folds if not fold.locked and fold.scores.get(score) is not None}


def _value(fold: FoldResult, score: str) -> float:
    value = fold.scores[score]
    assert value is not None  # noqa: S101 - held by _scored
    return value


def _size(counts: Sequence[Mapping[str, int]], name: str) -> int:
    """How many images an evaluation has, on average; what was not recorded counts as one."""
    return max(1, round(statistics.fmean(each.get(name, 1) for each in counts)))


def _adjusted(compared: Sequence[Comparison]) -> tuple[Comparison, ...]:
    p_values = [each.test.p_value if each.test is not None else None for each in compared]
    return tuple(replace(each, p_holm=p_holm) for each, p_holm in zip(compared, holm(p_values), strict=True))


def _mean(trial: TrialResult | None, score: str) -> float | None:
    summary = trial.scores.get(score) if trial is not None else None
    return summary.mean if summary is not None else None


def _kid(trial: TrialResult) -> float | None:
    summary = trial.fidelity.get("kid")
    return summary.mean if summary is not None else None
