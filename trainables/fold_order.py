"""Which of a trial's folds comes next: first those that need nobody's work but the trial's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

StageStatus: TypeAlias = Literal["finished", "busy", "free"]
"""How far a stage is: there, being computed, or neither."""
_READY: tuple[StageStatus, ...] = ("finished", "free", "busy")


def next_fold(remaining: Sequence[int], status: Callable[[int], StageStatus]) -> int:
    """Choose a fold whose generator is finished, else one that nobody is training, else the first.

    Fold order is a preference: what a trial computes does not depend on it, only how long it waits for others.

    Args:
        remaining: numbers of the folds that the trial has not computed, at least one.
        status: how far the generator of a fold is.

    Returns:
        One of ``remaining``; of equally good ones that with the lowest number.
    """
    return min(remaining, key=lambda fold: (_READY.index(status(fold)), fold))


def furthest_behind(statuses: Sequence[StageStatus]) -> StageStatus:
    """How far a fold is whose stages are so far: somebody is busy with one, all are finished, or neither."""
    if "busy" in statuses:
        return "busy"
    return "free" if "free" in statuses else "finished"
