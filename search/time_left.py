"""How long a search still takes, from how fast its folds have been finished lately."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from trainables.results import TrialResult

_LEAST = 4
"""Folds of this sitting without which nothing can be said."""


class TimeLeft:
    """Watches folds being finished.

    The pace is that of the later half of the folds that this sitting has finished: the first trials are references,
    which are cheap, and the first to train their generators, which is dear. What is left is counted in folds, as many
    for each trial as ended ones had, those that were stopped early included.

    Args:
        wanted: how many trials the search shall have.
        trials: those that there are at the beginning.
        now: seconds from any origin, at the beginning.
    """

    def __init__(self, *, wanted: int, trials: Sequence[TrialResult], now: float) -> None:
        self._wanted = wanted
        self._before = sum(len(trial.folds) for trial in trials)
        self._times = [now]

    def seconds(self, trials: Sequence[TrialResult], now: float) -> float | None:
        """The time left; None while it cannot be told. To be asked about once a second."""
        finished = sum(len(trial.folds) for trial in trials)
        self._times += [now] * (finished - self._before - len(self._times) + 1)
        here = len(self._times) - 1
        ended = [len(trial.folds) for trial in trials if trial.state != "unfinished"]
        if here < _LEAST or not ended:
            return None
        counted = max(_LEAST, here // 2)
        pace = (now - self._times[-1 - counted]) / counted
        going_on = [len(trial.folds) for trial in trials if trial.state == "unfinished"]
        each = statistics.fmean(ended)
        left = sum(max(0.0, each - folds) for folds in going_on) + each * max(0, self._wanted - len(trials))
        return pace * left
