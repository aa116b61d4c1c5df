"""MetaImage files (.mha, .mhd): their header, whether their pixels are whole, and pixels that need no second reading.

Whether compressed pixels are whole shows only when they are inflated. SimpleITK would inflate them again, which is
half of what reading such a file takes; so where nothing but the common fields stand in the header, and SimpleITK has
read the same of it, the inflated bytes are the pixels.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.format_checks import MAX_FILE_BYTES, check_promise, cut_off, inflated_size, product
from trainables.data.untrusted import opened, quoted, read_bytes, why_not_regular
from trainables.errors import DataError

MAX_HEADER_BYTES = 2**20

KEPT_BYTES = 2**26
"""The most that is kept of what a check inflates; larger pictures are inflated twice."""

ELEMENT_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip

_SIMPLE_TYPES = {
    "MET_CHAR": ("8-bit signed integer", "<i1"),
    "MET_UCHAR": ("8-bit unsigned integer", "<u1"),
    "MET_SHORT": ("16-bit signed integer", "<i2"),
    "MET_USHORT": ("16-bit unsigned integer", "<u2"),
    "MET_INT": ("32-bit signed integer", "<i4"),
    "MET_UINT": ("32-bit unsigned integer", "<u4"),
    "MET_FLOAT": ("32-bit float", "<f4"),
    "MET_DOUBLE": ("64-bit float", "<f8"),
}
_SIMPLE_FIELDS = {
    "ObjectType": "Image",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "True",
    "ElementDataFile": "LOCAL",
}
"""What these have to say, and that they are there."""
_HARMLESS_FIELDS = frozenset(
    {
        *("NDims", "DimSize", "ElementType", "ElementSpacing", "CompressedDataSize"),
        *("TransformMatrix", "Offset", "CenterOfRotation", "AnatomicalOrientation"),
    }
)
"""What else may stand there; SimpleITK says what it has understood of them."""


def data_file_of(path: Path) -> Path:
    """The file that holds the pixels of a .mhd header. Raises: DataError, OSError where it names none that may."""
    with opened(path, most=MAX_FILE_BYTES) as (stream, _):
        header = _header(stream.read(MAX_HEADER_BYTES))[0]
    return _data_file(path, header["ElementDataFile"])


def check_meta(content: bytes, path: Path) -> bytes | None:
    """Compare the data with the header.

    Returns:
        What compressed pixels inflate to; None where they are not compressed, of another size than the header
        promises, or more than ``KEPT_BYTES``.

    Raises:
        DataError: not whole, or of a kind that is not read.
    """
    header, end = _header(content)
    name = header["ElementDataFile"]
    data = content[end:] if name == "LOCAL" else read_bytes(_data_file(path, name), most=MAX_FILE_BYTES)
    bytes_each = ELEMENT_BYTES.get(header.get("ElementType", "").removesuffix("_ARRAY"))
    if header.get("BinaryData", "True").lower() != "true" or bytes_each is None:
        kind = quoted(header.get("ElementType", ""))
        raise DataError(f"has elements of type {kind} or is text; expected binary numbers.")
    try:
        sides = [int(side) for side in header.get("DimSize", "0").split()]
        channels = int(header.get("ElementNumberOfChannels", 1))
    except ValueError:
        raise cut_off("its header's DimSize or ElementNumberOfChannels is no number") from None
    check_promise(product(sides))
    expected = product([*sides, channels, bytes_each])
    kept = None
    if header.get("CompressedData", "False").lower() == "true":
        kept = _inflated(data, expected)
        found = inflated_size(data, expected, wbits=zlib.MAX_WBITS | 32) if kept is None else len(kept)
    else:
        found = len(data)
    if found < expected:
        raise cut_off(f"it holds {found} bytes of pixels, its header promises {expected}")
    return kept


def simple_pixels(
    content: bytes, inflated: bytes, *, size: Sequence[int], element: str, is_placed: bool
) -> NDArray[Any] | None:
    """The pixels of a file whose header says only what is common, as SimpleITK would read them.

    Args:
        content: the file.
        inflated: from ``check_meta``.
        size: (W, H) or (W, H, D) as SimpleITK has read it.
        element: the kind of its pixels as SimpleITK names it, "16-bit signed integer".
        is_placed: whether SimpleITK has read a spacing and directions that it accepts for an image.

    Returns:
        An array HW or DHW; None where SimpleITK has to read them.
    """
    end = _header(content)[1]
    lines = content[:end].split(b"\n")[:-1]
    if not all(re.fullmatch(rb"[A-Za-z]+ = [!-~][ -~]*", line) for line in lines):
        return None
    header = dict(line.decode("ascii").split(" = ", 1) for line in lines)
    known, dtype = _SIMPLE_TYPES.get(header.get("ElementType", ""), ("", ""))
    is_simple = (
        len(header) == len(lines)
        and not header.keys() - _SIMPLE_FIELDS.keys() - _HARMLESS_FIELDS
        and all(header.get(field) == value for field, value in _SIMPLE_FIELDS.items())
        and header.get("CompressedDataSize") == str(len(content) - end)
        and header.get("NDims") == str(len(size))
        and header.get("DimSize") == " ".join(map(str, size))
    )
    if not is_simple or not is_placed or len(size) not in (2, 3) or element != known:
        return None
    return np.frombuffer(inflated, dtype=dtype).reshape(tuple(size)[::-1])


def _inflated(data: bytes, expected: int) -> bytes | None:
    """What compressed data inflates to; None where that is another size, too much to keep, or not the whole data."""
    if expected > KEPT_BYTES:
        return None
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        kept = inflater.decompress(data, expected + 1)
    except zlib.error:
        return None
    if not inflater.eof:  # all bytes may be there and the checksum not yet read
        return None
    return kept if len(kept) == expected and not inflater.unused_data else None


def _header(content: bytes) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header and where it ends; ElementDataFile is its last line."""
    marker = content.find(b"ElementDataFile", 0, MAX_HEADER_BYTES)
    end = content.find(b"\n", marker) if marker >= 0 else -1
    if marker < 0:
        raise cut_off("its header has no ElementDataFile line")
    end = len(content) if end < 0 else end + 1
    if end > MAX_HEADER_BYTES:
        raise cut_off("its header does not end")
    pairs = (line.partition("=") for line in content[:end].decode("latin-1").split("\n"))
    header = {key.strip(): value.strip() for key, _, value in pairs}
    if "ElementDataFile" not in header:  # SimpleITK would go on to another line, and open what that names
        raise cut_off("its first ElementDataFile is none that names a file")
    return header, end


def _data_file(path: Path, name: str) -> Path:
    """The data file that a header names; it has to lie in the header's own folder."""
    data_file = path.parent / name
    try:
        outside = not name or data_file.resolve().parent != path.resolve().parent
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a loop of links
        outside = True
    if outside:
        raise DataError(f"names {quoted(name)} as its data file; expected a single file in the header's own folder.")
    reason = why_not_regular(data_file)
    if reason is not None:
        raise DataError(f"names the data file {quoted(name)}, which {reason}; copy it beside the header.")
    return data_file
