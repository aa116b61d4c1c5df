"""Fold racing: a trial is stopped once it is unlikely to beat the best one, judged on the folds that both have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from search.changes import Changes
from search.objectives import Objective, fold_value
from search.sampling.draws import Key, key_of
from trainables.results import FoldResult, TrialResult

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

THRESHOLD = 0.2
"""Chance of beating the best below which a trial is stopped.

Measured by ``tests/benchmarks/racing.py``: with 5 folds the trial that FIFO would have chosen is lost in 2.7 % of
searches, and 32 % of the folds are saved; with 0.25 it is lost in 4.8 %, which leaves no room for heavier tails.
"""

FEWEST_FOLDS = 2
"""Folds that two trials need in common before one is stopped on account of the other."""

MOST_FREEDOM = 20.0
"""What the search so far counts for at most, as degrees of freedom, about how much one pair of trials varies.

However many trials there are, they tell how much pairs vary on average; this pair may still be another one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariancePrior:
    """What is known of the variance of two trials' difference in one fold, before any fold of these two is looked at.

    Args:
        variance: the expected one, over the folds of a search.
        freedom: how many degrees of freedom that is worth; 0: nothing is known.
    """

    variance: float
    freedom: float


def chance_to_beat(
    scores_n: Sequence[float],
    means_K: Floats,
    *,
    folds: int,
    complete: int,
    prior: VariancePrior,
    correlation: float,
) -> Floats:
    """The posterior probability that a trial is better than each of K complete ones, from the folds in common.

    With a flat prior on the true difference and a scaled inverse chi-square, s0^2 with v0 degrees of freedom, on the
    variance, the difference follows Student's t with v = v0 + n - 1 degrees of freedom about the mean of the n
    differences, with squared scale (1/m + r / (1 - r)) (v0 s0^2 + S) / v.

    How easy a fold is is the mean over T ``complete`` trials. Where T = 1, the other trial alone, the differences are
    paired ones, m = n, S is the sum of squares about their mean, and this is the correlated t-test with a prior.
    Otherwise the mean difference is the least-squares one of the table trials x folds, and less noisy, as the other's
    own noise is averaged over its folds: 1/m = ((1 + 1/T) / n + (1 - 1/T) / N) / 2, and S is that sum divided by
    (1 + 1/T) / 2.

    Args:
        scores_n: the trial's in each of n >= 2 folds, less how easy the fold is; more is better.
        means_K: the others' over all their folds.
        folds: N >= n, those that the others have.
        complete: T >= 1.
        prior: of the variance of a paired difference.
        correlation: r in [0, 1), of the errors in two folds: models that share training images err alike.

    Returns:
        K values in [0, 1]; 0.5 where nothing varies, as differences without a spread are no evidence.

    Raises:
        ValueError: an argument outside its range.

    Source: Benavoli et al. 2017 (JMLR 18:77), the Bayesian correlated t-test; r after Nadeau & Bengio 2003; the prior:
    Smyth 2004, section 3.
    """
    count = len(scores_n)
    if not FEWEST_FOLDS <= count <= folds or complete < 1 or not 0 <= correlation < 1:
        raise ValueError(
            f"a trial is compared on {FEWEST_FOLDS} to {folds} folds, by {complete} complete trials and a correlation "
            f"in [0, 1); got {count} folds and {correlation:g}."
        )
    from scipy.special import stdtr

    mean = math.fsum(scores_n) / count
    noise = (1 + 1 / complete) / 2
    squares = math.fsum((each - mean) ** 2 for each in scores_n) / noise
    freedom = prior.freedom + count - 1
    variance = (prior.freedom * prior.variance + squares) / freedom
    error = noise / count + (1 - noise) / folds + correlation / (1 - correlation)
    scale = math.sqrt(error * variance)
    if scale == 0:
        return np.full(len(means_K), 0.5)
    return cast("Floats", stdtr(freedom, (mean - means_K) / scale))


class FoldTables:
    """Learns from one complete trial after another how easy each fold is and how much two trials vary in it.

    The variance of a paired difference, pooled over all pairs of trials that have a value in the same folds, is twice
    the residual mean square of the table trials x folds: (T - 1) (N - 1) degrees of freedom, however many pairs.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[int, ...], FoldTable] = {}

    def add(self, values: Mapping[int, float]) -> None:
        """Learn a trial's values by fold."""
        folds = tuple(sorted(values))
        self._tables.setdefault(folds, FoldTable(len(folds))).add([values[fold] for fold in folds])

    def prior(self) -> VariancePrior:
        """What the trials so far say of the variance of any pair."""
        freedom = sum(table.freedom for table in self._tables.values())
        if not freedom:
            return VariancePrior(variance=0.0, freedom=0.0)
        squares = math.fsum(table.squares for table in self._tables.values())
        return VariancePrior(variance=2 * squares / freedom, freedom=min(float(freedom), MOST_FREEDOM))

    def table(self, folds: tuple[int, ...]) -> FoldTable:
        """That of the trials that have a value in these folds, in ascending order; some trial must have been learnt."""
        return self._tables[folds]


class FoldTable:
    """Running sums over the trials that have a value in the same N folds, each less the trial's mean."""

    def __init__(self, folds: int) -> None:
        self.trials = 0
        self._sums_N = [0.0] * folds
        self._all_squares = 0.0

    def add(self, values_N: Sequence[float]) -> None:
        """Learn a trial's values."""
        mean = math.fsum(values_N) / len(values_N)
        centred_N = [value - mean for value in values_N]
        self.trials += 1
        self._sums_N = [total + value for total, value in zip(self._sums_N, centred_N, strict=True)]
        self._all_squares += math.fsum(value**2 for value in centred_N)

    @property
    def easier(self) -> list[float]:
        """How much more the trials score in each fold than on average."""
        return [total / self.trials for total in self._sums_N]

    @property
    def freedom(self) -> int:
        """How many of them are free to vary beside what the trial and the fold explain."""
        return (self.trials - 1) * (len(self._sums_N) - 1)

    @property
    def squares(self) -> float:
        """Of what neither the trial nor the fold explains."""
        return max(0.0, self._all_squares - math.fsum(total**2 for total in self._sums_N) / self.trials)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Best:
    """A trial of the front: for each objective its mean, more being better, and the folds where it is defined."""

    id: str
    means_J: tuple[float, ...]
    folds_J: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    """Those k of the front that have one objective defined in the same folds, and their means of it."""

    folds: tuple[int, ...]
    members_k: Ints
    means_k: Floats


class Racing:
    """Decides which trials stop: a function of the search's trials, of which those that are complete are kept.

    The best is the best complete trial within the copy rate's limit; with several objectives, each trial of the front.
    A trial stops if one of these most likely beats it on every objective: its chances to beat that one, summed over
    the objectives (an upper bound on the chance to beat it on any), are below the threshold. That is never so before
    the two have two folds in common, nor before two trials of the search are complete, as the variance is unknown.
    Reference policies never stop: every claim of a search is a comparison with them.

    A trial that exceeds the copy rate's limit is nobody's best. It is compared with the best like any other, and stops
    once the folds left cannot bring it below.

    Args:
        objectives: at least one.
        folds: trainings and tests that make a whole trial, repeats included.
        max_copy_rate: the search's limit; None: no limit.
        threshold: of the chance, in [0, 1); 0: only the copy rate stops trials.
        correlation: of the differences in two folds, in [0, 1): the share of the images that one fold tests. None: 1 /
            ``folds``, which is right for cross-validation that is not repeated; repeated R times it is R / ``folds``.

    Raises:
        ValueError: a threshold or correlation outside its range.
    """

    def __init__(
        self,
        *,
        objectives: Sequence[Objective],
        folds: int,
        max_copy_rate: float | None,
        threshold: float = THRESHOLD,
        correlation: float | None = None,
    ) -> None:
        self._correlation = 1 / max(folds, FEWEST_FOLDS) if correlation is None else correlation
        if not 0 <= threshold < 1 or not 0 <= self._correlation < 1:
            raise ValueError(
                f"threshold and correlation must lie in [0, 1); got {threshold:g} and {self._correlation:g}."
            )
        self._objectives = tuple(objectives)
        self._folds = folds
        self._max_copy_rate = max_copy_rate
        self._threshold = threshold
        self._changes = Changes()
        self._complete: set[str] = set()
        self._learnt: set[Key] = set()
        """Configurations that the tables have: the same one again has the same scores, and says nothing new."""
        self._front: list[_Best] = []
        self._groups: list[list[_Group]] = []
        self._tables = [FoldTables() for _ in self._objectives]
        self._priors = [table.prior() for table in self._tables]

    def stops(self, trial: TrialResult, trials: Sequence[TrialResult]) -> str | None:
        """Why a trial stops, in words, or None if it goes on.

        Args:
            trial: one that has just finished a fold.
            trials: those of the search so far, in any order; one that has ended never changes, and more are added
                behind the others.
        """
        self._learn(trials)
        folds = _searched(trial)
        if trial.reference is not None or trial.state != "unfinished" or len(folds) >= self._folds:
            return None
        return self._copies(trial, folds) or self._beaten(trial)

    def _learn(self, trials: Sequence[TrialResult]) -> None:
        changed = (each for _, each in self._changes.since(trials))
        new = [each for each in changed if each.state == "completed" and each.id not in self._complete]
        for trial in new:
            self._complete.add(trial.id)
            values_J = self._values(trial)
            is_new = key_of(trial.config) not in self._learnt
            self._learnt.add(key_of(trial.config))
            for table, values in zip(self._tables, values_J, strict=True):
                if values and is_new:
                    table.add(values)
            if all(values_J) and trial.feasible(self._max_copy_rate):
                means = tuple(math.fsum(values.values()) / len(values) for values in values_J)
                folds = tuple(tuple(sorted(values)) for values in values_J)
                self._front = _joined(self._front, _Best(id=trial.id, means_J=means, folds_J=folds))
        if new:
            self._priors = [table.prior() for table in self._tables]
            self._groups = [_grouped(self._front, index) for index in range(len(self._objectives))]

    def _values(self, trial: TrialResult) -> list[dict[int, float]]:
        """For each objective the values that are defined, by fold, each such that more is better."""
        found = []
        for each in self._objectives:
            values = {fold.fold: fold_value(fold, each.name) for fold in _searched(trial)}
            sign = 1.0 if each.maximize else -1.0
            found.append({number: sign * value for number, value in values.items() if value is not None})
        return found

    def _copies(self, trial: TrialResult, folds: Sequence[FoldResult]) -> str | None:
        if self._max_copy_rate is None or trial.feasible(self._max_copy_rate):
            return None
        least = sum(fold.fidelity.get("copy_rate") or 0.0 for fold in folds) / self._folds
        if least <= self._max_copy_rate:
            return None
        return f"its copy rate will be {least:.3g} or more, above the limit of {self._max_copy_rate:g}"

    def _beaten(self, trial: TrialResult) -> str | None:
        if not self._front or len(trial.folds) < FEWEST_FOLDS:
            return None
        # an upper bound on the chance to beat each of the front on any objective
        chance_K = np.sum([self._chances(index, values) for index, values in enumerate(self._values(trial))], axis=0)
        least = int(chance_K.argmin())
        if chance_K[least] >= self._threshold:
            return None
        names = " or ".join(each.name for each in self._objectives)
        rival = self._front[least].id
        return f"its chance to beat {rival} in {names} is {chance_K[least]:.2%}, below {self._threshold:.3g}"

    def _chances(self, objective: int, values: Mapping[int, float]) -> Floats:
        """The chance that a trial beats each of the front on one objective; 1 where it cannot be told."""
        chance_K, prior = np.ones(len(self._front)), self._priors[objective]
        for group in self._groups[objective] if prior.freedom else ():
            table = self._tables[objective].table(group.folds)
            easier = zip(group.folds, table.easier, strict=True)
            scores = [values[fold] - each for fold, each in easier if fold in values]
            if len(scores) >= FEWEST_FOLDS:
                chance_K[group.members_k] = chance_to_beat(
                    scores, group.means_k, folds=len(group.folds), complete=table.trials, prior=prior,
                    correlation=self._correlation,
                )  # fmt: skip
        return chance_K


def _grouped(front: Sequence[_Best], objective: int) -> list[_Group]:
    members: dict[tuple[int, ...], list[int]] = {}
    for index, best in enumerate(front):
        members.setdefault(best.folds_J[objective], []).append(index)
    return [
        _Group(
            folds=folds, members_k=np.array(found), means_k=np.array([front[each].means_J[objective] for each in found])
        )
        for folds, found in members.items()
    ]


def _joined(front: Sequence[_Best], new: _Best) -> list[_Best]:
    """The front with another trial: ``objectives.front`` of both, without looking at those that left it long ago."""
    if not front:
        return [new]
    mean_KJ, mean_J = np.array([best.means_J for best in front]), np.array(new.means_J)
    differs_K = (mean_KJ != mean_J).any(axis=1)
    if (differs_K & (mean_KJ >= mean_J).all(axis=1)).any():
        return list(front)
    stays_K = ~(differs_K & (mean_J >= mean_KJ).all(axis=1))
    return [*(best for best, stays in zip(front, stays_K, strict=True) if stays), new]


def _searched(trial: TrialResult) -> list[FoldResult]:
    """The folds that a search compares."""
    return [fold for fold in trial.folds if not fold.locked]
