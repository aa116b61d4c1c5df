"""A search in virtual time, through the sampler, racing, fold order and lease code of a real one.

Each slot is a process that takes a trial, chooses a fold, and finds, computes or waits for one stage after the other.
Nothing but the costs of proposals, which are measured, depends on anything but the arguments.

What it leaves out: checkpoints (what a lost node was training begins anew), and a waiter's first look at a dead
holder's last heartbeat is at most a second later than it would be.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Generator, Mapping
from typing import TypeAlias

from search.simulation.calendar import Calendar, Steps
from search.simulation.course import Cluster, Doing, Event, Happening, Simulation, Span
from search.simulation.driver import Driver, Plan
from search.simulation.store import VirtualStore
from search.simulation.workload import Evaluation, PlannedStage
from trainables.fold_order import furthest_behind, next_fold
from trainables.leases import DEAD_AFTER
from trainables.results import FoldResult, StageRecord

POLL_SECONDS = 0.1
"""Between two looks at a stage that another computes, as in ``trainables.stages``."""

_Computing: TypeAlias = Generator[float, None, StageRecord]


class _NodeLost(Exception):  # noqa: N818 - an event, no error
    """What a slot is interrupted with when its node is lost."""


def simulate(plan: Plan, cluster: Cluster, *, seed: int) -> Simulation:
    """Run a search in virtual time.

    Args:
        plan: the search.
        cluster: what it runs on.
        seed: of the choice of stragglers and of random node losses.
    """
    running = _Simulator(plan, cluster, random.Random(f"{seed}/cluster"))  # noqa: S311 - no secret
    try:
        return running.run()
    finally:
        running.store.close()


class _Simulator:
    """The slots of a search, and what they did."""

    def __init__(self, plan: Plan, cluster: Cluster, rng: random.Random) -> None:
        self._plan = plan
        self._cluster = cluster
        self._rng = rng
        self._calendar = Calendar()
        self._driver = Driver(plan, clock=lambda: self._calendar.now, computed=self._compute_seconds)
        self._driver_free = 0.0
        self.store = VirtualStore(lambda: self._calendar.now)
        slow = set(rng.sample(range(cluster.slots), round(cluster.straggler_share * cluster.slots)))
        self._pace = [cluster.straggler_factor if slot in slow else 1.0 for slot in range(cluster.slots)]
        self._doing: list[tuple[Doing, float]] = [("idle", 0.0)] * cluster.slots
        self._idle: dict[int, None] = {}
        self._waiting: dict[tuple[str, str], dict[int, float]] = {}
        self._computing: dict[int, float] = {}
        self._computed: dict[str, float] = defaultdict(float)
        self._lost = 0.0
        self._events: list[Event] = []
        self._spans: list[Span] = []

    def run(self) -> Simulation:
        """All of it."""
        for slot in range(self._cluster.slots):
            self._calendar.add(slot, self._slot(slot))
        for when, node in self._cluster.losses:
            self._calendar.call(when, lambda node=node: self._lose(node))  # type: ignore[misc]
        if self._cluster.loss_every is not None:
            for node in range(len(self._cluster.nodes)):
                self._expect_loss(node, self._cluster.loss_every)
        self._calendar.run()
        for slot in range(self._cluster.slots):
            self._close(slot)
        return Simulation(
            trials=tuple(self._driver.trials),
            events=tuple(self._events),
            spans=tuple(self._spans),
            progress=tuple(self._driver.progress),
            computed=dict(self._computed),
            lost=self._lost,
            proposals=tuple(self._driver.proposals),
        )

    def _slot(self, slot: int) -> Steps:
        while True:
            trial: str | None = None
            try:
                trial = yield from self._take(slot)
                yield from self._run(slot, trial)
            except _NodeLost:
                if trial is not None:
                    self._log(slot, "lost", trial)
                    self._driver.give_back(trial)
                    self._wake_idle()
                self._do(slot, "down")
                yield self._calendar.now + self._cluster.repair_seconds

    def _take(self, slot: int) -> Generator[float, None, str]:
        """Ask the driver, which answers one slot after the other, until it has a trial."""
        while True:
            self._do(slot, "idle")
            if not self._driver.has_work:
                yield from self._rest(slot)
                continue
            if self._cluster.proposal_seconds:
                self._driver_free = max(self._driver_free, self._calendar.now) + self._cluster.proposal_seconds
                yield self._driver_free
            found = self._driver.next_trial()
            if found is not None:
                trial, is_new = found
                self._log(slot, "proposed" if is_new else "resumed", trial)
                return trial

    def _rest(self, slot: int) -> Steps:
        self._idle[slot] = None
        try:
            yield math.inf
        finally:
            self._idle.pop(slot, None)

    def _wake_idle(self) -> None:
        """One slot for each trial that waits for one; the others find nothing and rest again."""
        for slot in list(self._idle):
            self._calendar.wake(slot, self._calendar.now)

    def _run(self, slot: int, trial: str) -> Steps:
        """The folds of a trial, until it has ended."""
        self._do(slot, "busy")
        while True:
            left = self._driver.evaluations(trial)
            fold = min(left) if self._plan.folds_in_order or not self._plan.sharing else self._choose(left)
            began = self._calendar.now
            records = []
            for stage in left[fold].stages:
                records.append((yield from self._obtain(slot, trial, stage)))
            error = left[fold].error
            if error is not None:
                self._driver.fail(trial, error)
                self._log(slot, "failed", trial, error)
                return
            state = self._driver.record(
                trial,
                FoldResult(
                    fold=fold,
                    scores=left[fold].scores,
                    stages=tuple(records),
                    predictions=(),
                    counts={},
                    seconds=self._calendar.now - began,
                    peak_bytes=0,
                    fidelity=left[fold].fidelity,
                ),
            )
            self._log(slot, "fold", trial, str(fold))
            if state == "completed" or state == "pruned":
                self._log(slot, state, trial)
                return

    def _choose(self, left: Mapping[int, Evaluation]) -> int:
        return next_fold(
            list(left), lambda fold: furthest_behind([*map(self.store.status, left[fold].before_the_classifier)])
        )

    def _obtain(self, slot: int, trial: str, stage: PlannedStage) -> _Computing:
        """As ``StageStore.obtain``: find a stage, or compute it, or wait until another has."""
        if not self._plan.sharing:
            return (yield from self._compute(slot, trial, stage))
        lease, began, patience = self.store.lease(stage), self._calendar.now, DEAD_AFTER
        while (seconds := self.store.seconds(stage)) is None:
            if self.store.try_begin(stage, lease):
                return (yield from self._compute(slot, trial, stage))
            is_computed = self.store.is_computed(stage)
            self._do(slot, "waiting")
            others = self._waiting.setdefault((stage.name, stage.key), {})
            others[slot] = began
            try:
                yield math.inf if is_computed else _look(began, self._calendar.now + patience)
            finally:
                del others[slot]
            patience = DEAD_AFTER if is_computed else POLL_SECONDS
        self._do(slot, "busy")
        yield self._calendar.now + self._cluster.reuse_seconds
        self._log(slot, "reused", trial, stage.name)
        return StageRecord(name=stage.name, key=stage.key, seconds=seconds, reused=True)

    def _compute(self, slot: int, trial: str, stage: PlannedStage) -> _Computing:
        self._do(slot, "busy")
        began = self._computing[slot] = self._calendar.now
        seconds = stage.seconds * self._pace[slot]
        try:
            yield began + seconds
        except _NodeLost:
            self._lost += self._calendar.now - began
            if self._plan.sharing:
                self.store.die(stage)
            raise
        finally:
            del self._computing[slot]
            self._computed[stage.name] += self._calendar.now - began
            self._wake_waiting(stage)
        if self._plan.sharing:
            self.store.finish(stage, seconds=seconds)
        self._log(slot, "computed", trial, stage.name)
        return StageRecord(name=stage.name, key=stage.key, seconds=seconds, reused=False)

    def _wake_waiting(self, stage: PlannedStage) -> None:
        """Those that wait for a stage look once more, each when it would next have looked."""
        for slot, began in self._waiting.get((stage.name, stage.key), {}).items():
            self._calendar.wake(slot, _look(began, self._calendar.now))

    def _compute_seconds(self) -> float:
        """Slot-seconds of computing so far, with that of stages that are being computed."""
        return sum(self._computed.values()) + sum(self._calendar.now - began for began in self._computing.values())

    def _expect_loss(self, node: int, mean: float) -> None:
        def lose() -> None:
            if len(self._idle) < self._cluster.slots:
                self._lose(node)
                self._expect_loss(node, mean)

        self._calendar.call(self._calendar.now + self._cluster.repair_seconds + self._rng.expovariate(1 / mean), lose)

    def _lose(self, node: int) -> None:
        """Interrupt all slots of a node that is there."""
        for slot in self._cluster.nodes[node]:
            if self._doing[slot][0] != "down":
                self._calendar.interrupt(slot, _NodeLost())

    def _do(self, slot: int, doing: Doing) -> None:
        if self._doing[slot][0] != doing:
            self._close(slot)
            self._doing[slot] = doing, self._calendar.now

    def _close(self, slot: int) -> None:
        doing, since = self._doing[slot]
        if self._calendar.now > since:
            self._spans.append(Span(slot=slot, start=since, end=self._calendar.now, doing=doing))

    def _log(self, slot: int, what: Happening, trial: str, detail: str = "") -> None:
        self._events.append(Event(time=self._calendar.now, slot=slot, what=what, trial=trial, detail=detail))


def _look(began: float, when: float) -> float:
    """The first time from ``when`` on at which one looks that has looked at ``began`` and ever so often since."""
    looks = math.ceil((when - began) / POLL_SECONDS - 1e-9)
    return max(when, began + looks * POLL_SECONDS)
