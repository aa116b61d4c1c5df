"""A cohort: the decoded data set, stored once and shared by every process of a machine as one memory map."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.digests import pixel_digest, plain_digest, text_digest
from trainables.data.labels import Box
from trainables.data.readers import Pixels
from trainables.errors import DataError

COHORT_VERSION = 1
"""Raised by hand when the stored form changes."""

TABLE_FILE = "cohort.json"
PIXELS_FILE = "pixels.npy"

_SEAL = "seal"
"""The first field of the table: the digest of what follows it. Tables of earlier days have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image of a cohort.

    Args:
        id: path relative to the data folder in POSIX form, or the name in an archive.
        label: index into the cohort's classes.
        patient: patient name; the id where patients are not known.
        group: images of one group share a fold: a patient's images, and those with equal pixels. Named after the
            alphabetically first patient in it.
        site: where the image was made, or "".
        split: "train", "val", "test", or "".
        roi: region of interest (x, y, w, h) in pixels.
        shape: (H, W).
        offset: where its pixels begin in the memory map, in values.
        spacing: (sy, sx) millimetres per pixel, or None.
        pixel_digest: 32 hexadecimal digits over shape and float32 values.
    """

    id: str
    label: int
    patient: str
    group: str
    site: str
    split: str
    roi: Box | None
    shape: tuple[int, int]
    offset: int
    spacing: tuple[float, float] | None
    pixel_digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """A decoded data set. Its pixels are a read-only memory map; pickling one passes its folder only.

    Args:
        folder: where it is stored.
        digest: 32 hexadecimal digits over file contents, labels table and reader options; also the folder's name.
        source: where the labels came from, for sentences: "labels.csv of data/fll".
        is_phantom: whether the images are synthetic.
        patients_known: False where every image counts as a patient of its own.
        classes: the class names, sorted.
        entries: the images, sorted by id.
        bad_images: (id, reason) of each image that was skipped.
        near_duplicates: pairs of ids of different patients that show nearly the same.
    """

    folder: Path
    digest: str
    source: str
    is_phantom: bool
    patients_known: bool
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    bad_images: tuple[tuple[str, str], ...]
    near_duplicates: tuple[tuple[str, str], ...]
    _values: Pixels = field(repr=False)

    @classmethod
    def load(cls, folder: Path) -> Cohort:
        """The cohort stored in a folder.

        Raises:
            DataError: there is none, or it is damaged.
        """
        try:
            data = read_table(folder)
            values = np.load(folder / PIXELS_FILE, mmap_mode="r", allow_pickle=False)
            if data["version"] != COHORT_VERSION or values.dtype != np.float32 or values.shape != (data["n_values"],):
                raise ValueError("another version, type or length")
            return cls(
                folder=folder,
                digest=data["digest"],
                source=data["source"],
                is_phantom=data["is_phantom"],
                patients_known=data["patients_known"],
                classes=tuple(data["classes"]),
                entries=tuple(_entry(each) for each in data["entries"]),
                bad_images=_pairs(data["bad_images"]),
                near_duplicates=_pairs(data["near_duplicates"]),
                _values=values,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unusable(folder, str(error)) from None

    def check(self) -> Cohort:
        """Itself, once all its pixels are found to be those that were decoded: they are read once, on all cores.

        A trial does without: it reads what the search has checked as it began.

        Raises:
            DataError: they are not.
        """
        fresh = Cohort.load(self.folder)  # whose map goes with it: this process is not to seem to hold all of it

        def is_whole(index: int) -> bool:
            try:
                return pixel_digest(fresh.pixels(index)) == self.entries[index].pixel_digest
            except ValueError:  # it would lie beyond the end
                return False

        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            for entry, whole in zip(self.entries, pool.map(is_whole, range(len(self))), strict=True):
                if not whole:
                    raise _unusable(self.folder, f"the pixels of '{entry.id}' have changed")
        return self

    def __reduce__(self) -> tuple[Callable[[Path], Cohort], tuple[Path]]:
        return Cohort.load, (self.folder,)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of images of each class."""
        return tuple(int(count) for count in np.bincount(self.labels, minlength=len(self.classes)))

    @property
    def labels(self) -> tuple[int, ...]:
        """The class index of each image."""
        return tuple(entry.label for entry in self.entries)

    @property
    def n_patients(self) -> int:
        """Number of patients; of images where patients are not known."""
        return len({entry.patient for entry in self.entries})

    def pixels(self, index: int) -> Pixels:
        """The image at a position, float32 (H, W) in the units of its file; read-only, not copied."""
        entry = self.entries[index]
        height, width = entry.shape
        return self._values[entry.offset : entry.offset + height * width].reshape(height, width)

    def content_digest(self, indices: Sequence[int]) -> str:
        """32 hexadecimal digits over everything that a computation can depend on that sees these images alone.

        Args:
            indices: positions; their order counts.
        """
        chosen = [self.entries[index] for index in indices]
        content = [
            [each.id, self.classes[each.label], each.patient, each.pixel_digest, each.shape, each.spacing, each.roi]
            for each in chosen
        ]
        return plain_digest([self.classes, content])


def read_table(folder: Path) -> Mapping[str, Any]:
    """What ``write_table`` wrote. Raises: OSError; ValueError, TypeError where it is not that."""
    text = (folder / TABLE_FILE).read_text(encoding="utf-8")
    first, _, rest = text.partition(", ")
    seal = re.fullmatch(rf'{{"{_SEAL}": "([0-9a-f]+)"', first)
    if seal is not None and seal[1] != text_digest("{" + rest):
        raise ValueError("its table has changed")
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("its table is none")
    return data


def write_table(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what a cohort says beside its pixels."""
    text = json.dumps({key: value for key, value in content.items() if key != _SEAL}, ensure_ascii=False)
    sealed = f'{{"{_SEAL}": "{text_digest(text)}", {text[1:]}'
    (folder / TABLE_FILE).write_text(sealed, encoding="utf-8")


def _unusable(folder: Path, reason: str) -> DataError:
    return DataError(f"'{folder}' holds no usable cohort ({reason}); delete it and read the data again.")


def _entry(data: Mapping[str, Any]) -> Entry:
    tuples = {name: tuple(data[name]) if data[name] is not None else None for name in ("roi", "shape", "spacing")}
    return Entry(**{**data, **tuples})


def _pairs(data: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((first, second) for first, second in data)
