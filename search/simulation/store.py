"""A stage store without stages: what is finished stands in memory, who computes what in real lease files.

The leases are those of ``trainables.leases`` under a virtual clock. A holder's heartbeat is written only when somebody
is about to look at it, and a waiter looks only when something can have changed: what both would see is the same as if
the one beat every second and the other looked ten times a second.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from search.simulation.workload import PlannedStage
from trainables.fold_order import StageStatus
from trainables.leases import BEAT_EVERY, Lease

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


@dataclass(slots=True)
class _Holding:
    """A lease that is held, since when, and how often its holder's heart has been seen to beat."""

    lease: Lease
    since: float
    beats: int = 0
    alive: bool = True


class VirtualStore:
    """Finished stages and leases, shared by all slots of a simulated search.

    Args:
        clock: the virtual time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._finished: dict[str, float] = {}
        self._holdings: dict[str, _Holding] = {}
        parent = _MEMORY if _MEMORY.is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="virtual-leases-", dir=parent))

    def close(self) -> None:
        """Remove the lease files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def seconds(self, stage: PlannedStage) -> float | None:
        """What computing a finished stage cost; None while it is not finished."""
        return self._finished.get(_name(stage))

    def status(self, stage: PlannedStage) -> StageStatus:
        """How far a stage is, as ``StageStore.status`` says it: a holder that died elsewhere still looks busy."""
        if _name(stage) in self._finished:
            return "finished"
        return "busy" if self.lease(stage).is_held() else "free"

    def lease(self, stage: PlannedStage) -> Lease:
        """One attempt to hold a stage's lease."""
        return Lease(self._folder / _name(stage), clock=self._clock)

    def try_begin(self, stage: PlannedStage, lease: Lease) -> bool:
        """Take the lease of a stage if it is free or its holder is seen to be dead."""
        self._write_beat(stage)
        if not lease.try_acquire():
            return False
        self._holdings[_name(stage)] = _Holding(lease=lease, since=self._clock())
        return True

    def is_computed(self, stage: PlannedStage) -> bool:
        """Whether a live holder is at it."""
        holding = self._holdings.get(_name(stage))
        return holding is not None and holding.alive

    def finish(self, stage: PlannedStage, *, seconds: float) -> None:
        """Keep what its holder has computed, and free the lease."""
        self._finished[_name(stage)] = seconds
        holding = self._holdings.pop(_name(stage), None)
        if holding is not None:
            holding.lease.release()

    def die(self, stage: PlannedStage) -> None:
        """Its holder is gone, as whose machine is lost: the heart has beaten for the last time."""
        self._write_beat(stage)
        self._holdings[_name(stage)].alive = False

    def _write_beat(self, stage: PlannedStage) -> None:
        holding = self._holdings.get(_name(stage))
        if holding is None or not holding.alive:
            return
        beats = int((self._clock() - holding.since) / BEAT_EVERY)
        if beats > holding.beats:
            holding.beats = beats
            holding.lease.beat(beats)


def _name(stage: PlannedStage) -> str:
    return f"{stage.name}-{stage.key}"
