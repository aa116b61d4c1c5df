"""Decodes a table's images into a cohort's folder, and says which of them cannot be used or must stay together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainables.data.cohort import COHORT_VERSION, PIXELS_FILE, Entry, write_table
from trainables.data.decoding import Bad, Decoded, OnProgress, decode_rows
from trainables.data.labels import Box, LabelledImage, LabelTable, check_classes
from trainables.data.near_duplicates import near_duplicates
from trainables.data.readers import Pixels, SliceRule
from trainables.errors import DataError

NAMED_BAD_IMAGES = 20
"""How many unreadable images one error names."""

_FIELDS = tuple(each.name for each in fields(Entry))


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


def build(
    building: Path,
    *,
    table: LabelTable,
    digest: str,
    slice_rule: SliceRule,
    is_phantom: bool,
    skip_bad_images: bool,
    on_progress: OnProgress | None,
) -> None:
    """Decode every image of a table into a folder, which is a cohort's afterwards.

    Args:
        building: an empty folder.
        table: the images.
        digest: of table, files and reading.
        slice_rule: which slice of a volume to read.
        is_phantom: whether the images are synthetic.
        skip_bad_images: go on without images that cannot be used.
        on_progress: called while images are decoded.

    Raises:
        DataError: images cannot be used, or not together.
    """
    kept: list[_Kept] = []
    bad: list[tuple[str, str]] = []
    n_values = 0
    with (building / PIXELS_FILE).open("wb") as stream:
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
    refuse_bad(bad, len(kept), table.source, skip_bad_images)
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
        "entries": [_plain(entry) for entry in _entries(kept, classes)],
    }
    write_table(building, content)


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


def refuse_bad(bad: Sequence[tuple[str, str]], n_good: int, source: str, skip_bad_images: bool) -> None:
    """Raises: DataError on bad images that are not to be skipped, or where none is left."""
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


def _plain(entry: Entry) -> Mapping[str, Any]:
    """Without the deep copies of ``asdict``: there are thousands."""
    return {name: getattr(entry, name) for name in _FIELDS}


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
