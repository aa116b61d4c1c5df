"""Reads a data set: its images are decoded once on a machine, and found again by the digest of what they are read from.

What has been decoded lies in a folder of the storage (``cohort``). Where it is not, another storage of the machine may
have it (``elsewhere``); else it is decoded, by one process at a time. It is written to a temporary folder and renamed:
no half-written cohort is ever read. As a search begins every pixel is compared with its digest, so that a damaged
cohort is found then, and made anew.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from trainables.data import elsewhere
from trainables.data.cohort import COHORT_VERSION, PIXELS_FILE, TABLE_FILE, Cohort, read_table, write_table
from trainables.data.cohort_building import build, refuse_bad
from trainables.data.decoding import OnProgress
from trainables.data.digests import file_digest, plain_digest
from trainables.data.labels import LabelledImage, LabelTable, read_labels
from trainables.data.readers import SliceRule, companions, reader_version
from trainables.errors import DataError
from trainables.files import temporary_for, writer_of
from trainables.leases import Lease, held, is_gone

_POLL_SECONDS = 0.2


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
        The cohort, its pixels checked.

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
    cohort = _stored(cache / digest)
    if cohort is None:
        decode_into = partial(
            build,
            table=table,
            digest=digest,
            slice_rule=slice_rule,
            is_phantom=is_phantom,
            skip_bad_images=skip_bad_images,
            on_progress=on_progress,
        )
        cohort = _made(table, digest, cache, decode_into)
    refuse_bad(cohort.bad_images, len(cohort), table.source, skip_bad_images)
    elsewhere.note(digest, cohort.folder)
    return replace(cohort, source=table.source)


def table_digest(table: LabelTable, *, slice_rule: SliceRule = None, is_phantom: bool = False) -> str:
    """32 hexadecimal digits over the bytes of a table's files, the table and the reader's options; decodes nothing."""
    files_of_rows = [files_of(row) for row in table.rows]
    files = list(dict.fromkeys(file for its in files_of_rows for file in its)) or [table.data]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        contents = dict(zip(files, pool.map(file_digest, files), strict=True))
    rows = [
        [row.id, row.label, row.patient, row.site, row.split, row.roi, [contents[file] for file in its]]
        for row, its in zip(table.rows, files_of_rows, strict=True)
    ]
    versions = [reader_version(files), COHORT_VERSION, is_phantom, None if slice_rule is None else str(slice_rule)]
    return plain_digest([versions, table.patients_known, rows, contents.get(table.data)])


def files_of(row: LabelledImage) -> tuple[Path, ...]:
    """Every file that an image is read from; none for an archive's. A broken header is reported by the decoder."""
    if row.path is None:
        return ()
    masks = (row.mask,) if row.mask else ()
    try:
        return (*companions(row.path), *masks)
    except (DataError, OSError):
        return (row.path, *masks)


def _stored(folder: Path) -> Cohort | None:
    """The cohort in a folder, checked; None if there is none or it is damaged."""
    if not folder.is_dir():
        return None
    try:
        return Cohort.load(folder).check()
    except DataError:
        return None


def _made(table: LabelTable, digest: str, cache: Path, decode_into: Callable[[Path], None]) -> Cohort:
    """Take a cohort over from another storage, or decode it, while no other process does."""
    folder = cache / digest
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f".{digest}.lease"):
        cohort = _stored(folder)
        if cohort is not None:
            return cohort
        _sweep(cache)
        _discard(folder)
        if not any(_taken_over(source, table, digest, folder) for source in elsewhere.folders(digest)):
            with _building(folder) as building:
                decode_into(building)
        return Cohort.load(folder)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lease, once it is free."""
    lease = Lease(path)
    while not lease.try_acquire():
        time.sleep(_POLL_SECONDS)
    with held(lease):
        yield


@contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """An empty folder that takes its place once it holds a cohort; nothing is left of it where it does not."""
    building = temporary_for(folder)
    building.mkdir()
    try:
        yield building
        _settle(building)
        _publish(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _taken_over(source: Path, table: LabelTable, digest: str, folder: Path) -> bool:
    """Whether a cohort could be taken over from another folder."""
    try:
        with _building(folder) as building:
            write_table(building, {**read_table(source), "source": table.source})
            elsewhere.link_or_copy(source / PIXELS_FILE, building / PIXELS_FILE)
            if Cohort.load(building).check().digest != digest:
                raise ValueError("another cohort than the note says")
    except (DataError, OSError, ValueError, TypeError):
        return False
    return True


def _settle(building: Path) -> None:
    """Have a cohort on the disk before its name is, and forbid to write into it: memory maps show what is written."""
    for name in (PIXELS_FILE, TABLE_FILE):
        with (building / name).open("rb") as file:
            os.fsync(file.fileno())
    with suppress(OSError):  # not every file system has modes
        for name in (PIXELS_FILE, TABLE_FILE):
            (building / name).chmod(elsewhere.readable_mode(building))
        building.chmod(stat.S_IMODE(building.stat().st_mode) & ~elsewhere.OTHERS_WRITE)


def _publish(building: Path, folder: Path) -> None:
    """Rename a finished cohort into place; who loses the race uses the winner's."""
    try:
        building.rename(folder)
    except OSError:
        if _stored(folder) is None:
            raise


def _discard(folder: Path) -> None:
    """Move a damaged cohort away, if there is one, and delete it; who maps it keeps it."""
    aside = temporary_for(folder)
    with suppress(OSError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Delete what processes of this machine that are gone have left half-written."""
    for path in cache.glob(".*.tmp"):
        if is_gone(writer_of(path)):
            shutil.rmtree(path, ignore_errors=True)
