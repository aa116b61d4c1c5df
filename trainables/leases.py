"""Lease files: who is computing what, across processes and nodes that share a folder.

A lease is a file created exclusively; its holder rewrites a counter in it every second. Another process takes a lease
over once it has watched the counter stand still for ``DEAD_AFTER`` seconds of its own clock (clocks of different nodes
are never compared), or at once if the holder was a process of the same host that is gone. A lost lease costs work,
never correctness: what it guards is written atomically and is the same whoever computes it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BEAT_EVERY = 1.0
DEAD_AFTER = 10.0
_TEMPORARY = ".tmp"
_SUCCESSION = ".next"


def _host() -> str:
    """A name of this machine since it started, and of the container in it: where process numbers are comparable."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}-{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{socket.gethostname()}-{uuid.uuid4().hex}"


_HOST = _host()
_MACHINE = re.compile(r"-([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-\d+|[0-9a-f]{32})$")
"""What ``_host`` adds to the host's name, which may have hyphens too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    process: str
    token: str
    beat: int


def own_process() -> str:
    """A name of this process that no other process of any host ever has."""
    return f"{os.getpid()}.{_process_start(os.getpid())}.{_HOST}"


def is_gone(process: str) -> bool:
    """Whether ``process`` (as named by ``own_process``) ran on this host and runs no more."""
    pid, _, rest = process.partition(".")
    started, _, host = rest.partition(".")
    return host == _HOST and pid.isdigit() and str(_process_start(int(pid))) != started


def _process_start(pid: int) -> int:
    """When a process of this host started (clock ticks since boot), 0 if it is gone or cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    state, *fields = stat.rsplit(")", 1)[1].split()
    return 0 if state in ("Z", "X") else int(fields[18])


def _read(path: Path) -> _Holder | None:
    """The holder of a lease; None if it is free, or being created this very moment. Raises: OSError otherwise."""
    try:
        return _Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _look(path: Path) -> _Holder | None:
    """The holder of a lease as far as it can be read; a file system may fail while the file is being replaced."""
    try:
        return _read(path)
    except OSError:
        return None


class Lease:
    """One attempt to hold the lease at ``path``; the clock can be injected for simulations and tests.

    Args:
        path: the lease file; its folder must exist, on a file system with exclusive create and atomic rename.
        clock: seconds from any origin, as ``time.monotonic``.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._seen: tuple[str, int] | None = None
        self._seen_since = 0.0
        self._succession: Lease | None = None

    def try_acquire(self) -> bool:
        """Take the lease if it is free or its holder is dead; poll this."""
        if not self._path.exists() and self._create():
            return True
        holder = _look(self._path)
        return self._is_dead(holder) and self._succeed(holder, lambda: self._write_over(0))

    def acquire(self, *, timeout: float, on_wait: Callable[[], None] = lambda: None) -> bool:
        """Try for ``timeout`` seconds; one longer than ``DEAD_AFTER`` outlasts a dead holder of any host.

        ``on_wait`` is called once if the lease is not free at once.
        """
        start, waiting = self._clock(), False
        while not self.try_acquire():
            if self._clock() - start >= timeout:
                return False
            if not waiting:
                waiting = True
                on_wait()
            time.sleep(0.2)
        return True

    def holder(self) -> str:
        """The process that holds the lease, in words; empty if it is free."""
        holder = _look(self._path)
        if holder is None:
            return ""
        pid, _, rest = holder.process.partition(".")
        return f"process {pid} on {_MACHINE.sub('', rest.partition('.')[2])}"

    def is_held(self) -> bool:
        """Whether the lease is anybody's who is not known to be gone; one look, the heartbeat is not watched."""
        holder = _look(self._path)
        return holder is not None and not is_gone(holder.process)

    def beat(self, count: int) -> bool:
        """Say that the holder lives; False if the lease was lost. Raises: OSError if the storage does not answer."""
        holder = _read(self._path)
        if holder is None or holder.token != self._token:
            return False
        self._write_over(count)
        return True

    def release(self) -> None:
        """Free the lease if it is still this holder's."""
        holder = _look(self._path)
        if holder is not None and holder.token == self._token:
            self._path.unlink(missing_ok=True)

    def free_if_gone(self) -> None:
        """Free the lease if its holder was a process of this host that runs no more."""
        holder = _look(self._path)
        if holder is not None and is_gone(holder.process):
            self._succeed(holder, lambda: self._path.unlink(missing_ok=True))

    def lives(self) -> bool | None:
        """Whether the holder runs, as far as processes of this host show; None if it runs elsewhere, or is unknown."""
        holder = _look(self._path)
        if holder is None or not holder.process.endswith(f".{_HOST}"):
            return None
        return not is_gone(holder.process)

    def _content(self, beat: int) -> str:
        return json.dumps({"process": own_process(), "token": self._token, "beat": beat})

    def _create(self) -> bool:
        temporary = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
        try:
            temporary.write_text(self._content(0), encoding="utf-8")
            return self._link(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def _link(self, temporary: Path) -> bool:
        try:
            os.link(temporary, self._path)
        except FileExistsError:
            # a network file system that asks again after a lost answer finds the link that it has made itself
            holder = _look(self._path)
            return holder is not None and holder.token == self._token
        except OSError:
            return self._create_without_links()
        return True

    def _create_without_links(self) -> bool:
        """Exclusive creation on file systems that have no hard links."""
        try:
            with self._path.open("x", encoding="utf-8") as file:
                file.write(self._content(0))
        except FileExistsError:
            return False
        return True

    def _write_over(self, beat: int) -> None:
        temporary = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
        try:
            temporary.write_text(self._content(beat), encoding="utf-8")
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)

    def _is_dead(self, holder: _Holder | None) -> bool:
        if holder is not None and is_gone(holder.process):
            return True
        seen = (holder.token, holder.beat) if holder is not None else ("", 0)
        if seen != self._seen:
            self._seen, self._seen_since = seen, self._clock()
            return False
        return self._clock() - self._seen_since >= DEAD_AFTER

    def _succeed(self, dead: _Holder | None, act: Callable[[], None]) -> bool:
        """Replace or remove a dead holder's file; of several that try, one does.

        Who replaces or removes the file holds a lease on succeeding this very holder, so that nobody mistakes the
        file of a successor for it, and so that the lease is at no moment free.
        """
        token = dead.token if dead is not None else "unreadable"
        succession = self._path.with_name(f"{self._path.name}.{token}{_SUCCESSION}")
        if self._succession is None or self._succession._path != succession:
            self._succession = Lease(succession, clock=self._clock)
        if not self._succession.try_acquire():
            return False
        try:
            current = _look(self._path)
            if (current.token if current is not None else "unreadable") != token:
                return False
            act()
            return True
        finally:
            self._succession.release()


@contextmanager
def held(
    lease: Lease,
    *,
    on_lost: Callable[[], None] = lambda: None,
    beat_every: float | None = None,
    retake: bool = False,
) -> Iterator[None]:
    """Keep an acquired lease alive by a heartbeat thread, and release it at the end.

    ``on_lost`` is called once, in that thread, if another process has taken the lease, as it may after this one was
    suspended for long. ``beat_every`` is in seconds (``BEAT_EVERY``). With ``retake`` a lost lease is taken
    again instead: one that others only ever remove.
    """
    done = threading.Event()

    def keep_alive() -> None:
        count = 0
        while not done.wait(BEAT_EVERY if beat_every is None else beat_every):
            count += 1
            with suppress(OSError):
                if lease.beat(count):
                    continue
                if not retake:
                    on_lost()
                    return
                lease.try_acquire()

    thread = threading.Thread(target=keep_alive, name="lease-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        lease.release()
