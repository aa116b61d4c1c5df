"""Schedulers over folds: which trials go on after each finished fold."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from search.objectives import objectives_of
from search.racing import Racing
from search.simulation.asha_rule import GRACE_FOLDS, REDUCTION
from trainables.ledger import Ledger, SearchRecord
from trainables.results import TrialResult, summarise
from trainables.tune_trainable import FOLDS_DONE, REFERENCE, RUNNING_MEAN, TRIAL


class FoldAsha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA with folds as its unit of work: after 2, 4, ... folds the worse half is stopped.

    Folds come in a fixed order, so that running means are compared over the same folds. A reference policy is never
    stopped: every claim of the search is a comparison with it.

    Where the search limits the copy rate, a trial that exceeds it so far is compared with no other, so that feasible
    trials are not stopped on its account; it is stopped once the folds left could not bring it below the limit.

    Args:
        ledger: where a stopped trial is recorded.
        folds: folds of a whole trial.
        maximize: whether more of the metric is better.
        metric: the score compared, for ``earlier``.
        max_copy_rate: the search's limit; None: no limit.
        earlier: trials of earlier attempts of a resumed search; they count as if they had run in this one.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        folds: int,
        maximize: bool,
        metric: str,
        max_copy_rate: float | None,
        earlier: Iterable[TrialResult],
    ) -> None:
        super().__init__(
            time_attr=FOLDS_DONE,
            metric=RUNNING_MEAN,
            mode="max" if maximize else "min",
            max_t=folds,
            grace_period=min(GRACE_FOLDS, folds),
            reduction_factor=REDUCTION,
        )
        self._ledger = ledger
        self._max_copy_rate = max_copy_rate
        for trial in earlier:
            if trial.feasible(max_copy_rate):
                self._recall(trial, metric)

    def _recall(self, trial: TrialResult, metric: str) -> None:
        stand_in = SimpleNamespace(trial_id=f"earlier-{trial.id}")
        for done in range(1, len(trial.folds) + 1):
            mean = summarise(trial.folds[:done])[metric].mean
            if mean is not None:
                self._brackets[0].on_result(stand_in, done, self._metric_op * mean)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop the trial if it is in the worse half of those that got as far; record that it was."""
        action = self._decide(tune_controller, trial, result)
        if action != TrialScheduler.STOP or result.get(FOLDS_DONE, 0) >= self._max_t:
            return action
        if result.get(REFERENCE):
            return str(TrialScheduler.CONTINUE)
        self._ledger.end_trial(result[TRIAL], "pruned")
        return action

    def _decide(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        recorded = self._infeasible(result)
        if recorded is None:
            return str(super().on_trial_result(tune_controller, trial, result))
        rates = (fold.fidelity.get("copy_rate") for fold in recorded.folds)
        least = sum(rate for rate in rates if rate is not None) / self._max_t
        return str(TrialScheduler.STOP if least > self._max_copy_rate else TrialScheduler.CONTINUE)

    def _infeasible(self, result: dict[str, Any]) -> TrialResult | None:
        """The trial of a report, if it exceeds the limit so far."""
        if self._max_copy_rate is None or TRIAL not in result:
            return None
        recorded = self._ledger.trial(result[TRIAL])
        return None if recorded.feasible(self._max_copy_rate) else recorded

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Remember a trial for the comparison with later ones, unless it exceeds the limit."""
        if self._infeasible(result) is None:
            super().on_trial_complete(tune_controller, trial, result)
        else:
            self._trial_info.pop(trial.trial_id, None)


class FoldRacing(FIFOScheduler):  # type: ignore[misc]
    """Stops the trials that ``racing`` stops, and records that they were.

    The ledger is all that it goes by, so that trials of earlier attempts of a resumed search count like any other, and
    folds may come in any order.

    Args:
        ledger: where trials are read and a stopped one is recorded.
        racing: what decides.
    """

    def __init__(self, ledger: Ledger, racing: Racing) -> None:
        super().__init__()
        self._ledger = ledger
        self._racing = racing

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop the trial if it is unlikely to beat the best; one that has all its folds, or has failed, goes on."""
        if TRIAL not in result:
            return str(TrialScheduler.CONTINUE)
        trials = self._ledger.trials()
        recorded = next(each for each in trials if each.id == result[TRIAL])
        reason = self._racing.stops(recorded, trials)
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self._ledger.end_trial(recorded.id, "pruned", error=reason)
        return str(TrialScheduler.STOP)


def racing_of(record: SearchRecord) -> Racing:
    """The racing of a search: its objectives, its limit, and how alike the errors of two of its folds are."""
    # models of a single split that is repeated test the same images: correlated as much as those of two folds
    tested = max(record.folds // record.protocol.repeats, 2)
    return Racing(
        objectives=objectives_of(record),
        folds=record.folds,
        max_copy_rate=record.max_copy_rate,
        correlation=1 / tested,
    )


def needs_fold_order(name: str) -> bool:
    """Whether a scheduler compares running means, and so needs the folds of all trials in one order."""
    return name == "asha"


def build_scheduler(ledger: Ledger) -> TrialScheduler:
    """The scheduler that a search is recorded with: racing, asha, or fifo (every trial runs all its folds).

    Trials of earlier attempts count as if they had run in this one.
    """
    record = ledger.search()
    if record.scheduler == "fifo":
        return FIFOScheduler()
    if record.scheduler == "racing":
        return FoldRacing(ledger, racing_of(record))
    main = objectives_of(record)[0]
    return FoldAsha(
        ledger,
        folds=record.folds,
        maximize=main.maximize,
        metric=main.name,
        max_copy_rate=record.max_copy_rate,
        earlier=[trial for trial in ledger.trials() if trial.state in ("completed", "pruned")],
    )
