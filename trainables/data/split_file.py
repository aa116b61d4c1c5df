"""Fixed parts of a data set, train, val and test: from a file of their own, or from the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spaces.protocol import OWN_SPLITS
from trainables.data.columns import check_separator
from trainables.data.labels import LabelTable, split_named
from trainables.data.tables import check_cell, read_table
from trainables.data.untrusted import quoted, why_not_regular
from trainables.errors import DataError

_LONG = 1000
"""Characters of a path that is not shown whole."""


def with_parts(table: LabelTable, file: Path | None) -> LabelTable:
    """A table whose rows have the parts of a file; of the labels themselves where there is none."""
    if table.rows[0].path is None and file is not None:
        raise DataError(
            f"--split-file '{file}' was given with an archive, which has parts; use --split-file {OWN_SPLITS}."
        )
    where = f"the column 'split' of {table.source}" if file is None else f"'{file}'"
    given = {row.id: row.split for row in table.rows} if file is None else _read_parts(file, table.data)
    known = {row.id for row in table.rows}
    unknown = [name for name in given if name not in known]
    missing = [row.id for row in table.rows if not given.get(row.id)]
    if unknown or missing:
        name, problem = (missing[0], "has no part") if missing else (unknown[0], "is no image of the data")
        count = len(missing or unknown)
        raise DataError(
            f"--split-file: {count} {'images have' if count > 1 else 'image has'} a fault in {where}, '{name}' "
            f"{problem}; expected a row 'path,split' for every image, with train, val or test."
        )
    return replace(table, rows=tuple(replace(row, split=given[row.id]) for row in table.rows))


def _read_parts(file: Path, data: Path) -> dict[str, str]:
    """Path to part, from the columns ``path`` and ``split`` of a CSV file; a short row has no part."""
    _check_place(file, data)
    source = f"--split-file {quoted(str(file))}"
    lines = read_table(file, source)
    header = lines[0].cells if lines else ()
    check_separator(header, ("path", "split"), source)
    if len(lines) < 2 or header.count("path") != 1 or header.count("split") != 1:
        raise DataError(f"{source} lacks rows with the columns path and split, each once; give a CSV that has them.")
    at = header.index("path"), header.index("split")
    parts: dict[str, str] = {}
    folders = data.absolute(), data.resolve()
    for line in lines[1:]:
        where = f"line {line.line} of '{file}'"
        path, split = (line.cells[index] if index < len(line.cells) else "" for index in at)
        if not path and not split:
            continue
        check_cell(path, "path", where)
        check_cell(split, "split", where)
        path = _id(path, folders)
        if not path or path in parts:
            problem = f"names '{path}' again" if path else "has a part and no path"
            raise DataError(f"--split-file: {where} {problem}; expected one row for each image. Correct the row.")
        parts[path] = split_named(split, where)
    return parts


def _check_place(file: Path, data: Path) -> None:
    """Raises: DataError where there is no such file, with the folder in which it was looked for."""
    reason = why_not_regular(file)
    if reason is None:
        return
    inside = data / file.name
    advice = f"Give --split-file {_whole(inside)}" if why_not_regular(inside) is None else "Correct the path"
    name, folder = quoted(file.name or str(file)), _whole(file.absolute().parent)
    raise DataError(
        f"--split-file {name} {reason}; expected a regular file in {folder} (a path counts from the current folder, "
        f"not from the data folder). {advice}."
    )


def _whole(path: Path) -> str:
    """A path that is to be used or looked at: not shortened, unless it is absurd."""
    text = str(path)
    return f"'{text}'" if text.isprintable() and len(text) <= _LONG else quoted(text)


def _id(path: str, folders: Sequence[Path]) -> str:
    """A cell's path as the labels have it: relative to the data folder, also where it was written in full."""
    whole = Path(path)
    inside = [whole.relative_to(folder) for folder in folders if whole.is_absolute() and whole.is_relative_to(folder)]
    return inside[0].as_posix() if inside else path
