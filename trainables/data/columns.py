"""The columns of a table of labels: what is read, what seems to mean one of them, and what is passed over."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

from trainables.data.tables import check_cell
from trainables.data.untrusted import quoted
from trainables.errors import DataError

REQUIRED_COLUMNS = ("path", "label")
SYNTHETIC_COLUMN = "synthetic"
"""Of tables that come with synthetic images."""
COLUMNS = (*REQUIRED_COLUMNS, "patient", "site", "split", "mask", "roi", SYNTHETIC_COLUMN)

_PERSONS = re.compile(r"patient|subject|participant|^(pid|mrn|case_?id|person)$")
"""Names of columns that may say which patient an image shows: passed over, they would let patients into both sides."""
_CLOSE = 0.75
"""Of difflib's ratio: 'pateint' is 0.86 like 'patient', 'age' and 'sex' are at most 0.57 like any column."""
_NAMED = 3
"""How many columns that are passed over are named."""
_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}


def check_header(header: Sequence[str], source: str) -> tuple[str, ...]:
    """Check a table's first line.

    Args:
        header: its cells.
        source: how sentences call the table.

    Returns:
        The columns that are not read, such as age or view.

    Raises:
        DataError: a required column is missing, a column stands twice, or an unknown one seems to mean one that is
            missing.
    """
    check_separator(header, COLUMNS, source)
    for name in header:
        check_cell(name, "column", source)
        if name in COLUMNS and header.count(name) > 1:
            raise DataError(f"{source} has the column '{name}' {header.count(name)} times; keep one.")
        meant = _meant(name, header)
        if meant is not None:
            raise DataError(
                f"{source} has the unknown column {quoted(name)}; did you mean '{meant}'? Rename it, or drop it if it "
                f"is something else. Known columns: {', '.join(COLUMNS)}."
            )
    for name in REQUIRED_COLUMNS:
        if name not in header:
            found = quoted(", ".join(header))[1:-1]
            raise DataError(
                f"{source} has no column '{name}'; found {found or 'nothing'}, expected at least "
                f"{', '.join(REQUIRED_COLUMNS)} in its first line. Rename the columns. Known: {', '.join(COLUMNS)}."
            )
    return tuple(name for name in header if name not in COLUMNS)


def check_separator(header: Sequence[str], known: Collection[str], source: str) -> None:
    """Raises: DataError where the known columns are there, with something else than commas between them."""
    for separator, called in _SEPARATORS.items():
        parts = {part.strip(" \"'") for cell in header for part in cell.split(separator)}
        if not parts.isdisjoint(known) and set(header).isdisjoint(known):
            raise DataError(f"{source} is separated by {called}; expected commas. Save it as a comma-separated table.")


def passed_over(names: Sequence[str]) -> str:
    """What follows a table's name wherever it is named, if some of its columns are not read."""
    if not names:
        return ""
    listed = ", ".join(map(quoted, names[:_NAMED])) + f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
    return f" without its column{'s' * (len(names) > 1)} {listed}"


def _meant(name: str, header: Sequence[str]) -> str | None:
    """The column that an unknown name seems to mean; None for a known name, and where that column is there too."""
    plain = name.lower()
    absent = [each for each in COLUMNS if each not in header]
    if name in COLUMNS:
        return None
    if "patient" in absent and _PERSONS.search(plain):
        return "patient"
    return next(iter(difflib.get_close_matches(plain, absent, n=1, cutoff=_CLOSE)), None)
