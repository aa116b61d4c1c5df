"""What is made of each trial of a search, made anew only where the trial has changed since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from search.changes import has_changed
from trainables.results import TrialResult

Made = TypeVar("Made")


class Remembered(Generic[Made]):
    """Calls a function of a trial where it has not been called for the trial as it is now."""

    def __init__(self, make: Callable[[TrialResult], Made]) -> None:
        self._make = make
        self._made: dict[str, tuple[TrialResult, Made]] = {}

    def __call__(self, trial: TrialResult) -> Made:
        """What the function makes of the trial."""
        found = self._made.get(trial.id)
        if found is None or (found[0] is not trial and has_changed(found[0], trial)):
            found = self._made[trial.id] = trial, self._make(trial)
        return found[1]
