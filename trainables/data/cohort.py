"""A cohort: the decoded data set, stored once and shared by every process of a machine as one memory map."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainables.data.decoding import Bad, Decoded, OnProgress, decode_rows
from trainables.data.labels import Box, LabelledImage, LabelTable, check_classes, read_labels
from trainables.data.near_duplicates import near_duplicates
from trainables.data.readers import MAX_FILE_BYTES, READER_VERSION, Pixels, SliceRule, companions
from trainables.data.untrusted import opened
from trainables.errors import DataError

COHORT_VERSION = 1
"""Raised by hand when the stored form changes."""

NAMED_BAD_IMAGES = 20
"""How many unreadable images one error names."""

READ_BYTES = 2**20
"""Of a file, at a time, where only its digest is wanted."""


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
            data = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
            values = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
            if data["version"] != COHORT_VERSION or data["n_values"] != len(values):
                raise ValueError("another version or length")
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
            raise DataError(
                f"'{folder}' holds no usable cohort ({error}); delete it and read the data again."
            ) from None

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
        return _digest([self.classes, content])


def read_cohort(
    data: Path,
    labels: Path | str | None = None,
    *,
    cache: Path,
    skip_bad_images: bool = False,
    slice_rule: SliceRule = None,
    is_phantom: bool = False,
    on_progress: OnProgress | None = None,
) -> Cohort:
    """Decode a data set, or load it if the same one has been decoded before.

    Args:
        data: a folder with a labels.csv, a folder of class folders, or a MedMNIST .npz.
        labels: another table than labels.csv.
        cache: the folder that holds decoded cohorts, each under its digest.
        skip_bad_images: go on without images that cannot be used, and record them in ``bad_images``.
        slice_rule: which slice of a volume to read: "middle", an index, or None to refuse volumes.
        is_phantom: whether the images are synthetic.
        on_progress: called while images are decoded.

    Returns:
        The cohort. It is written to a temporary folder and renamed: no half-written one is ever read.

    Raises:
        DataError: the labels or images cannot be used; up to 20 bad images are named at once.
    """
    return decode(
        read_labels(data, labels),
        cache=cache,
        skip_bad_images=skip_bad_images,
        slice_rule=slice_rule,
        is_phantom=is_phantom,
        on_progress=on_progress,
    )


def table_digest(table: LabelTable, *, slice_rule: SliceRule = None, is_phantom: bool = False) -> str:
    """32 hexadecimal digits over the bytes of a table's files, the table and the reader's options; decodes nothing."""
    files = sorted({file for row in table.rows for file in files_of(row)} or {table.data})
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        contents = dict(zip(files, pool.map(file_digest, files), strict=True))
    rows = [
        [row.id, row.label, row.patient, row.site, row.split, row.roi, [contents[file] for file in files_of(row)]]
        for row in table.rows
    ]
    versions = [READER_VERSION, COHORT_VERSION, is_phantom, None if slice_rule is None else str(slice_rule)]
    return _digest([versions, table.patients_known, rows, contents.get(table.data)])


def decode(
    table: LabelTable,
    *,
    cache: Path,
    skip_bad_images: bool = False,
    slice_rule: SliceRule = None,
    is_phantom: bool = False,
    on_progress: OnProgress | None = None,
) -> Cohort:
    """Decode the images of a table, or load them if the same ones have been decoded before. See ``read_cohort``."""
    digest = table_digest(table, slice_rule=slice_rule, is_phantom=is_phantom)
    folder = cache / digest
    if folder.is_dir():
        cohort = _load_or_discard(folder)
        if cohort is not None:
            _refuse_bad(cohort.bad_images, len(cohort), cohort.source, skip_bad_images)
            return replace(cohort, source=table.source)
    cache.mkdir(parents=True, exist_ok=True)
    building = cache / f".{digest}-{secrets.token_hex(4)}"
    building.mkdir()
    try:
        _build(building, table, digest, slice_rule, is_phantom, skip_bad_images, on_progress)
        _publish(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Cohort.load(folder)


def _load_or_discard(folder: Path) -> Cohort | None:
    """A stored cohort; a damaged one is moved away to be read anew."""
    try:
        return Cohort.load(folder)
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _publish(building: Path, folder: Path) -> None:
    """Rename a finished cohort into place; who loses the race uses the winner's."""
    try:
        building.rename(folder)
    except OSError:
        if not (folder / "cohort.json").is_file():
            raise


def files_of(row: LabelledImage) -> tuple[Path, ...]:
    """Every file that an image is read from; none for an archive's. A broken header is reported by the decoder."""
    if row.path is None:
        return ()
    masks = (row.mask,) if row.mask else ()
    try:
        return (*companions(row.path), *masks)
    except (DataError, OSError):
        return (row.path, *masks)


def file_digest(path: Path) -> str:
    """Digest of a file's bytes; a file that cannot be opened is reported by the decoder."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with opened(path, most=MAX_FILE_BYTES) as (stream, size):
            while size > 0 and (piece := stream.read(min(size, READ_BYTES))):
                digest.update(piece)
                size -= len(piece)
    except (DataError, OSError) as error:
        return f"unreadable: {error}"
    return digest.hexdigest()


def _digest(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Kept:
    """What is kept of a decoded image once its pixels are written."""

    row: LabelledImage
    roi: Box | None
    shape: tuple[int, int]
    offset: int
    spacing: tuple[float, float] | None
    channels: int
    pixel_digest: str
    thumbnail_HW: Pixels


def _build(
    building: Path,
    table: LabelTable,
    digest: str,
    slice_rule: SliceRule,
    is_phantom: bool,
    skip_bad_images: bool,
    on_progress: OnProgress | None,
) -> None:
    """Decode every image into a folder."""
    kept: list[_Kept] = []
    bad: list[tuple[str, str]] = []
    n_values = 0
    with (building / "pixels.npy").open("wb") as stream:
        header_size = _write_npy_header(stream, 0)
        with closing(decode_rows(table, slice_rule, on_progress)) as images:
            for decoded in images:
                if isinstance(decoded, Bad):
                    bad.append((decoded.id, decoded.reason))
                    continue
                stream.write(decoded.pixels_HW.data)
                kept.append(_kept(decoded, offset=n_values))
                n_values += decoded.pixels_HW.size
        stream.seek(0)
        if _write_npy_header(stream, n_values) != header_size:
            raise RuntimeError("the header of pixels.npy changed its size; numpy's format has changed.")
    _refuse_bad(bad, len(kept), table.source, skip_bad_images)
    _refuse_mixed_channels(kept, table.source)
    classes = tuple(sorted({each.row.label for each in kept}))
    check_classes(classes, table.source)
    content = {
        "version": COHORT_VERSION,
        "digest": digest,
        "source": table.source,
        "is_phantom": is_phantom,
        "patients_known": table.patients_known,
        "classes": classes,
        "n_values": n_values,
        "bad_images": bad,
        "near_duplicates": _near_duplicate_ids(kept),
        "entries": [asdict(entry) for entry in _entries(kept, classes)],
    }
    (building / "cohort.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _kept(image: Decoded, *, offset: int) -> _Kept:
    height, width = image.pixels_HW.shape
    return _Kept(
        row=image.row,
        roi=image.roi,
        shape=(height, width),
        offset=offset,
        spacing=image.spacing,
        channels=image.channels,
        pixel_digest=image.pixel_digest,
        thumbnail_HW=image.thumbnail_HW,
    )


def _write_npy_header(stream: BinaryIO, n_values: int) -> int:
    """Write the header of a flat float32 array; numpy leaves room in it for the length to grow."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (n_values,)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.tell()


def _refuse_bad(bad: Sequence[tuple[str, str]], n_good: int, source: str, skip_bad_images: bool) -> None:
    if not bad or (skip_bad_images and n_good):
        return
    named = "\n".join(f"  {name}: {reason}" for name, reason in bad[:NAMED_BAD_IMAGES])
    more = f"\n  and {len(bad) - NAMED_BAD_IMAGES} more" if len(bad) > NAMED_BAD_IMAGES else ""
    advice = "Mend them, or use --skip-bad-images to go on without them" if n_good else "None is left to go on with"
    raise DataError(f"{len(bad)} of {len(bad) + n_good} images cannot be used ({source}). {advice}:\n{named}{more}")


def _refuse_mixed_channels(kept: Sequence[_Kept], source: str) -> None:
    first = {each.channels: each.row.id for each in reversed(kept)}
    if len(first) > 1:
        raise DataError(
            f"the images mix colour ('{first[3]}') and grey ('{first[1]}') ({source}); expected all colour or all "
            f"grey, as colour may give a class away. Convert one kind to the other."
        )


def _near_duplicate_ids(kept: Sequence[_Kept]) -> list[tuple[str, str]]:
    pairs = near_duplicates(np.stack([each.thumbnail_HW for each in kept]), [each.row.patient for each in kept])
    return [(kept[left].row.id, kept[right].row.id) for left, right in pairs]


def _entries(kept: Sequence[_Kept], classes: Sequence[str]) -> Iterator[Entry]:
    groups = group_names([each.row.patient for each in kept], [each.pixel_digest for each in kept])
    for each, group in zip(kept, groups, strict=True):
        yield Entry(
            id=each.row.id,
            label=classes.index(each.row.label),
            patient=each.row.patient,
            group=group,
            site=each.row.site,
            split=each.row.split,
            roi=each.roi,
            shape=each.shape,
            offset=each.offset,
            spacing=each.spacing,
            pixel_digest=each.pixel_digest,
        )


def group_names(patients: Sequence[str], pixel_digests: Sequence[str]) -> list[str]:
    """Which images must share a fold: those of one patient, those with equal pixels, and so on through both.

    Args:
        patients: N names.
        pixel_digests: N digests.

    Returns:
        N group names: the alphabetically first patient of each group, whatever the order of the images.
    """
    parent: dict[str, str] = {patient: patient for patient in patients}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    owner: dict[str, str] = {}
    for patient, pixel_digest in zip(patients, pixel_digests, strict=True):
        one, other = sorted((root(owner.setdefault(pixel_digest, patient)), root(patient)))
        parent[other] = one
    return [root(patient) for patient in patients]


def _entry(data: Mapping[str, Any]) -> Entry:
    tuples = {name: tuple(data[name]) if data[name] is not None else None for name in ("roi", "shape", "spacing")}
    return Entry(**{**data, **tuples})


def _pairs(data: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((first, second) for first, second in data)
