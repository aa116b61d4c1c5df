"""Paths that users name: what they lead to, and what lies in a folder."""

from __future__ import annotations

import stat
from pathlib import Path

from trainables.data.untrusted import quoted, why_not_regular, why_unreadable
from trainables.errors import DataError


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or leads to one."""
    return why_not_regular(path) == "is a folder"


def listed(folder: Path) -> list[Path]:
    """What lies in a folder. Raises: DataError where it cannot be listed."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"the folder {quoted(str(folder))} {why_unreadable(error)}; expected one that can be listed. Mend it."
        ) from None


def resolved(path: Path, where: str) -> Path:
    """The file that a path means, links followed. Raises: DataError where links go round, or no file is called so."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # RuntimeError is what a loop of links raises before Python 3.13
        raise DataError(f"{where} is a link that leads back to itself; expected a file. Remove it.") from None


def exists(path: Path | None) -> bool:
    """Whether there is anything of that name; what is there and no regular file is a bad image, found in reading."""
    try:
        return path is not None and not stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
