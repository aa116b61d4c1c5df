"""Comma-separated tables that users write, read within bounds: bytes, lines, and the length of a line and a cell."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainables.data.untrusted import quoted, read_bytes
from trainables.errors import DataError

MAX_TABLE_BYTES = 100 * 2**20
MAX_LINES = 10**6
MAX_LINE = 2**16
MAX_PATH = 4096
MAX_NAME = 250
"""Characters of a cell that is no path: names become tags, tables and figures."""

_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, characters that reverse what follows, and bytes of a name that are no UTF-8."""

_FORMULA = re.compile(r"=|[+\-@].*[(|!]")
"""How cells begin that a spreadsheet would compute, in what is exported from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table: the number of the line that it ends on, and its cells, stripped."""

    line: int
    cells: tuple[str, ...]


def read_table(file: Path, source: str) -> list[Row]:
    """The rows of a table that are not empty; the first is the header.

    Args:
        file: UTF-8 text, with or without a byte order mark.
        source: how sentences call it.

    Raises:
        DataError: it cannot be read, is no such text, or is larger than any table of images.
    """
    try:
        content = read_bytes(file, most=MAX_TABLE_BYTES)
    except DataError as error:
        raise DataError(f"{source} {error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None
    reader = csv.reader(_lines(text, source), skipinitialspace=True, strict=True)
    rows, last = [], 0
    try:
        for cells in reader:
            last = reader.line_num
            rows.append(Row(line=last, cells=tuple(cell.strip() for cell in cells)))
    except csv.Error as error:
        raise DataError(
            f"{source} is no comma-separated table from line {last + 1} on ({error}); expected quotes around whole "
            f'cells, such as "1,2,8,8", with a comma or the line\'s end right behind. Check its quotes.'
        ) from None
    return [row for row in rows if any(row.cells)]


def _lines(text: str, source: str) -> Iterator[str]:
    """The lines of a text, each checked before it is taken apart."""
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if number > MAX_LINES:
            raise DataError(f"{source} has more than {MAX_LINES} lines; list one image a line.")
        if len(line) > MAX_LINE:
            raise DataError(
                f"line {number} of {source} has {len(line)} characters; expected at most {MAX_LINE}. "
                f"Is it a comma-separated table?"
            )
        yield line


def check_cell(text: str, name: str, where: str) -> None:
    """Check what a cell holds, or how a file is called that takes its place.

    Args:
        text: the cell.
        name: of its column.
        where: how sentences call its place.

    Raises:
        DataError: control characters, no UTF-8, a formula, or too long.
    """
    most = MAX_PATH if name in ("path", "mask") else MAX_NAME
    if len(text) > most:
        raise DataError(f"{where} has a {name} of {len(text)} characters; expected at most {most}. Shorten it.")
    if _HIDDEN.search(text):
        raise DataError(
            f"{where} has the {name} {quoted(text)}, with characters that do not print; expected plain UTF-8 text. "
            f"Rename it."
        )
    if name not in ("path", "mask") and _FORMULA.match(text):
        raise DataError(
            f"{where} has the {name} {quoted(text)}, which spreadsheets compute; expected plain text. Rename it."
        )
