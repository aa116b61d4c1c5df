"""Signals that ask a search to stop: noted, honoured where it is safe, and deadly the second time."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    """Whether a signal has asked the search to stop: SIGINT (Ctrl-C) or SIGTERM (cluster schedulers).

    The first one ends the search in order, a later one ends the process at once, and the ledger is as safe then as
    after a kill. While trials run the first one is only noted: an exception raised wherever a signal happens to arrive
    may be swallowed there (a destructor, a callback from C) or leave Ray's locks taken. Before that it raises
    KeyboardInterrupt where it arrives.

    Who stops a job may send SIGTERM to all of its processes. Ray's then end at once, and the main thread may be caught
    in Ray for a minute, waiting for them, without learning of the signal. So a thread of its own learns of it, and
    ends the process if the search is not left in time.

    Args:
        on_note: called once, in that thread, when a signal is noted while trials run.
        on_stuck: called in that thread if the search is not left in time, to leave its record in order.
        patience: seconds that leaving may take.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(
        self,
        *,
        on_note: Callable[[], None] = lambda: None,
        on_stuck: Callable[[], None] = lambda: None,
        patience: float = float("inf"),
    ) -> None:
        self._on_note = on_note
        self._on_stuck = on_stuck
        self._patience = patience
        self._received: int | None = None
        self._notes = False
        self._left = threading.Event()

    @property
    def exit_code(self) -> int | None:
        """128 and the number of the signal received; None without one."""
        return None if self._received is None else 128 + self._received

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Listen to signals; the handlers are as they were before at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in self._NUMBERS}
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        watcher = threading.Thread(target=self._watch, args=(reading,), name="signals", daemon=True)
        watcher.start()
        fd_before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._handle(lambda number: self._raise)
        try:
            yield
        finally:
            self._left.set()
            self._handle(lambda number: before[number])
            signal.set_wakeup_fd(fd_before)
            writing.close()
            watcher.join()
            reading.close()

    def only_note(self) -> None:
        """From now on the first signal is noted only. To be called after starting Ray, which sets handlers."""
        if self._received is None:
            self._notes = True
            self._handle(lambda number: self._note)

    def only_kill(self) -> None:
        """The search is left: from now on a signal ends the process at once."""
        self._left.set()
        self._handle(lambda number: self._kill)

    def _watch(self, signals: socket.socket) -> None:
        """Learn of signals as they arrive, whatever the main thread is doing."""
        while numbers := signals.recv(16):
            stopping = [number for number in numbers if number in self._NUMBERS]
            if not stopping or not self._notes or self._left.is_set():
                continue
            self._received = self._received or stopping[0]
            self._on_note()
            patience = None if self._patience == float("inf") else self._patience
            if not self._left.wait(patience):
                self._on_stuck()
                os._exit(128 + self._received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = self._received or number
        self._handle(lambda number: self._kill)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._note(number, frame)
        raise KeyboardInterrupt

    def _kill(self, number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def _handle(self, handler: Callable[[signal.Signals], Any]) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._NUMBERS:
                signal.signal(number, handler(number))
