"""Fixed parts of a data set, train, val and test: from a file of their own, or from the labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    given = {row.id: row.split for row in table.rows} if file is None else _read_parts(file, table)
    known = {row.id for row in table.rows}
    unknown = [name for name in given if name not in known]
    missing = [row.id for row in table.rows if not given.get(row.id)]
    if unknown or missing:
        raise DataError(
            f"--split-file: {_faults(missing, unknown, where)}; expected a row 'path,split' for every image, with "
            f"train, val or test."
        )
    return replace(table, rows=tuple(replace(row, split=given[row.id]) for row in table.rows))


def _faults(missing: Sequence[str], unknown: Sequence[str], where: str) -> str:
    """What is wrong on either side, with one of each: often they are two spellings of one name."""
    faults = []
    if missing:
        has = "1 image has" if len(missing) == 1 else f"{len(missing)} images have"
        faults.append(f"{has} no part in {where}, such as '{missing[0]}'")
    if unknown:
        name = "1 name" if len(unknown) == 1 else f"{len(unknown)} names"
        problem = "is no image" if len(unknown) == 1 else "are no images"
        faults.append(f"{name} {'there' if missing else f'in {where}'} {problem} of the data, such as '{unknown[0]}'")
    return ", and ".join(faults)


def _read_parts(file: Path, table: LabelTable) -> dict[str, str]:
    """Image to part, from the columns ``path`` and ``split`` of a CSV file; a short row has no part."""
    _check_place(file, table.data)
    source = f"--split-file {quoted(str(file))}"
    lines = read_table(file, source)
    header = lines[0].cells if lines else ()
    check_separator(header, ("path", "split"), source)
    if len(lines) < 2 or header.count("path") != 1 or header.count("split") != 1:
        raise DataError(f"{source} lacks rows with the columns path and split, each once; give a CSV that has them.")
    at = header.index("path"), header.index("split")
    parts: dict[str, str] = {}
    ids, files = {row.id for row in table.rows}, {row.path: row.id for row in table.rows}
    for line in lines[1:]:
        where = f"line {line.line} of '{file}'"
        path, split = (line.cells[index] if index < len(line.cells) else "" for index in at)
        if not path and not split:
            continue
        check_cell(path, "path", where)
        check_cell(split, "split", where)
        path = _id(path, table.data, ids, files) if path else ""
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


def _id(path: str, data: Path, ids: Collection[str], files: Mapping[Path | None, str]) -> str:
    """The image that a cell's path leads to, by its name or as a file; the cell itself where there is none."""
    whole = data.absolute() / path
    name = whole.relative_to(data.absolute()).as_posix() if whole.is_relative_to(data.absolute()) else path
    if name in ids:
        return name
    try:
        return files.get(whole.resolve(), path)
    except (OSError, ValueError, RuntimeError):  # RuntimeError is what a loop of links raises before Python 3.13
        return path
