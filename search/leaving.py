"""Leaving a search before its end, in order: trials save what they are training, and only then their processes end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search.settings import EXIT_STORAGE_FULL
from trainables.ledger import Ledger

PATIENCE = 15.0
"""Seconds that trials have to save what they are training. Schedulers kill half a minute after they ask."""


class Left(BaseException):
    """Raised between two steps of Ray Tune to leave it; no exception that Tune would catch, or take for a trial's."""


class Leaving:
    """Why to leave, since when, and when at last: once no trial runs, or their time is over.

    Args:
        ledger: of the search, whose trials are asked to stop.
        say: tells the user.
        time_budget: seconds from now on after which to leave; None: none.
        clock: seconds from any origin.

    ``reason`` is empty, or says why to leave; ``exit_code`` is that of what went wrong, None where nothing did.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        say: Callable[[str], None],
        time_budget: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self.say = say
        self._clock = clock
        self._over = None if time_budget is None else clock() + time_budget
        self._since: float | None = None
        self.reason = ""
        self.exit_code: int | None = None
        ledger.let_trials_run()

    @property
    def wanted(self) -> bool:
        """Whether there is reason to leave."""
        return bool(self.reason)

    def because(self, reason: str, *, exit_code: int | None = None) -> None:
        """Leave, for that reason; only the first one is said. Only notes it: safe in a signal handler."""
        self.reason = self.reason or reason
        self.exit_code = self.exit_code or exit_code

    def because_full(self, storage: Path) -> None:
        """Leave, as the storage is full."""
        free = shutil.disk_usage(storage).free
        reason = f"The storage {storage} is full ({free / 2**20:,.0f} MiB are free)"
        self.because(reason, exit_code=EXIT_STORAGE_FULL)

    def step(self, running: int) -> None:
        """Ask the trials to stop where there is reason to leave.

        Args:
            running: how many trials run.

        Raises: Left, once none runs, or they were asked long enough ago.
        """
        if self._over is not None and self._clock() >= self._over:
            self.because("The time budget is spent")
        if not self.wanted:
            return
        if self._since is None:
            self._since = self._clock()
            with suppress(OSError):
                self._ledger.ask_to_stop()
            trials = "1 running trial is" if running == 1 else f"{running} running trials are"
            self.say(f"{self.reason}; {trials} told to save what is being trained, and to stop.")
        if not running or self._clock() - self._since >= PATIENCE:
            raise Left
