"""Keep MLflow up to date in a thread of its own, so that tracking never holds a search up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mlflow_tracking.connect import TrackingOutage
from mlflow_tracking.projector import Projector

_PATIENCE = 3.0
"""Seconds for a server that is away when the search ends."""


class LiveProjector:
    """Runs a projector's ``sync`` about once a second in the background. Only its thread writes with the projector.

    Args:
        projector: writes.
        on_message: told once when tracking fails and once when it has caught up; called in the thread.
        interval: seconds between looks at the ledger.
        retry_every: seconds between attempts while the server is away.
    """

    def __init__(
        self,
        projector: Projector,
        *,
        on_message: Callable[[str], None],
        interval: float = 1.0,
        retry_every: float = 5.0,
    ) -> None:
        self._projector = projector
        self._on_message = on_message
        self._interval = interval
        self._retry_every = retry_every
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._interrupted = False
        self._deadline = 0.0
        self._closed = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    @property
    def page(self) -> str | None:
        """The address of the page that lists the trials; None before anything was written."""
        return self._projector.page

    def start(self) -> None:
        """Begin to write in the background."""
        self._thread.start()

    def poke(self) -> None:
        """Look at the ledger now rather than within a second; returns at once."""
        self._wake.set()

    def stop(self, *, interrupted: bool, timeout: float = 15.0) -> bool:
        """Write what is left, end all runs, and stop.

        Args:
            interrupted: whether the search was left before its end.
            timeout: seconds after which the rest stays unwritten (3 if the server is away already); a later ``sync``
                from the ledger supplies it.

        Returns:
            Whether every run was brought to its end; pictures may still be missing.
        """
        self._interrupted = interrupted
        patience = min(timeout, _PATIENCE) if self._failing else timeout
        self._deadline = time.monotonic() + patience
        self._stopping.set()
        self._projector.leave_off()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(patience)
        return self._closed

    def _run(self) -> None:
        while not self._stopping.is_set():
            left = self._attempt(lambda: self._projector.sync(pictures=1))
            if left is None:
                self._wake.wait(self._retry_every)
            elif left == 0:
                self._wake.wait(self._interval)
            self._wake.clear()
        self._finish()

    def _finish(self) -> None:
        """End the runs, again and again until the time is over, then draw what pictures there is time for."""
        while not self._closed and time.monotonic() < self._deadline:
            self._closed = self._attempt(self._close) is not None
            if not self._closed:
                time.sleep(min(0.5, self._retry_every))
        left: int | None = 1
        while self._closed and left and time.monotonic() < self._deadline:
            left = self._attempt(lambda: self._projector.sync(pictures=1))

    def _close(self) -> int:
        self._projector.close(interrupted=self._interrupted)
        return 0

    def _attempt(self, work: Callable[[], int]) -> int | None:
        """Run one attempt; None if it failed. Whatever goes wrong here is told, and never reaches the search."""
        try:
            result = work()
        except TrackingOutage as error:
            self._tell(f"Tracking is interrupted ({error}); the search goes on and tracking catches up later.")
            return None
        except Exception as error:
            kind = type(error).__name__
            self._tell(f"Tracking failed ({kind}: {error}); the search goes on, its record is complete without it.")
            return None
        if self._failing:
            self._failing = False
            self._on_message("Tracking has caught up.")
        return result

    def _tell(self, message: str) -> None:
        if not self._failing:
            self._failing = True
            self._on_message(message)
