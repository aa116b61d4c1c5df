"""The locked test set: patients that no part of a search sees, chosen before any image is decoded.

Copies of their images that the choice could not know of are found when the set is unlocked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spaces.wording import counted
from trainables.data.cohort import Cohort
from trainables.data.cohort_building import group_names
from trainables.data.decoding import OnProgress
from trainables.data.digests import file_digest
from trainables.data.labels import LabelledImage, LabelTable
from trainables.data.near_duplicates import alike_across
from trainables.data.reading import files_of
from trainables.data.source import Source
from trainables.data.splits import hold_out
from trainables.errors import DataError
from trainables.files import read_json, write_json
from trainables.seeding import stream

LOCKED_FILE = "locked.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocked:
    """All images of a data set, once its locked test set is opened.

    Args:
        cohort: searched and locked images, decoded.
        seen: the locked images that the search has seen in another copy, sorted ids: those that share a group with a
            searched image (``Entry.group``), and those nearly equal to one (``alike_across``).
    """

    cohort: Cohort
    seen: tuple[str, ...]


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

    def unlock(self, *, cache: Path, on_progress: OnProgress | None = None) -> Unlocked:
        """Decode searched and locked images together, and look for copies among them.

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
        cohort = self.source.decode(table, cache=cache, on_progress=on_progress)
        return Unlocked(cohort=cohort, seen=_seen(cohort, frozenset(self.ids)))


def lock(table: LabelTable, source: Source, *, share: float | None, seed: int) -> LockedTest | None:
    """Choose the locked test set of a data set from its table and the bytes of its files; nothing is decoded.

    Args:
        table: all labelled images.
        source: how they are read.
        share: about this share of the images is locked, drawn by whole patients, stratified by class; files with
            equal bytes stay together. None: the part "test" of the split file, if there is one.
        seed: the search's seed.

    Returns:
        The locked images; None where nothing is to be locked.

    Raises:
        DataError: classes or patients cannot be divided so, or the split file puts equal files on both sides.
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
    if share is None:
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
    groups = group_names([row.patient for row in table.rows], [_content(row) for row in table.rows])
    labels = [table.classes.index(row.label) for row in table.rows]
    chosen = hold_out(labels, groups, share=share, seed=stream(seed, "locked"), what="the locked test set")
    return [table.rows[position].id for position in chosen]


def _content(row: LabelledImage) -> str:
    """The digest of an image's files, whatever its mask; its id in an archive, where nothing tells before decoding."""
    return " ".join(map(file_digest, files_of(replace(row, mask=None)))) or row.id


def _seen(cohort: Cohort, locked: Collection[str]) -> tuple[str, ...]:
    """The ids of locked images that have a copy, or a patient, on the other side."""
    groups = {entry.group for entry in cohort.entries if entry.id not in locked}
    shared = {entry.id for entry in cohort.entries if entry.id in locked and entry.group in groups}
    return tuple(sorted(shared | (alike_across(cohort, locked) & set(locked))))


def _check_sides(table: LabelTable, held: LabelTable, kept: LabelTable) -> None:
    """Raises: DataError where a patient or equal files are on both sides, or a class on one only."""
    both = sorted({row.patient for row in held.rows} & {row.patient for row in kept.rows})
    if both:
        raise DataError(
            f"--split-file puts {counted(len(both), 'patient')} into test and elsewhere, '{both[0]}' the first; "
            f"expected each patient in one part. Correct the file."
        )
    # Patients are whole here, so a group of images crosses the border only where two files are equal.
    elsewhere = {_content(row): row.id for row in kept.rows}
    copies = [(row.id, elsewhere[content]) for row in held.rows if (content := _content(row)) in elsewhere]
    if copies:
        raise DataError(
            f"--split-file puts {counted(len(copies), 'image')} into test whose bytes are also elsewhere, "
            f"'{copies[0][0]}' and '{copies[0][1]}' the first; expected equal files in one "
            f"part. Correct the file, or remove the copies."
        )
    for name, side in {"the part 'test'": held, "what is left for the search": kept}.items():
        missing = sorted(set(table.classes) - set(side.classes))
        if missing:
            raise DataError(f"{name} of --split-file has no image of '{missing[0]}'; expected every class there.")


def has_part(table: LabelTable, part: str) -> bool:
    """Whether any image of a table is of a part."""
    return any(row.split == part for row in table.rows)
