"""The one loop that trains every generator, from a checkpoint where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from trainables.errors import StopRequested
from trainables.generators.base import OnStep, Training

CHECKPOINT_SECONDS = 60.0


class Checkpoints(Protocol):
    """Where a training's states are kept while it goes on."""

    def latest(self, steps: int) -> Mapping[str, Tensor] | None:
        """The state that is furthest on the trajectory without being beyond ``steps``; None if there is none."""

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Keep a state in place of the last one."""


def advance(
    training: Training,
    steps: int,
    *,
    on_step: OnStep,
    checkpoints: Checkpoints | None = None,
    every: float = CHECKPOINT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train up to a position on the trajectory.

    Args:
        training: just begun.
        steps: the position, in steps.
        on_step: called after every step with (steps done, ``steps``).
        checkpoints: where to go on from, and where to save to.
        every: seconds between checkpoints; also written where ``on_step`` stops the training.
        clock: seconds from any origin.

    Raises:
        DivergedError: the training leads nowhere.
        StopRequested: passed on from ``on_step``.
    """
    state = checkpoints.latest(steps) if checkpoints is not None else None
    if state is not None:
        training.restore(state)
    saved_at, saved = clock(), training.done
    try:
        while training.done < steps:
            training.step()
            if checkpoints is not None and clock() - saved_at >= every:
                checkpoints.save(training.state())
                saved_at, saved = clock(), training.done
            on_step(training.done, steps)
    except StopRequested:
        if checkpoints is not None and training.done > saved:
            checkpoints.save(training.state())
        raise
