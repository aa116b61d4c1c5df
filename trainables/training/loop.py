"""The one loop that trains every generator and classifier, from a checkpoint where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from torch import Tensor

from trainables.errors import StopRequested

CHECKPOINT_SECONDS = 60.0

OnStep: TypeAlias = Callable[[int, int], None]
"""Called with (steps done, steps in all); may raise StopRequested. Cheap enough to call at every step."""


class Trajectory(Protocol):
    """A training in progress, of a generator in its own steps or of a classifier in epochs."""

    @property
    def done(self) -> int:
        """Steps done."""

    def step(self) -> None:
        """One more step; ``done`` stays where it is if the training has ended by itself. Raises: DivergedError."""

    def state(self) -> dict[str, Tensor]:
        """Everything that ``restore`` needs to go on; ``done`` among it, a step that has begun counted."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where ``state`` was taken."""


class Checkpoints(Protocol):
    """Where a training's states are kept while it goes on."""

    def latest(self, steps: int) -> Mapping[str, Tensor] | None:
        """The state that is furthest on the trajectory without being beyond ``steps``; None if there is none."""

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Keep a state in place of the last one."""


def advance(
    training: Trajectory,
    steps: int,
    *,
    on_step: OnStep,
    checkpoints: Checkpoints | None = None,
    every: float = CHECKPOINT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train up to a position on the trajectory, or to where the training ends by itself.

    Args:
        training: just begun.
        steps: the position, in steps.
        on_step: called after every step with (steps done, ``steps``).
        checkpoints: where to go on from, and where to save to.
        every: seconds between checkpoints; one is also written where the training is stopped.
        clock: seconds from any origin.

    Raises:
        DivergedError: the training leads nowhere.
        StopRequested: passed on from ``on_step``, or from within a step.
    """
    state = checkpoints.latest(steps) if checkpoints is not None else None
    if state is not None:
        training.restore(state)
    saved_at = clock()
    try:
        while training.done < steps:
            before = training.done
            training.step()
            if training.done == before:
                return
            if checkpoints is not None and clock() - saved_at >= every:
                checkpoints.save(training.state())
                saved_at = clock()
            on_step(training.done, steps)
    except StopRequested:
        if checkpoints is not None:
            checkpoints.save(training.state())
        raise
