"""Errors that a user can mend: one sentence, what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used; the command line prints it as one sentence and exits with 2."""


class SpaceError(InputError):
    """A search space is malformed, or a name or value does not belong to it."""


class ConfigError(InputError):
    """A configuration names an unknown field or holds a value outside its bounds."""


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Check one setting of a configuration. Raises: ConfigError, with the setting, its value and what was expected."""
    if not holds:
        raise ConfigError(f"{name} is {value!r}; expected {expected}.")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which valid names are closest to ``name``, for the end of an error sentence.

    Args:
        name: what was given.
        valid: every name that would have been accepted.

    Returns:
        "did you mean 'egan'? Valid: dcgan, egan" or, where nothing is close, "Valid: dcgan, egan".
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    listing = "Valid: " + ", ".join(names)
    if not close:
        return listing
    return "did you mean " + " or ".join(f"'{each}'" for each in close) + f"? {listing}"
