"""A calendar of virtual time: processes that say when they go on, and may be woken or interrupted before."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias

Steps: TypeAlias = Generator[float, None, None]
"""A process: it yields the time at which it goes on; infinity: when it is woken."""


@dataclass(slots=True)
class _Process:
    steps: Steps
    turn: int = 0


class Calendar:
    """Runs processes in virtual time; what happens at one time happens in the order in which it was arranged."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._processes: dict[int, _Process] = {}

    def add(self, number: int, steps: Steps) -> None:
        """Start a process at this time, under a number of its own."""
        self._processes[number] = _Process(steps=steps)
        self.wake(number, self.now)

    def call(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a time, in seconds."""
        heapq.heappush(self._entries, (when, next(self._order), action))

    def wake(self, number: int, when: float) -> None:
        """Let a process go on at ``when``, in place of the time that it had named."""
        process = self._processes[number]
        process.turn += 1
        turn = process.turn

        def go_on() -> None:
            if process.turn == turn:
                self._expect(number, next(process.steps, None))

        self.call(when, go_on)

    def interrupt(self, number: int, reason: Exception) -> None:
        """Raise ``reason`` in a process where it waits."""
        try:
            self._expect(number, self._processes[number].steps.throw(reason))
        except StopIteration:
            self._expect(number, None)

    def run(self) -> None:
        """Until nothing is arranged any more."""
        while self._entries:
            self.now, _, action = heapq.heappop(self._entries)
            action()

    def _expect(self, number: int, when: float | None) -> None:
        """Note when a process goes on; one that has ended (None) never does."""
        if when is None or when == float("inf"):
            self._processes[number].turn += 1
        else:
            self.wake(number, when)
