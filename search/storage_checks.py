"""Whether a folder can hold searches; the standard library alone is used, as this is sent to a cluster's nodes."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LEAST_FREE = 100 * 2**20
"""Bytes without which no search can begin."""


def probe_storage(folder: Path) -> str | None:
    """Whether files in a folder can be written, flushed, replaced and created by one process alone, and fit there.

    The folder must exist. What is written for that is removed again.

    Args:
        folder: that of the searches.

    Returns:
        None if all of it works; else what does not, in words that fit into brackets.
    """
    if not folder.is_dir():
        return "it is no folder" if folder.exists() else "it does not exist there"
    trial = folder / f".probe-{uuid.uuid4().hex}"
    try:
        trial.mkdir()
    except OSError as error:
        return f"it cannot be written: {_reason(error)}"
    try:
        return _lacking(trial) or _room(folder)
    finally:
        _remove(trial)


def _lacking(folder: Path) -> str | None:
    """What the file system of an empty folder cannot do."""
    first, second = folder / "first", folder / "second"
    checks: dict[str, Callable[[], object]] = {
        "writing and flushing a file fails": lambda: [_write(path) for path in (first, second)],
        "a file cannot replace another (atomic rename)": lambda: first.replace(second),
        "flushing a folder fails": lambda: _flush_folder(folder),
    }
    for what, check in checks.items():
        try:
            check()
        except OSError as error:
            return f"{what}: {_reason(error)}"
    if first.exists() or second.read_text() != "first":
        return "a file that replaces another leaves both, or the old content (no atomic rename)"
    return _shared_creation(folder / "lease")


def _shared_creation(path: Path) -> str | None:
    """Whether creating a file that is there already is refused (``O_EXCL``), as leases need."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except OSError as error:
        return f"a file cannot be created exclusively: {_reason(error)}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return None
    except OSError as error:
        return f"a file cannot be created exclusively: {_reason(error)}"
    return "two processes can create the same file (no exclusive create)"


def _write(path: Path) -> int:
    with path.open("x") as file:
        written = file.write(path.name)
        file.flush()
        os.fsync(file.fileno())
    return written


def _flush_folder(folder: Path) -> None:
    """Flush a folder's entries; where a file system has no such thing (EINVAL) it is not needed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def _room(folder: Path) -> str | None:
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < LEAST_FREE:
        return f"only {free / 2**20:.0f} MiB are free, {LEAST_FREE // 2**20} at least are needed"
    return None


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
