"""Worker processes with a time and a memory limit: whatever a request does to its worker, the program goes on.

Ready-made pools do not do. ``concurrent.futures`` and ``loky`` give up all requests when one worker dies and have no
time limit. ``pebble`` has one, but a worker that dies soon after it was given a request breaks its pool too
("All workers expired": 47 of 60 requests were lost where every third one killed its worker), and its workers import
the main program again, with all of PyTorch where that does.

Here every worker has a connection of its own, so that a death has one request to blame. Workers are started from
nothing but this package. Requests and answers are JSON and raw bytes; nothing that a worker says is unpickled.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from trainables.errors import DataError

Plain: TypeAlias = Mapping[str, Any]
"""What JSON can hold."""

MB = 2**20
WAITING = 12.0
"""A request may take so many times its processor time by the clock: a busy machine or a slow disk is no fault of it."""
GRACE_SECONDS = 5.0
"""A worker ends itself when its time is over; one that does not is killed so much later."""
START_SECONDS = 120.0
"""What a worker may take to import what it needs, from a slow disk."""
IN_HAND = 3
"""Requests that a worker has at most, the one it works on among them: it need not wait for this process to wake up."""
DEATH_SECONDS = 2.0
"""How long after the end of its connection the end of a process is waited for."""

_START = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from trainables.data.sandbox_worker import serve
serve(int(sys.argv[2]), sys.argv[3])
"""
# One thread: many small files are decoded at once, and every thread's stack counts as memory.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing to do.

    Args:
        content: what the function is called with.
        seconds: how much processor time it may take; by the clock, ``WAITING`` times as much.
        memory: how many bytes the worker may hold beside what it had before.
    """

    content: Plain
    seconds: float
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the function returned: plain data, and bytes that go with it."""

    content: Plain
    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that was not answered.

    Args:
        kind: "time" (of the processor), "wait" (by the clock) or "memory" where a limit was met, "crash" where the
            worker died, "error" where the function raised something else.
        detail: the limit, the signal, or the error, in words.
    """

    kind: Literal["time", "wait", "memory", "crash", "error"]
    detail: str


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    jobs: deque[_Job] = field(default_factory=deque)
    is_ready: bool = False
    deadline: float = 0.0

    def set_deadline(self) -> None:
        """From now on the time of its first request counts, or that of its start."""
        seconds = (
            WAITING * self.jobs[0].request.seconds + GRACE_SECONDS if self.is_ready and self.jobs else START_SECONDS
        )
        self.deadline = time.monotonic() + seconds


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    position: int
    request: Request
    failures: list[Failure] = field(default_factory=list)


class Sandbox:
    """Worker processes that call one function; to be closed, or used with ``with``.

    Workers ignore Ctrl-C, which is this process's business, and end when this process ends, however that happens.
    """

    def __init__(self, factory: str, *, workers: int, tries: int = 2) -> None:
        """Start nothing yet.

        Args:
            factory: "package.module:name" of a callable without arguments, called once in each worker: it imports
                what is needed and returns the function, from a request's content to (plain data, blobs).
            workers: how many processes at most; one is started when it is needed.
            tries: how often a request is tried that was not answered by the clock or killed its worker. Two, where
                an innocent one must not suffer from a machine that was suspended or out of memory for a moment.
        """
        self._factory = factory
        self._most = max(1, workers)
        self._tries = tries
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the workers; they have nothing to save."""
        for worker in self._workers:
            _end(worker, patience=0)
        self._workers.clear()

    def map(self, requests: Iterable[Request], *, ahead: int) -> Iterator[Answer | Failure]:
        """Answer requests in their order.

        Args:
            requests: what to do.
            ahead: at most so many answers are in memory.

        Raises:
            DataError: the workers cannot be started, with their reason.
        """
        coming = enumerate(requests)
        jobs: deque[_Job] = deque()
        done: dict[int, Answer | Failure] = {}
        asked = given = 0
        while True:
            while asked - given < ahead and (following := next(coming, None)) is not None:
                jobs.append(_Job(position=following[0], request=following[1]))
                asked += 1
            if asked == given:
                return
            self._give_out(jobs)
            for job, outcome in self._collect(jobs):
                if isinstance(outcome, Answer) or not self._again(job, outcome):
                    done[job.position] = outcome
                else:
                    jobs.appendleft(job)
            while given in done:
                yield done.pop(given)
                given += 1

    def _again(self, job: _Job, failure: Failure) -> bool:
        """Whether a request that failed is to be tried again; the other kinds would come again."""
        job.failures.append(failure)
        return failure.kind in ("wait", "crash") and len(job.failures) < self._tries

    def _give_out(self, jobs: deque[_Job]) -> None:
        """Give workers something to do, the idle ones first; start workers while all of them are busy."""
        while jobs:
            worker = min(self._workers, key=lambda each: len(each.jobs), default=None)
            if (worker is None or worker.jobs) and len(self._workers) < self._most:
                worker = self._started()
            if worker is None or len(worker.jobs) == IN_HAND:
                return
            job = jobs.popleft()
            worker.jobs.append(job)
            if len(worker.jobs) == 1:
                worker.set_deadline()
            request = job.request
            order = {
                "content": request.content,
                "processor": request.seconds,
                "clock": WAITING * request.seconds,
                "memory": request.memory,
            }
            # a worker that is found dead here is reported, with what it was doing, when its answer is waited for
            with suppress(OSError):
                worker.connection.send_bytes(json.dumps(order).encode())

    def _started(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - this Python, with our own words
                [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs.fileno()), self._factory],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # the decoders' libraries write warnings there
                env={**os.environ, **_ENVIRONMENT},
            )
        worker = _Worker(process=process, connection=Connection(ours.detach()))
        self._workers.append(worker)
        return worker

    def _collect(self, jobs: deque[_Job]) -> Iterator[tuple[_Job, Answer | Failure]]:
        """What has come of the requests given out, after waiting until there is something.

        What a worker had in hand when it died, beside what it worked on, goes back to ``jobs``.
        """
        busy = {each.connection: each for each in self._workers if each.jobs}
        patience = min(each.deadline for each in busy.values()) - time.monotonic()
        ready = wait(list(busy), timeout=max(0.0, patience))
        for connection, worker in busy.items():
            if connection in ready:
                outcome = self._received(worker)
            elif time.monotonic() >= worker.deadline and not connection.poll(0):
                self._check_start(worker, self._drop(worker, patience=0))
                outcome = _too_slow(worker.jobs[0].request)
            else:
                continue
            if outcome is None:
                continue
            job = worker.jobs.popleft()
            if worker in self._workers:
                worker.set_deadline()
            else:
                jobs.extendleft(reversed(worker.jobs))
            yield job, outcome

    def _received(self, worker: _Worker) -> Answer | Failure | None:
        """A worker's message; None where it only says that it is ready, from when on the time counts."""
        try:
            head = json.loads(worker.connection.recv_bytes())
            if "ready" in head:
                worker.is_ready = True
                worker.set_deadline()
                return None
            blobs = tuple(worker.connection.recv_bytes() for _ in range(head.get("blobs", 0)))
        except (EOFError, OSError, ValueError):
            code = self._drop(worker, patience=DEATH_SECONDS)
            self._check_start(worker, code)
            return _cause_of_death(code, worker.jobs[0].request)
        if "unusable" in head:
            raise _no_start(head["unusable"])
        if "failure" in head:
            return Failure(kind=head["failure"], detail=head["detail"])
        return Answer(content=head["content"], blobs=blobs)

    def _check_start(self, worker: _Worker, code: int) -> None:
        """Raises: DataError if a worker ended before it was ready; others would, too."""
        if not worker.is_ready:
            raise _no_start(f"ended with code {code}")

    def _drop(self, worker: _Worker, *, patience: float) -> int:
        """Part with a worker; returns how it ended."""
        if worker in self._workers:
            self._workers.remove(worker)
        return _end(worker, patience=patience)


def _end(worker: _Worker, *, patience: float) -> int:
    """Make sure that a worker is no more; returns its exit code, its own one if it ends within ``patience`` seconds."""
    worker.connection.close()
    try:
        return worker.process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        return worker.process.wait()


def _no_start(reason: str) -> DataError:
    return DataError(
        f"the processes that read images cannot start here ({reason}); install the packages that this project needs."
    )


def _too_slow(request: Request) -> Failure:
    return Failure(kind="wait", detail=f"{WAITING * request.seconds:.3g} s")


def _cause_of_death(code: int, request: Request) -> Failure:
    if code == -signal.SIGALRM:
        return _too_slow(request)
    if code == -signal.SIGPROF:
        return Failure(kind="time", detail=f"{request.seconds:.3g} s")
    if code < 0:
        return Failure(kind="crash", detail=signal.Signals(-code).name)
    return Failure(kind="crash", detail=f"exit code {code}")
