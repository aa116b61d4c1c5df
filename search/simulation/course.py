"""What a simulated search is given and what it leaves: machines, trials, and what each slot did when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from spaces.errors import InputError
from spaces.space import Assignment
from trainables.results import TrialResult

Doing: TypeAlias = Literal["busy", "waiting", "idle", "down"]
"""What a slot does: compute or read, wait for another's lease, have nothing to do, or not exist for the time being."""
Happening: TypeAlias = Literal[
    "proposed", "resumed", "computed", "reused", "fold", "completed", "pruned", "failed", "lost"
]


class SimulationError(InputError):
    """A simulation was asked for that cannot be run."""


class Proposes(Protocol):
    """The part of ``search.proposers.Proposer`` that a simulation needs."""

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""


class Stops(Protocol):
    """The part of ``search.racing.Racing`` that a simulation needs."""

    def stops(self, trial: TrialResult, trials: Sequence[TrialResult]) -> str | None:
        """Why a trial that has just finished a fold goes no further, in words; None: it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The machines of a simulated search.

    Args:
        slots: trials at once.
        slots_per_node: slots that are lost together; None: all of them are one node.
        straggler_share: share of the slots, 0 to 1, that compute more slowly.
        straggler_factor: how many times as long they take.
        losses: (seconds, node) when a node is lost.
        loss_every: mean seconds between further losses of one node, exponentially distributed; None: none.
        repair_seconds: until a lost node is back.
        proposal_seconds: what the one driver spends on each trial that it hands out, one after the other.
        reuse_seconds: what reading a finished stage takes.
    """

    slots: int
    slots_per_node: int | None = None
    straggler_share: float = 0.0
    straggler_factor: float = 1.0
    losses: tuple[tuple[float, int], ...] = ()
    loss_every: float | None = None
    repair_seconds: float = 300.0
    proposal_seconds: float = 0.0
    reuse_seconds: float = 0.01

    def __post_init__(self) -> None:
        if self.slots < 1 or (self.slots_per_node or 1) < 1:
            raise SimulationError(f"a cluster of {self.slots} slots computes nothing; give at least one per node.")
        if not 0 <= self.straggler_share <= 1 or self.straggler_factor < 1:
            raise SimulationError(
                f"stragglers are {self.straggler_share:g} of the slots and take {self.straggler_factor:g} times as "
                f"long; give a share from 0 to 1 and a factor of at least 1."
            )

    @property
    def nodes(self) -> tuple[range, ...]:
        """The slots of each node."""
        each = self.slots_per_node or self.slots
        return tuple(range(start, min(start + each, self.slots)) for start in range(0, self.slots, each))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a trial on a slot; ``detail`` names the stage or the fold."""

    time: float
    slot: int
    what: Happening
    trial: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a slot did from ``start`` to ``end``."""

    slot: int
    start: float
    end: float
    doing: Doing


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The best completed trial after so much computation; ``seconds`` is the virtual time."""

    seconds: float
    compute: float
    best: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A simulated search.

    Args:
        trials: as the ledger would have them, without predictions; times are virtual.
        events: in their order.
        spans: of all slots, each slot's in their order.
        progress: whenever another trial became the best one.
        computed: slot-seconds of computing by stage name, lost work included.
        lost: slot-seconds of them that node losses made worthless.
        proposals: seconds of this machine's processor that each proposal took (not virtual, not reproducible).
    """

    trials: tuple[TrialResult, ...]
    events: tuple[Event, ...]
    spans: tuple[Span, ...]
    progress: tuple[Progress, ...]
    computed: Mapping[str, float]
    lost: float
    proposals: tuple[float, ...]

    @property
    def compute_seconds(self) -> float:
        """Slot-seconds of all that was computed."""
        return sum(self.computed.values())

    @property
    def wall_seconds(self) -> float:
        """When the last trial ended."""
        return max((trial.ended or 0.0 for trial in self.trials), default=0.0)

    @property
    def waited(self) -> float:
        """Slot-seconds spent waiting for another's lease."""
        return self.spent("waiting")

    @property
    def utilisation(self) -> float:
        """Busy slot-seconds over slot-seconds, between the first and the last start of a trial, nodes that are down
        left out; 1 where all trials start at once.
        """
        start, end = self.starts
        busy, down = (self.spent(doing, start, end) for doing in ("busy", "down"))
        slots = len({span.slot for span in self.spans})
        there = slots * (end - start) - down
        return busy / there if there > 0 else 1.0

    @property
    def starts(self) -> tuple[float, float]:
        """When the first and the last trial started."""
        times = [event.time for event in self.events if event.what == "proposed"]
        return (min(times), max(times)) if times else (0.0, 0.0)

    def spent(self, doing: Doing, start: float = 0.0, end: float = float("inf")) -> float:
        """Slot-seconds of one kind between two times."""
        spans = (span for span in self.spans if span.doing == doing)
        return sum(max(0.0, min(span.end, end) - max(span.start, start)) for span in spans)
