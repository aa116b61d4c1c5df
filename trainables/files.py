"""Files that are never seen half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainables.leases import is_gone, own_process

_ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which a half-written file of another host's process is left behind for certain."""


def temporary_for(path: Path) -> Path:
    """Where a file is written before it takes its place; the name says which process writes it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.{own_process()}.tmp")


def writer_of(temporary: Path) -> str:
    """The process that writes what ``temporary_for`` named; empty for any other file."""
    found = re.search(r"\.[0-9a-f]{32}\.(\d+\.\d+\..+)\.tmp$", temporary.name)
    return found[1] if found else ""


def remove_half_written(folder: Path) -> None:
    """Remove the files of a folder that processes which are gone left half-written."""
    for temporary in folder.glob(".*.tmp"):
        with suppress(OSError):
            if is_gone(writer_of(temporary)) or time.time() - temporary.stat().st_mtime > _ABANDONED_AFTER:
                discard(temporary)


def discard(temporary: Path) -> None:
    """Remove what ``temporary_for`` names, a file or a folder; nothing where it has gone."""
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A file for a library to write, which takes its place once it is whole.

    It lies in a folder of its own, named by ``temporary_for``: some libraries write beside their file first, under
    names that say nothing of whose they are.
    """
    folder = temporary_for(path)
    folder.mkdir()
    try:
        yield folder / path.name
        with (folder / path.name).open("rb") as file:
            os.fsync(file.fileno())
        (folder / path.name).replace(path)
    finally:
        discard(folder)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one, or the whole new one, also after a power cut."""
    temporary = temporary_for(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """Write plain data as JSON, atomically. Floats keep every bit; NaN is refused (undefined values are null)."""
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises: OSError or ValueError, as ``json`` does."""
    return json.loads(path.read_text(encoding="utf-8"))
