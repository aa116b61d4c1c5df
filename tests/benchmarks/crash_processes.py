"""The processes that a search has started, found in ``/proc`` by their session, and killed all at one moment.

A search is started in a session of its own, which Ray's daemons and workers stay in, also when their parents are gone:
no other Ray on the machine is ever touched.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PATIENCE = 20.0


def in_session(session: int) -> list[int]:
    """The processes of a session that live, by number; frozen ones too."""
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit() and _lives_in(entry.name, session)]


def _lives_in(pid: str, session: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    state, _, _, found = stat.rsplit(")", 1)[1].split()[:4]
    return int(found) == session and state not in ("Z", "X")


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def freeze(session: int) -> list[int]:
    """Stop every process of a session where it stands, those too that are being started; returns their numbers."""
    frozen: set[int] = set()
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        running = set(in_session(session)) - frozen
        if not running:
            break
        for pid in running:
            send(pid, signal.SIGSTOP)
        frozen |= running
    return sorted(frozen)


def thaw(session: int) -> None:
    """Let the processes of a session go on."""
    for pid in in_session(session):
        send(pid, signal.SIGCONT)


def kill(session: int) -> int:
    """End every process of a session by SIGKILL; returns how many there were.

    Raises: RuntimeError if some are left after 20 seconds.
    """
    killed = freeze(session)
    for pid in killed:
        send(pid, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while left := in_session(session):
        if time.monotonic() > deadline:
            raise RuntimeError(f"The processes {left} are still there 20 s after SIGKILL.")
        for pid in left:
            send(pid, signal.SIGKILL)
        time.sleep(0.02)
    return len(killed)
