"""A file that the user names with ``--out``: what a link leads to, or a device or a pipe as it is named."""

from __future__ import annotations

import os
from pathlib import Path

from search.settings import SettingsError
from trainables.files import temporary_for, write_atomically


def writable(given: Path, *, instead: str) -> Path:
    """Where that file is written.

    Args:
        given: as the user named it.
        instead: what to do where it cannot be written.

    Raises: SettingsError if it cannot be written there, before anything is computed.
    """
    try:
        if given.is_dir():
            raise unwritable(given, "is a folder", instead=instead)
        if _is_special(given):
            if not os.access(given, os.W_OK):
                raise unwritable(given, "may not be written", instead=instead)
            return given
        out = given.resolve()
        if not out.parent.is_dir():
            raise unwritable(given, f"lies in '{out.parent}', which does not exist", instead=instead)
        trial = temporary_for(out)
        trial.touch()
        trial.unlink()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise unwritable(given, f"cannot be written ({why(error)})", instead=instead) from None
    return out


def write_out(out: Path, text: str) -> None:
    """Write a text where ``writable`` says. Raises: OSError if it cannot be written after all."""
    if _is_special(out):
        out.write_text(text, "utf-8")
    else:
        write_atomically(out, text)


def unwritable(out: Path, wrong: str, *, instead: str) -> SettingsError:
    """What is wrong with ``--out``, and what to do instead."""
    return SettingsError(f"--out '{out}' {wrong}; {instead}.")


def why(error: Exception) -> str:
    """A system's error without its number and its file."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _is_special(path: Path) -> bool:
    """Whether it is a device, a pipe or the like, which nothing may take the place of."""
    return path.exists() and not path.is_file()
