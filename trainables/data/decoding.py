"""Decodes images in worker processes, and prepares them: a file that crashes or hangs its decoder is one bad image."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainables.data.archives import npz_picture, read_npz_pictures
from trainables.data.digests import pixel_digest
from trainables.data.labels import Box, LabelledImage, LabelTable
from trainables.data.limits import in_words, limits
from trainables.data.near_duplicates import THUMBNAIL, thumbnail
from trainables.data.readers import Pixels, SliceRule, import_simpleitk, read_mask_box, read_picture
from trainables.data.resampling import Frame, Preparation
from trainables.data.sandbox import Answer, Failure, Request, Sandbox
from trainables.errors import DataError

CHUNK = 64
"""Images decoded and not yet written: bounds the memory that decoding takes."""

WORKERS = 16
IMAGES_PER_WORKER = 32
"""For fewer images another worker is not worth its start."""

OnProgress: TypeAlias = Callable[[int, int], None]
"""Called with (images decoded, images in all)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """A decoded image and what is known of it.

    Args:
        row: its row in the table.
        pixels_HW: float32, in the units of the file.
        roi: region of interest (x, y, w, h), or None.
        spacing: (sy, sx) millimetres per pixel, or None.
        channels: 1 or 3, colour channels in the file.
        pixel_digest: 32 hexadecimal digits over shape and float32 values.
        thumbnail_HW: float32, as ``near_duplicates`` compares them.
    """

    row: LabelledImage
    pixels_HW: Pixels
    roi: Box | None
    spacing: tuple[float, float] | None
    channels: int
    pixel_digest: str
    thumbnail_HW: Pixels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """An image as a classifier sees it, and what is known of its file.

    Args:
        image_PP: float32 in [-1, 1].
        has_region: whether it was cut to a region of interest.
        has_spacing: whether the file says how large its pixels are.
        pixel_digest: of the whole image, as ``Decoded`` has it; "" where nobody asked.
    """

    image_PP: Pixels
    has_region: bool = False
    has_spacing: bool = False
    pixel_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """An image that cannot be used, and why."""

    id: str
    reason: str


def decode_rows(
    table: LabelTable, slice_rule: SliceRule, on_progress: OnProgress | None
) -> Generator[Decoded | Bad, None, None]:
    """Every row, decoded, in order, with at most ``CHUNK`` pictures in memory.

    Raises:
        DataError: the archive cannot be used, or no process that decodes can be started.
    """
    with closing(_outcomes(table, slice_rule, None)) as outcomes:
        for number, (row, outcome) in enumerate(zip(table.rows, outcomes, strict=True), start=1):
            yield outcome if isinstance(outcome, Bad) else _decoded(row, outcome)
            if on_progress is not None and (number % CHUNK == 0 or number == len(table.rows)):
                on_progress(number, len(table.rows))


def prepare_rows(
    table: LabelTable, slice_rule: SliceRule, preparation: Preparation
) -> Generator[Prepared | Bad, None, None]:
    """Every row as a classifier sees it, in order: prepared where it is decoded, so that no large image travels.

    Raises:
        DataError: the archive cannot be used, or no process that decodes can be started.
    """
    with closing(_outcomes(table, slice_rule, preparation)) as outcomes:
        for outcome in outcomes:
            yield outcome if isinstance(outcome, Bad) else _prepared(outcome, preparation.pixels)


def _outcomes(
    table: LabelTable, slice_rule: SliceRule, preparation: Preparation | None
) -> Generator[Answer | Bad, None, None]:
    """What the workers say of every row, in order."""
    in_archive = table.rows[0].path is None
    workers = 1 if in_archive else min(_cores(), WORKERS, -(-len(table.rows) // IMAGES_PER_WORKER))
    with Sandbox("trainables.data.decoding:decoder", workers=workers) as sandbox:
        if in_archive:
            _check_archive(table, sandbox)
        requests = (_request(table, row, slice_rule, preparation) for row in table.rows)
        for row, outcome in zip(table.rows, sandbox.map(requests, ahead=CHUNK), strict=True):
            if isinstance(outcome, Failure):
                yield Bad(id=row.id, reason=in_words(outcome))
            elif "bad" in outcome.content:
                yield Bad(id=row.id, reason=outcome.content["bad"])
            else:
                yield outcome


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _request(table: LabelTable, row: LabelledImage, slice_rule: SliceRule, preparation: Preparation | None) -> Request:
    if row.path is None:
        content: dict[str, Any] = {"archive": str(table.data), "split": row.split, "index": _index(row)}
    else:
        content = {"path": str(row.path), "mask": str(row.mask) if row.mask else None, "slice": slice_rule}
    seconds, memory = limits(row.path or table.data)
    content["roi"] = row.roi
    content["preparation"] = None if preparation is None else preparation.to_dict()
    return Request(content=content, seconds=seconds, memory=memory)


def _index(row: LabelledImage) -> int:
    return int(row.id.rpartition("/")[2])


def _check_archive(table: LabelTable, sandbox: Sandbox) -> None:
    seconds, memory = limits(table.data)
    request = Request(content={"archive": str(table.data)}, seconds=seconds, memory=memory)
    (outcome,) = sandbox.map([request], ahead=1)
    if isinstance(outcome, Failure):
        raise DataError(f"'{table.data}' {in_words(outcome)}")
    if "bad" in outcome.content:
        raise DataError(outcome.content["bad"])
    labelled = {split: sum(row.split == split for row in table.rows) for split in {row.split for row in table.rows}}
    for split, count in sorted(labelled.items()) if table.is_whole else ():
        found = outcome.content["lengths"].get(split, 0)
        if found != count:
            raise DataError(f"'{table.data}' has {count} {split}_labels and {found} {split}_images; expected as many.")


def _decoded(row: LabelledImage, answer: Answer) -> Decoded:
    found = answer.content
    pixels, small = answer.blobs
    return Decoded(
        row=row,
        pixels_HW=np.frombuffer(pixels, dtype=np.float32).reshape(found["shape"]),
        roi=None if found["roi"] is None else _box(found["roi"]),
        spacing=None if found["spacing"] is None else (found["spacing"][0], found["spacing"][1]),
        channels=found["channels"],
        pixel_digest=found["digest"],
        thumbnail_HW=np.frombuffer(small, dtype=np.float32).reshape(THUMBNAIL, THUMBNAIL),
    )


def _prepared(answer: Answer, pixels: int) -> Prepared:
    found = answer.content
    (image,) = answer.blobs
    return Prepared(
        image_PP=np.frombuffer(image, dtype=np.float32).reshape(pixels, pixels),
        has_region=found["roi"] is not None,
        has_spacing=found["spacing"] is not None,
        pixel_digest=found["digest"],
    )


def _box(numbers: Sequence[int]) -> Box:
    x, y, width, height = numbers
    return x, y, width, height


def decoder() -> Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], Sequence[bytes | memoryview]]]:
    """What a worker calls for each request, once SimpleITK is imported (archives do without it)."""
    if importlib.util.find_spec("SimpleITK") is not None:
        import_simpleitk()
    return decoded


def decoded(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[bytes | memoryview]]:
    """Decode one image: in a worker.

    Args:
        request: ``path``, ``mask``, ``slice``, ``roi`` and maybe ``preparation``; or ``archive``, ``split``, ``index``,
            ``roi`` and ``preparation``; or ``archive`` alone.

    Returns:
        ``shape``, ``roi``, ``spacing``, ``channels`` and ``digest``, with the bytes of the prepared image, or, where
        there is no preparation, of pixels and thumbnail; or ``lengths``, images of each part of the archive; or
        ``bad``, a reason.
    """
    try:
        if "archive" in request and "split" not in request:
            archive = _archive(request["archive"])
            return {"lengths": {split: len(images) for split, images in archive.items()}}, ()
        return _picture(request)
    except (DataError, OSError) as error:
        return {"bad": str(error)}, ()


def _picture(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[bytes | memoryview]]:
    roi = request["roi"]
    if "archive" in request:
        picture = npz_picture(_archive(request["archive"])[request["split"]][request["index"]])
    else:
        picture = read_picture(Path(request["path"]), slice_rule=request["slice"])
    height, width = picture.pixels_HW.shape
    if request.get("mask"):
        roi = read_mask_box(Path(request["mask"]), shape=(height, width), slice_rule=request["slice"])
    if roi is not None and (roi[0] + roi[2] > width or roi[1] + roi[3] > height):
        raise DataError(f"has the roi {tuple(roi)} outside its {width}x{height} pixels (x, y, w, h); correct the roi.")
    head = {
        "shape": (height, width),
        "roi": roi,
        "spacing": picture.spacing,
        "channels": picture.channels,
        "digest": pixel_digest(picture.pixels_HW),
    }
    pixels_HW = np.ascontiguousarray(picture.pixels_HW)
    preparation = request.get("preparation")
    if preparation is None:
        return head, (pixels_HW.data.cast("B"), thumbnail(pixels_HW).tobytes())
    frame = Frame(shape=(height, width), spacing=picture.spacing, roi=roi)
    return head, (Preparation.from_dict(preparation).apply(pixels_HW, frame).tobytes(),)


@lru_cache(maxsize=1)
def _archive(path: str) -> Mapping[str, NDArray[Any]]:
    """The pictures of an archive, kept in the worker."""
    return read_npz_pictures(Path(path))
