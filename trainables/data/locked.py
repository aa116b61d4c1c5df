"""The locked test set: patients that no part of a search sees, chosen before any image is decoded."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spaces.protocol import OWN_SPLITS
from trainables.data.cohort import (
    Cohort,
    OnProgress,
    decode,
    file_digest,
    files_of,
    group_names,
    table_digest,
)
from trainables.data.labels import LabelTable, read_labels, split_named
from trainables.data.readers import SliceRule
from trainables.data.splits import hold_out
from trainables.errors import DataError
from trainables.files import read_json, write_json
from trainables.seeding import stream

LOCKED_FILE = "locked.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a search's images come from and how they are read: enough to read them again.

    Args:
        data: the folder or archive, absolute.
        labels: another table than its labels.csv, or None.
        split_file: a table of fixed parts, ``OWN_SPLITS``, or None.
        slice_rule: which slice of a volume is read.
        skip_bad_images: whether unreadable images are left out.
        is_phantom: whether the images are synthetic.
    """

    data: str
    labels: str | None = None
    split_file: str | None = None
    slice_rule: SliceRule = None
    skip_bad_images: bool = False
    is_phantom: bool = False

    def table(self) -> LabelTable:
        """The labelled images, with the parts of the split file where there is one. Raises: DataError."""
        table = read_labels(Path(self.data), self.labels)
        if self.split_file is None:
            return table
        return _with_parts(table, None if self.split_file == OWN_SPLITS else Path(self.split_file))

    def absolute(self) -> Source:
        """The same source, named so that it is found from every folder."""
        inside = self.labels is None or (Path(self.data) / self.labels).is_file()
        labels = self.labels if inside else str(Path(str(self.labels)).resolve())
        return replace(self, data=str(Path(self.data).resolve()), labels=labels)

    def digest(self, table: LabelTable) -> str:
        """The digest of a table's files, rows and reading: that of the cohort decoded from it."""
        return table_digest(table, slice_rule=self.slice_rule, is_phantom=self.is_phantom)

    def decode(self, table: LabelTable, *, cache: Path, on_progress: OnProgress | None = None) -> Cohort:
        """Decode the images of a table. Raises: DataError on images that cannot be used."""
        return decode(
            table,
            cache=cache,
            skip_bad_images=self.skip_bad_images,
            slice_rule=self.slice_rule,
            is_phantom=self.is_phantom,
            on_progress=on_progress,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedTest:
    """A locked test set, as it is stored beside the search.

    Args:
        ids: the images, sorted.
        labels: the class index of each.
        patients: the patient of each.
        classes: the class names of the whole data set.
        digest: over the locked files, their rows and their reading; the images themselves were not decoded.
        searched: the same of the other images.
        source: where to read them.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    patients: tuple[str, ...]
    classes: tuple[str, ...]
    digest: str
    searched: str
    source: Source

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of images of each class."""
        return tuple(self.labels.count(index) for index in range(len(self.classes)))

    def write(self, folder: Path) -> None:
        """Store it beside a search."""
        write_json(folder / LOCKED_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> LockedTest | None:
        """The locked test set of a search; None where it has none."""
        path = folder / LOCKED_FILE
        if not path.exists():
            return None
        data: Mapping[str, Any] = read_json(path)
        tuples = {name: tuple(data[name]) for name in ("ids", "labels", "patients", "classes")}
        return cls(**{**data, **tuples, "source": Source(**data["source"])})

    def unlock(self, *, cache: Path, on_progress: OnProgress | None = None) -> Cohort:
        """Decode searched and locked images together.

        Raises:
            DataError: a file, a label or the reading of one has changed since the images were locked.
        """
        table = self.source.table()
        searched, locked = table.part(self.ids, inside=False), table.part(self.ids, inside=True)
        now = self.source.digest(searched), self.source.digest(locked)
        changed = [
            name
            for name, before, after in zip(("searched", "locked"), (self.searched, self.digest), now, strict=True)
            if before != after
        ]
        if changed:
            raise DataError(
                f"the {' and the '.join(changed)} images of '{self.source.data}' are not those of the day they were "
                f"locked; expected the same files, labels and patients. Restore them, or start a new search."
            )
        return self.source.decode(table, cache=cache, on_progress=on_progress)


def lock(table: LabelTable, source: Source, *, share: float | None, seed: int) -> LockedTest | None:
    """Choose the locked test set of a data set from its table and the bytes of its files; nothing is decoded.

    Args:
        table: all labelled images.
        source: how they are read.
        share: of the images, about, whole patients, stratified by class; files with equal bytes stay together. None:
            the part "test" of the split file, if there is one.
        seed: the search's seed.

    Returns:
        The locked images; None where nothing is to be locked.

    Raises:
        DataError: classes or patients cannot be divided so.
    """
    if share is not None:
        ids = _drawn(table, share, seed)
    elif source.split_file is not None:
        ids = [row.id for row in table.rows if row.split == "test"]
    else:
        ids = []
    if not ids:
        return None
    held, kept = table.part(ids, inside=True), table.part(ids, inside=False)
    _check_sides(table, held, kept)
    return LockedTest(
        ids=tuple(row.id for row in held.rows),
        labels=tuple(table.classes.index(row.label) for row in held.rows),
        patients=tuple(row.patient for row in held.rows),
        classes=table.classes,
        digest=source.digest(held),
        searched=source.digest(kept),
        source=source.absolute(),
    )


def _drawn(table: LabelTable, share: float, seed: int) -> list[str]:
    contents = [" ".join(map(file_digest, files_of(row))) or row.id for row in table.rows]
    groups = group_names([row.patient for row in table.rows], contents)
    labels = [table.classes.index(row.label) for row in table.rows]
    chosen = hold_out(labels, groups, share=share, seed=stream(seed, "locked"), what="the locked test set")
    return [table.rows[position].id for position in chosen]


def _check_sides(table: LabelTable, held: LabelTable, kept: LabelTable) -> None:
    """Raises: DataError where a patient is on both sides, or a class on one only."""
    both = sorted({row.patient for row in held.rows} & {row.patient for row in kept.rows})
    if both:
        raise DataError(
            f"--split-file puts {len(both)} patients into test and elsewhere, '{both[0]}' the first; expected each "
            f"patient in one part. Correct the file."
        )
    for name, side in {"the part 'test'": held, "what is left for the search": kept}.items():
        missing = sorted(set(table.classes) - set(side.classes))
        if missing:
            raise DataError(f"{name} of --split-file has no image of '{missing[0]}'; expected every class there.")


def _with_parts(table: LabelTable, file: Path | None) -> LabelTable:
    """A table whose rows have the parts of a file; of the labels themselves where there is none."""
    where = f"the column 'split' of {table.source}" if file is None else f"'{file}'"
    given = {row.id: row.split for row in table.rows} if file is None else _read_parts(file)
    unknown = [name for name in given if name not in {row.id for row in table.rows}]
    missing = [row.id for row in table.rows if not given.get(row.id)]
    if unknown or missing:
        name, problem = (missing[0], "has no part") if missing else (unknown[0], "is no image of the data")
        raise DataError(
            f"--split-file: {len(missing or unknown)} images have a fault in {where}, '{name}' {problem}; expected a "
            f"row 'path,split' for every image, with train, val or test."
        )
    if table.rows[0].path is None and file is not None:
        raise DataError(
            f"--split-file '{file}' was given with an archive, which has parts; use --split-file {OWN_SPLITS}."
        )
    return replace(table, rows=tuple(replace(row, split=given[row.id]) for row in table.rows))


def _read_parts(file: Path) -> dict[str, str]:
    """Path to part, from the columns ``path`` and ``split`` of a CSV file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows: Sequence[Mapping[str, str | None]] = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"--split-file '{file}' cannot be read ({error}); give a CSV with the columns path and split."
        ) from None
    if not rows or not {"path", "split"} <= set(rows[0]):
        raise DataError(f"--split-file '{file}' lacks rows with the columns path and split; give a CSV that has them.")
    return {
        (row["path"] or "").strip(): split_named((row["split"] or "").strip(), f"line {number} of '{file}'")
        for number, row in enumerate(rows, start=2)
    }


def has_part(table: LabelTable, part: str) -> bool:
    """Whether any image of a table is of a part."""
    return any(row.split == part for row in table.rows)
