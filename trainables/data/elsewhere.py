"""Notes of where on this machine images have been decoded, so that another storage need not decode them again.

A note for each digest names the storages' folders that hold it. Notes lie in the user's own cache folder
(``$GENMIX_CACHE``, else ``$XDG_CACHE_HOME/genmix-search``, else ``~/.cache/genmix-search``; none are kept where
``GENMIX_CACHE`` is empty). No image leaves a storage for them: who removes a storage has removed its images, and a note
that leads nowhere is harmless. What a note leads to counts only where nobody but this user can have written it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trainables.data.cohort import PIXELS_FILE, TABLE_FILE
from trainables.files import read_json, write_json

CACHE_VARIABLE = "GENMIX_CACHE"

FOLDERS = 8
"""How many folders one note names, the latest first."""
NOTES = 1000
"""How many notes are kept, the latest."""

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


def note(digest: str, folder: Path) -> None:
    """Note that a cohort lies in a folder; where nothing can be noted, nothing is."""
    notes = _notes()
    if notes is None:
        return
    with suppress(OSError, ValueError):
        notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(notes):
            return
        place, before = str(folder.resolve()), _named(notes, digest)
        if before[:1] != [place]:
            write_json(_file(notes, digest), [place, *(each for each in before if each != place)][:FOLDERS])
            _forget_oldest(notes)


def folders(digest: str) -> Iterator[Path]:
    """Where a cohort may lie; what is there is to be checked."""
    notes = _notes()
    if notes is None or not _is_ours(notes):
        return
    for name in _named(notes, digest):
        folder = Path(name)
        if all(_is_ours(path) for path in (folder, folder / TABLE_FILE, folder / PIXELS_FILE)):
            yield folder


def link_or_copy(source: Path, target: Path) -> None:
    """The same file in another folder, without taking its room or its memory twice where one file system holds both.

    Linked is what may be read by the same people as a new file of the target's folder, and written by nobody.

    Raises: OSError.
    """
    if stat.S_IMODE(source.stat().st_mode) == readable_mode(target.parent):
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def readable_mode(folder: Path) -> int:
    """The mode of a file that everybody may read who may read the folder, and nobody may write."""
    return stat.S_IMODE(folder.stat().st_mode) & _READ


def _notes() -> Path | None:
    given = os.environ.get(CACHE_VARIABLE)
    if given is not None:
        return Path(given) / "images" if given else None
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        return None
    return cache / "genmix-search" / "images" if cache.is_absolute() else None


def _file(notes: Path, digest: str) -> Path:
    return notes / f"{digest}.json"


def _named(notes: Path, digest: str) -> list[str]:
    """The folders that a note names; an unreadable one names none."""
    try:
        named = read_json(_file(notes, digest))
    except (OSError, ValueError):
        return []
    return [each for each in named if isinstance(each, str)] if isinstance(named, list) else []


def _is_ours(path: Path) -> bool:
    """Whether a folder or file, no link, belongs to this user and can be written by no other."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return False
    kind = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    return kind and status.st_uid == os.geteuid() and not status.st_mode & OTHERS_WRITE


def _forget_oldest(notes: Path) -> None:
    files = sorted(notes.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[NOTES:]:
        file.unlink(missing_ok=True)
