"""Digests that decoded images are found and checked by: of plain data, pixels and files; 32 hexadecimal digits each."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.format_checks import MAX_FILE_BYTES
from trainables.data.untrusted import opened
from trainables.errors import DataError

DIGEST_BYTES = 16

_READ_BYTES = 2**20
"""Of a file, at a time."""
_SETTLED_SECONDS = 2.0
_read: dict[tuple[int, int, int, int, int], str] = {}


def plain_digest(content: Any) -> str:
    """Digest of plain data; the order of a mapping counts."""
    return text_digest(json.dumps(content, ensure_ascii=False, separators=(",", ":")))


def text_digest(text: str) -> str:
    """Digest of a text's UTF-8 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def pixel_digest(pixels_HW: NDArray[np.float32]) -> str:
    """Digest of a picture's shape and values."""
    digest = hashlib.blake2b(repr(pixels_HW.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels_HW).data.cast("B"))
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, read once per process and state of the file; the decoder reports an unreadable one.

    Locking a test set asks three times for each file. A file that is written or replaced has another time of change,
    which nobody can set; one that has just been written may be written again within one tick of that clock.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        with opened(path, most=MAX_FILE_BYTES) as (stream, size):
            status = os.fstat(stream.fileno())
            state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if state in _read:
                return _read[state]
            while size > 0 and (piece := stream.read(min(size, _READ_BYTES))):
                digest.update(piece)
                size -= len(piece)
    except (DataError, OSError) as error:
        return f"unreadable: {error}"
    if time.time() - status.st_ctime > _SETTLED_SECONDS:
        _read[state] = digest.hexdigest()
    return digest.hexdigest()
