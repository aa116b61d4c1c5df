"""What comes from outside: regular files of bounded size are opened and nothing else, and words are quoted safely.

A FIFO would block for ever, a device may never end, and a file under /proc claims to be empty and is not.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trainables.errors import DataError

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_REASONS = {
    errno.ENOENT: "does not exist, or is a link to nothing",
    errno.ELOOP: "is a link that leads back to itself",
    errno.EACCES: "must not be read by this user",
    errno.ENAMETOOLONG: "has a name that is too long for this system",
    errno.ENOTDIR: "lies below something that is no folder",
}


def why_unreadable(error: OSError | ValueError) -> str:
    """What keeps a file from being opened, in words that follow its name."""
    if not isinstance(error, OSError):
        return "has a name that no file can have"
    return _REASONS.get(error.errno or 0) or f"cannot be read ({error.strerror or error})"


def why_not_regular(path: Path) -> str | None:
    """Why a path is no regular file, in words that follow its name; None where it is one."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return why_unreadable(error)
    if stat.S_ISREG(mode):
        return None
    return f"is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}"


@contextmanager
def opened(path: Path, *, most: int) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file, open for reading, and its size in bytes.

    Args:
        path: followed where it is a link.
        most: the largest size allowed.

    Raises:
        DataError: no regular file, larger, or unreadable; the sentence begins with the reason, without the name.
    """
    reason = why_not_regular(path)
    if reason is not None:
        raise DataError(f"{reason}; expected a regular file.")
    try:
        # not blocking: it may have become a FIFO meanwhile
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise DataError(f"{why_unreadable(error)}; expected a readable file.") from None
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError("is no regular file any more; expected one.")
        if status.st_size > most:
            raise DataError(f"is {status.st_size} bytes; expected at most {most}.")
        yield stream, status.st_size


def read_bytes(path: Path, *, most: int) -> bytes:
    """The bytes that a regular file had when it was opened; one that grows meanwhile is not followed.

    Raises:
        DataError: as ``opened``, or an error in reading it.
    """
    with opened(path, most=most) as (stream, size):
        try:
            return stream.read(size)
        except OSError as error:
            raise DataError(f"{why_unreadable(error)}; expected a readable file.") from None


def quoted(text: str) -> str:
    """What a file says or is called, fit for a sentence: in one line, at most about 100 characters."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return f"'{shown}'" if len(shown) <= 100 else f"'{shown[:100]}...'"


def one_line(error: Exception) -> str:
    """An error's message, fit for a sentence: without line ends and addresses in memory."""
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split())) or type(error).__name__
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 200 else f"{text[:200]}..."
