"""Names of one class or patient that are written in several ways, which would make several of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from unicodedata import normalize

from trainables.data.untrusted import quoted
from trainables.errors import DataError

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_WHOLE = re.compile(r"^([+-]?[0-9]+)\.0*$")


def check_labels(names: Iterable[str], source: str) -> None:
    """Raises: DataError where two labels differ only in case, Unicode form or number format (1, 1.0, 01)."""
    _check("labels", {name: _number(_folded(name)) for name in dict.fromkeys(names)}, source)


def check_patients(names: Iterable[str], source: str) -> None:
    """Raises: DataError where two patients differ only in case, Unicode form or as 1 and 1.0; 1 and 01 may be two."""
    _check("patients", {name: _WHOLE.sub(r"\1", _folded(name)) for name in dict.fromkeys(names)}, source)


def _check(kind: str, keys: dict[str, str], source: str) -> None:
    """Raises: DataError where two names have one key."""
    first: dict[str, str] = {}
    for name, key in keys.items():
        other = first.setdefault(key, name)
        if other != name:
            raise DataError(
                f"the {kind} {_shown(other, name)} differ only in {_difference(other, name)} ({source}); expected one "
                f"spelling of each. Write them alike, or rename one if they are two."
            )


def _folded(name: str) -> str:
    return normalize("NFC", normalize("NFD", name).casefold())


def _number(text: str) -> str:
    return str(Fraction(text)) if _NUMBER.fullmatch(text) else text


def _difference(one: str, other: str) -> str:
    if normalize("NFC", one) == normalize("NFC", other):
        return "Unicode form"
    return "case" if _folded(one) == _folded(other) else "number format"


def _shown(*names: str) -> str:
    """Both names; those that look alike as their characters' numbers."""
    alike = len({normalize("NFC", name) for name in names}) == 1
    return " and ".join(ascii(name) if alike else quoted(name) for name in names)
