"""Which of a search's trials have changed, so that nothing goes through thousands of them again and again."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.results import TrialResult


class Changes:
    """Of a list to which trials are added at its end alone, those that are not as they were at the last call."""

    def __init__(self) -> None:
        self._seen, self._last = 0, ""
        self._running: dict[int, TrialResult] = {}

    def since(self, trials: Sequence[TrialResult]) -> list[tuple[int, TrialResult]]:
        """The places and trials that are new, have another fold, or have ended; all of another list."""
        if not self.goes_on(trials):
            self._seen, self._running = 0, {}
        changed = [
            (place, trials[place])
            for place, before in self._running.items()
            if trials[place] is not before and has_changed(before, trials[place])
        ]
        changed += enumerate(trials[self._seen :], self._seen)
        for place, trial in changed:
            if trial.state == "unfinished":
                self._running[place] = trial
            else:
                self._running.pop(place, None)
        if trials:
            self._seen, self._last = len(trials), trials[-1].id
        return changed

    def goes_on(self, trials: Sequence[TrialResult]) -> bool:
        """Whether these are the trials of the last call, and maybe more behind them."""
        return self._seen <= len(trials) and (not self._seen or trials[self._seen - 1].id == self._last)


def has_changed(before: TrialResult, now: TrialResult) -> bool:
    """Whether a trial has gone on: one that has ended never does, and no fold is recorded twice."""
    return before.state == "unfinished" and (now.state != "unfinished" or len(before.folds) != len(now.folds))
