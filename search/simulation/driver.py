"""The driver of a simulated search: it hands out trials and takes their folds, as searcher, ledger and scheduler do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from search.objectives import Objective, trial_value
from search.simulation.course import Progress, Proposes, Stops
from search.simulation.workload import Evaluation, Workload
from spaces.parameter import Value
from trainables.results import FoldResult, TrialResult, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A search to simulate.

    Args:
        workload: what trials cost and score.
        proposer: where configurations come from.
        objectives: the first one says which trial is the best.
        wanted: how many trials, reference policies included.
        references: proposed first.
        stopper: which trials are stopped early; None: none.
        sharing: whether trials find each other's stages.
        folds_in_order: whether the scheduler counts on folds in the order of their numbers.
        max_copy_rate: above which a trial cannot be the best one; None: no limit.
        compute_limit: slot-seconds after which no trial is proposed any more.
        time_limit: virtual seconds after which no trial is proposed any more.
    """

    workload: Workload
    proposer: Proposes
    objectives: Sequence[Objective]
    wanted: int
    references: Mapping[str, Mapping[str, Value]] = field(default_factory=lambda: MappingProxyType({}))
    stopper: Stops | None = None
    sharing: bool = True
    folds_in_order: bool = False
    max_copy_rate: float | None = None
    compute_limit: float = math.inf
    time_limit: float = math.inf


class Driver:
    """Trials as the ledger has them, and who may go on.

    Args:
        plan: the search.
        clock: the virtual time in seconds.
        computed: slot-seconds of computing so far.
    """

    def __init__(self, plan: Plan, *, clock: Callable[[], float], computed: Callable[[], float]) -> None:
        self._plan = plan
        self._clock = clock
        self._computed = computed
        self._numbers: dict[str, int] = {}
        self._evaluations: dict[str, tuple[Evaluation, ...]] = {}
        self._returned: list[str] = []
        self._references = list(plan.references.items())
        self._exhausted = False
        self.trials: list[TrialResult] = []
        self.progress: list[Progress] = []
        self.proposals: list[float] = []

    @property
    def has_work(self) -> bool:
        """Whether a slot that asks now can expect a trial."""
        return bool(self._returned) or self._may_propose

    @property
    def _may_propose(self) -> bool:
        plan = self._plan
        return (
            not self._exhausted
            and len(self.trials) < plan.wanted
            and self._clock() < plan.time_limit
            and (math.isinf(plan.compute_limit) or self._computed() < plan.compute_limit)
        )

    def next_trial(self) -> tuple[str, bool] | None:
        """A trial to run and whether it is new; first those that a node loss interrupted. None: there is none."""
        if self._returned:
            return self._returned.pop(0), False
        if not self._may_propose:
            return None
        if self._references:
            name, config = self._references.pop(0)
            return self._add(config, name), True
        start = time.process_time()
        config_or_none = self._plan.proposer.propose(len(self.trials), self.trials)
        self.proposals.append(time.process_time() - start)
        self._exhausted = config_or_none is None
        return None if config_or_none is None else (self._add(config_or_none, None), True)

    def give_back(self, trial_id: str) -> None:
        """A trial whose slot was lost: the next slot that asks goes on with it."""
        self._returned.append(trial_id)

    def evaluations(self, trial_id: str) -> Mapping[int, Evaluation]:
        """What the trial has still to compute, by fold."""
        done = {fold.fold for fold in self.trial(trial_id).folds}
        return {fold: each for fold, each in enumerate(self._evaluations[trial_id]) if fold not in done}

    def trial(self, trial_id: str) -> TrialResult:
        """One trial as it is now."""
        return self.trials[self._numbers[trial_id]]

    def fail(self, trial_id: str, error: str) -> None:
        """Record that a trial failed."""
        self._end(trial_id, "failed", error)

    def record(self, trial_id: str, result: FoldResult) -> TrialState:
        """Record a finished fold and decide how the trial goes on: "unfinished" means that it does."""
        trial = self.trial(trial_id)
        folds = sorted((*trial.folds, result), key=lambda each: each.fold)
        self.trials[self._numbers[trial_id]] = trial = replace(trial, folds=tuple(folds))
        if len(folds) == self._plan.workload.folds:
            self._end(trial_id, "completed")
            self._compare(self.trial(trial_id))
        elif self._plan.stopper is not None and self._plan.stopper.stops(trial, self.trials) is not None:
            self._end(trial_id, "pruned")
        return self.trial(trial_id).state

    def _add(self, config: Mapping[str, Value], reference: str | None) -> str:
        trial = TrialResult(
            id=f"t{len(self.trials):04d}",
            config=dict(config),
            reference=reference,
            state="unfinished",
            folds=(),
            error=None,
            created=self._clock(),
            ended=None,
        )
        workload = self._plan.workload
        self._evaluations[trial.id] = tuple(workload.evaluation(config, fold) for fold in range(workload.folds))
        self._numbers[trial.id] = len(self.trials)
        self.trials.append(trial)
        return trial.id

    def _end(self, trial_id: str, state: TrialState, error: str | None = None) -> None:
        ended = replace(self.trial(trial_id), state=state, error=error, ended=self._clock())
        self.trials[self._numbers[trial_id]] = ended
        del self._evaluations[trial_id]

    def _compare(self, trial: TrialResult) -> None:
        """Remember a completed trial that is better than all before."""
        objective = self._plan.objectives[0]
        value = trial_value(trial, objective)
        if value is None or not trial.feasible(self._plan.max_copy_rate):
            return
        best = self.progress[-1].value if self.progress else None
        if best is None or (value > best if objective.maximize else value < best):
            found = Progress(seconds=self._clock(), compute=self._computed(), best=trial.id, value=value)
            self.progress.append(found)
