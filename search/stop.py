"""Signals that ask a search to stop: noted, honoured where it is safe, and deadly the second time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    """Whether a signal has asked the search to stop: SIGINT (Ctrl-C) or SIGTERM (cluster schedulers).

    The first one ends the search in order, a later one ends the process at once, and the ledger is as safe then as
    after a kill. While trials run the first one is only noted, and ``on_note`` called: an exception raised wherever a
    signal happens to arrive may be swallowed there (a destructor, a callback from C) or leave Ray's locks taken. Before
    that it raises KeyboardInterrupt where it arrives.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, on_note: Callable[[], None] = lambda: None) -> None:
        self._on_note = on_note
        self._received: int | None = None

    @property
    def exit_code(self) -> int | None:
        """128 and the number of the signal received; None without one."""
        return None if self._received is None else 128 + self._received

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Listen to signals; the handlers are as they were before at the end."""
        before = {number: signal.getsignal(number) for number in self._NUMBERS}
        self._handle(lambda number: self._raise)
        try:
            yield
        finally:
            self._handle(lambda number: before[number])

    def only_note(self) -> None:
        """From now on the first signal is noted only. To be called after starting Ray, which sets handlers."""
        if self._received is None:
            self._handle(lambda number: self._note)

    def only_kill(self) -> None:
        """From now on a signal ends the process at once."""
        self._handle(lambda number: self._kill)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._on_note()
        self.only_kill()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._note(number, frame)
        raise KeyboardInterrupt

    def _kill(self, number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def _handle(self, handler: Callable[[signal.Signals], Any]) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._NUMBERS:
                signal.signal(number, handler(number))
