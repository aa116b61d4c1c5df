"""Whether an image file is whole: SimpleITK reads some that are cut short, as zeros (NIfTI), grey (JPEG) or noise.

Each check raises DataError, in words that follow the file's name, on a file whose compressed data is damaged, or that
holds less than its header promises. MetaImage has its own, in ``meta_image``.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from trainables.errors import DataError

MAX_SIDE = 16384
MAX_VOXELS = MAX_SIDE**2
MAX_FILE_BYTES = 8 * 2**30

_PIECE_BYTES = 2**20
"""Inflated at a time."""


def cut_off(what: str) -> DataError:
    """What is said of a file that is not whole."""
    return DataError(f"is cut off or damaged ({what}); copy it again.")


def _beside_grey(channels: int) -> DataError:
    """What is said of a file that SimpleITK cannot read, or reads as noise."""
    return DataError(
        f"has {channels} channels, grey and alpha or another beside it; expected grey alone, RGB or RGBA. "
        f"Save it without alpha."
    )


def check_png(content: bytes, path: Path) -> None:
    """The last chunk must be there, and nothing beside grey.

    Source: PNG specification, IHDR and tRNS.
    """
    if b"IEND" not in content[-64:]:
        raise cut_off("no IEND chunk at its end")
    colour = content[25:26]
    if colour == b"\x04" or (colour == b"\0" and _has_transparency(content)):
        raise _beside_grey(2)


def _has_transparency(content: bytes) -> bool:
    """Whether a PNG has a tRNS chunk; its place is before the pixels."""
    start = 8
    while (name := content[start + 4 : start + 8]) not in (b"tRNS", b"IDAT", b""):
        start += 12 + int.from_bytes(content[start : start + 4], "big")
    return name == b"tRNS"


def check_jpeg(content: bytes, path: Path) -> None:
    """The end marker must follow the last scan; marker bytes cannot occur inside one."""
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise cut_off("no end-of-image marker after its last scan")


def check_tiff(content: bytes, path: Path) -> None:
    """Every strip or tile of the first directory must lie inside the file, and nothing beside grey or a palette."""
    try:
        tags = _tiff_tags(content)
    except (struct.error, OverflowError):  # the latter: an offset that no file has
        raise cut_off("its directory lies beyond its end") from None
    samples, photometric = (tags.get(tag, ())[:1] for tag in (277, 262))
    if samples > (1,) and photometric in ((0,), (1,), (3,)):
        raise _beside_grey(samples[0])
    offsets = tags.get(273, tags.get(324, ()))
    lengths = tags.get(279, tags.get(325, ()))
    end = max((offset + length for offset, length in zip(offsets, lengths, strict=False)), default=0)
    if end > len(content):
        raise cut_off(f"its pixels end at byte {end}, the file at {len(content)}")


def _tiff_tags(content: bytes) -> dict[int, tuple[int, ...]]:
    """The numbers of the first directory that say where the pixels are and what they mean.

    Source: TIFF 6.0, section 2, and the BigTIFF design of libtiff, whose counts and offsets have 8 bytes.
    """
    order = "<" if content[:2] == b"II" else ">"
    version = struct.unpack_from(f"{order}H", content, 2)[0]
    if version not in (42, 43):
        return {}  # libtiff says so
    entries, offset = ("Q", "Q") if version == 43 else ("H", "I")
    head, width = struct.calcsize(f"={entries}"), struct.calcsize(f"={offset}")
    start = struct.unpack_from(f"{order}{offset}", content, width)[0]
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(struct.unpack_from(f"{order}{entries}", content, start)[0]):
        entry = start + head + (4 + 2 * width) * index
        tag, kind, count = struct.unpack_from(f"{order}HH{offset}", content, entry)
        letter = {3: "H", 4: "I", 16: "Q"}.get(kind)
        if letter is None or tag not in (262, 273, 277, 279, 324, 325):
            continue
        value = entry + 4 + width
        is_inside = count * struct.calcsize(f"={letter}") <= width
        where = value if is_inside else struct.unpack_from(f"{order}{offset}", content, value)[0]
        tags[tag] = struct.unpack_from(f"{order}{count}{letter}", content, where)
    return tags


def check_dicom(content: bytes, path: Path) -> None:
    """Nothing to do: SimpleITK refuses DICOM files whose elements do not fit the file."""


def check_nifti(content: bytes, path: Path) -> None:
    """Compare the data with the header. Source: NIfTI-1 and NIfTI-2 header files, fields dim, bitpix, vox_offset."""
    zipped = content[:2] == b"\x1f\x8b"
    try:
        head = zlib.decompressobj(wbits=31).decompress(content, 544) if zipped else content[:544]
        order = "<" if struct.unpack_from("<i", head)[0] in (348, 540) else ">"
        if struct.unpack_from(f"{order}i", head)[0] == 540:
            bits, dims = struct.unpack_from(f"{order}h", head, 14)[0], struct.unpack_from(f"{order}8q", head, 16)
            start = struct.unpack_from(f"{order}q", head, 168)[0]
        else:
            dims, bits = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}h", head, 72)[0]
            start = int(struct.unpack_from(f"{order}f", head, 108)[0])
    except (struct.error, zlib.error, ValueError, OverflowError):  # the last two: an offset that is no number
        raise cut_off("its header cannot be read") from None
    if not 1 <= dims[0] <= 7 or bits < 0 or start < 0:
        raise cut_off("its header promises an impossible size")
    pixels = product([max(1, side) for side in dims[1 : 1 + dims[0]]])
    check_promise(pixels)
    expected = start + pixels * bits // 8
    found = inflated_size(content, expected, wbits=31) if zipped else len(content)
    if found < expected:
        raise cut_off(f"it holds {found} bytes, its header promises {expected}")


def check_promise(pixels: int) -> None:
    """Raises: DataError on a header that promises more than is read, before anything is inflated for it."""
    if pixels > MAX_VOXELS:
        raise DataError(f"promises {pixels} pixels; expected at most {MAX_VOXELS} in all. Make it smaller.")


def product(factors: Sequence[int]) -> int:
    """The bytes that a header promises, never wrapping around. Raises: DataError on negative or absurd numbers."""
    if any(factor < 0 for factor in factors) or len(factors) > 16 or max(factors, default=0) > 2**63:
        raise cut_off("its header promises an impossible size")
    return math.prod(factors)


def inflated_size(data: bytes, expected: int, *, wbits: int) -> int:
    """Bytes that compressed data inflates to; 0 where it is damaged or cut short.

    The stream is inflated to its checksum but never kept. It is given up, as large enough, where it grows past
    what the header promises.
    """
    inflater = zlib.decompressobj(wbits=wbits)
    found, rest, limit = 0, data, expected + _PIECE_BYTES
    try:
        while rest and not inflater.eof and found <= limit:
            found += len(inflater.decompress(rest, _PIECE_BYTES))
            rest = inflater.unconsumed_tail
    except zlib.error:
        return 0
    if found > limit:
        return expected
    return found if inflater.eof else 0
