"""One reader for every image format: a file becomes a grey picture and, where the format has one, its pixel spacing.

The rules, alike for every format:

- Colour becomes grey by ITU-R 601 luma; an alpha channel is ignored.
- Values are those of the file (after a DICOM or NIfTI file's own rescaling) as float32; signed and unsigned 16 bit
  are kept. Contrast is a matter of the percentiles fitted later.
- DICOM MONOCHROME1 (low is bright) is inverted within the range of its stored bits; SimpleITK does it.
- The picture lies as it is stored; nothing is reoriented.
- A volume of one slice is a picture. Of more slices the reader takes none by guess: ``slice_rule`` says which.
- PNG, JPEG and TIFF have no physical spacing; their resolution tags are about printing. Neither has a DICOM file
  without the pixel spacing attribute.
- Files that are cut short or whose compressed data is damaged are refused. SimpleITK alone reads some of them as
  zeros (NIfTI), as grey (JPEG) or as noise (compressed MetaImage).
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from trainables.data.untrusted import opened, quoted, read_bytes, why_not_regular
from trainables.errors import DataError

READER_VERSION = 1
"""Raised by hand when the same file is read into other numbers; stored cohorts are then read anew."""

MIN_SIDE = 8
MAX_SIDE = 16384
MAX_VOXELS = MAX_SIDE**2
MAX_FILE_BYTES = 8 * 2**30
MAX_HEADER_BYTES = 2**20

Pixels: TypeAlias = NDArray[np.float32]
SliceRule: TypeAlias = str | int | None
"""Which slice of a volume to read: "middle", a 0-based index (also as text), or None to refuse volumes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A decoded image.

    Args:
        pixels_HW: float32, finite, in the units of the file.
        spacing: (sy, sx) millimetres per pixel; None where the format has no physical spacing.
        channels: 1 or 3, colour channels in the file.
    """

    pixels_HW: Pixels
    spacing: tuple[float, float] | None
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """How one format is decoded: SimpleITK's plug-in, how its files begin, and whether a spacing is meant."""

    image_io: str
    magic: tuple[bytes, ...]
    has_spacing: bool
    check: Callable[[bytes, Path], None]


def format_of(path: Path) -> str | None:
    """The supported extension that a file name ends in, such as ".nii.gz"; None for any other file."""
    name = path.name.lower()
    return next((extension for extension in EXTENSIONS if name.endswith(extension)), None)


def read_picture(path: Path, *, slice_rule: SliceRule = None) -> Picture:
    """Decode one image file.

    Args:
        path: a file whose name ends in one of ``EXTENSIONS``.
        slice_rule: which slice of a volume to take: "middle", a 0-based index, or None to refuse volumes.

    Returns:
        The picture, at least ``MIN_SIDE`` pixels a side, neither constant nor with NaN or infinite values.

    Raises:
        DataError: the file cannot be used; the sentence begins with the reason, without the file's name.
    """
    picture = _decode(path, slice_rule)
    if not np.isfinite(picture.pixels_HW).all():
        raise DataError("has NaN or infinite pixels; expected finite numbers.")
    if picture.pixels_HW.min() == picture.pixels_HW.max():
        raise DataError(f"has the same value {picture.pixels_HW.flat[0]:g} in every pixel; expected a picture.")
    return picture


def read_mask_box(path: Path, *, shape: tuple[int, int], slice_rule: SliceRule = None) -> tuple[int, int, int, int]:
    """The bounding box (x, y, width, height) of a mask's non-zero pixels.

    Args:
        path: the mask, in any supported format.
        shape: (height, width) of the image that it belongs to.
        slice_rule: as for the image.

    Raises:
        DataError: unreadable, another shape than the image's, or nothing but zeros.
    """
    pixels_HW = _decode(path, slice_rule).pixels_HW
    if pixels_HW.shape != shape:
        raise DataError(f"its mask '{path.name}' is {_size(pixels_HW.shape)}; expected {_size(shape)} as the image.")
    rows, columns = np.nonzero(pixels_HW)
    if not len(rows):
        raise DataError(f"its mask '{path.name}' is zero everywhere; expected a marked region.")
    top, left = int(rows.min()), int(columns.min())
    return left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1


def companions(path: Path) -> tuple[Path, ...]:
    """Every file that holds a part of the image: itself and, for a MetaImage header, its data file."""
    if format_of(path) != ".mhd":
        return (path,)
    with opened(path, most=MAX_FILE_BYTES) as (stream, _):
        header = _meta_header(stream.read(MAX_HEADER_BYTES))[0]
    return path, _meta_data_file(path, header["ElementDataFile"])


def _decode(path: Path, slice_rule: SliceRule) -> Picture:
    extension = format_of(path)
    if extension is None:
        raise DataError(f"is no supported image file; expected a name in {', '.join(EXTENSIONS)}.")
    form = FORMATS[extension]
    content = read_bytes(path, most=MAX_FILE_BYTES)
    if not content:
        raise DataError("is empty (0 bytes); copy it again.")
    if form.magic and not any(content.startswith(each) for each in form.magic):
        raise DataError(f"does not begin as a {extension} file does; rename it after what it is, or convert it.")
    form.check(content, path)
    reader = _open(path, form.image_io)
    try:
        image = reader.Execute()
        array = import_simpleitk().GetArrayFromImage(image)
    except RuntimeError as error:
        raise DataError(f"cannot be decoded ({_reason(error)}); copy it again or convert it.") from None
    channels = image.GetNumberOfComponentsPerPixel()
    pixels = grey(array, channels) if channels > 1 else _real(array)
    pixels_HW = _one_slice(pixels, slice_rule)
    if min(pixels_HW.shape) < MIN_SIDE:
        raise DataError(f"is {_size(pixels_HW.shape)} pixels; expected at least {MIN_SIDE} a side.")
    spacing_x, spacing_y = image.GetSpacing()[:2]
    if not (0 < spacing_x < math.inf and 0 < spacing_y < math.inf):
        raise DataError(f"has pixels of {spacing_x:g} x {spacing_y:g} mm; expected positive lengths. Mend its header.")
    has_spacing = form.has_spacing
    if extension == ".dcm":
        has_spacing = image.HasMetaDataKey("0028|0030") or image.HasMetaDataKey("0018|1164")
    return Picture(
        pixels_HW=np.ascontiguousarray(pixels_HW, dtype=np.float32),
        spacing=(float(spacing_y), float(spacing_x)) if has_spacing else None,
        channels=3 if channels > 1 else 1,
    )


def _open(path: Path, image_io: str) -> Any:
    """A SimpleITK reader that has read the header and found the size bearable."""
    reader = import_simpleitk().ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"cannot be read ({_reason(error)}); copy it again or convert it.") from None
    size = tuple(int(side) for side in reader.GetSize())
    if not size:
        raise DataError("has no dimensions; expected a picture.")
    if max(size) > MAX_SIDE or np.prod([float(side) for side in size]) > MAX_VOXELS:
        raise DataError(
            f"has {_size(size)} pixels; expected at most {MAX_SIDE} a side and {MAX_VOXELS} in all. Make it smaller."
        )
    return reader


@cache
def import_simpleitk() -> ModuleType:
    """SimpleITK, imported where it is used, without its warnings on standard error."""
    import SimpleITK

    SimpleITK.ProcessObject_SetGlobalWarningDisplay(False)
    return cast(ModuleType, SimpleITK)


def _reason(error: RuntimeError) -> str:
    """The last line of SimpleITK's message, without its prefixes and addresses in memory."""
    line = str(error).strip().splitlines()[-1]
    return re.sub(r"\(0x[0-9a-f]+\)", "", line.rpartition("ERROR: ")[2]).strip()[:200]


def grey(array: NDArray[Any], channels: int) -> NDArray[Any]:
    """Luma of RGB or RGBA, channels last. Source: ITU-R BT.601-7, section 2.5.1."""
    if channels not in (3, 4):
        raise DataError(f"has {channels} channels; expected grey, RGB or RGBA.")
    red, green, blue = (array[..., channel].astype(np.float64) for channel in range(3))
    return np.asarray(0.299 * red + 0.587 * green + 0.114 * blue)


def _real(array: NDArray[Any]) -> NDArray[Any]:
    if np.iscomplexobj(array):
        raise DataError("has complex pixels; expected real numbers, for instance magnitudes.")
    return array


def _one_slice(array: NDArray[Any], slice_rule: SliceRule) -> NDArray[Any]:
    """The picture of an array HW, or of DHW with one slice or a rule that says which."""
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        return array
    if array.ndim != 3:
        raise DataError(f"has {array.ndim} dimensions {array.shape}; expected a picture or one volume.")
    slices = len(array)
    if slices == 1:
        return np.asarray(array[0])
    if slice_rule is None:
        raise DataError(f"has {slices} slices; expected one. Use --slice middle or --slice INDEX to say which to read.")
    index = slices // 2 if slice_rule == "middle" else _slice_index(slice_rule)
    if not 0 <= index < slices:
        raise DataError(f"has {slices} slices, so no slice {index}; use --slice 0 to {slices - 1}, or middle.")
    return np.asarray(array[index])


def _slice_index(slice_rule: str | int) -> int:
    try:
        return int(slice_rule)
    except ValueError:
        raise DataError(f"--slice is '{slice_rule}'; expected middle or a whole number from 0.") from None


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


def _cut_off(what: str) -> DataError:
    return DataError(f"is cut off or damaged ({what}); copy it again.")


def _check_png(content: bytes, path: Path) -> None:
    if b"IEND" not in content[-64:]:
        raise _cut_off("no IEND chunk at its end")


def _check_jpeg(content: bytes, path: Path) -> None:
    """The end marker must follow the last scan; marker bytes cannot occur inside one."""
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise _cut_off("no end-of-image marker after its last scan")


def _check_tiff(content: bytes, path: Path) -> None:
    """Every strip or tile of the first directory must lie inside the file."""
    order = "<" if content[:2] == b"II" else ">"
    try:
        if struct.unpack_from(f"{order}H", content, 2)[0] != 42:
            return  # BigTIFF: libtiff's own checks have to do
        start = struct.unpack_from(f"{order}I", content, 4)[0]
        tags: dict[int, tuple[int, ...]] = {}
        for index in range(struct.unpack_from(f"{order}H", content, start)[0]):
            entry = start + 2 + 12 * index
            tag, kind, count = struct.unpack_from(f"{order}HHI", content, entry)
            letter = {3: "H", 4: "I"}.get(kind)
            if letter is None or tag not in (273, 279, 324, 325):
                continue
            inside = count * struct.calcsize(letter) <= 4
            where = entry + 8 if inside else struct.unpack_from(f"{order}I", content, entry + 8)[0]
            tags[tag] = struct.unpack_from(f"{order}{count}{letter}", content, where)
    except struct.error:
        raise _cut_off("its directory lies beyond its end") from None
    offsets = tags.get(273, tags.get(324, ()))
    lengths = tags.get(279, tags.get(325, ()))
    end = max((offset + length for offset, length in zip(offsets, lengths, strict=False)), default=0)
    if end > len(content):
        raise _cut_off(f"its pixels end at byte {end}, the file at {len(content)}")


def _check_dicom(content: bytes, path: Path) -> None:
    """Nothing to do: SimpleITK refuses DICOM files whose elements do not fit the file."""


META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip


def _meta_header(content: bytes) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header and where it ends; ElementDataFile is its last line."""
    marker = content.find(b"ElementDataFile", 0, MAX_HEADER_BYTES)
    end = content.find(b"\n", marker) if marker >= 0 else -1
    if marker < 0:
        raise _cut_off("its header has no ElementDataFile line")
    end = len(content) if end < 0 else end + 1
    if end > MAX_HEADER_BYTES:
        raise _cut_off("its header does not end")
    pairs = (line.partition("=") for line in content[:end].decode("latin-1").split("\n"))
    header = {key.strip(): value.strip() for key, _, value in pairs}
    if "ElementDataFile" not in header:  # SimpleITK would go on to another line, and open what that names
        raise _cut_off("its first ElementDataFile is none that names a file")
    return header, end


def _meta_data_file(path: Path, name: str) -> Path:
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


def _check_meta(content: bytes, path: Path) -> None:
    header, end = _meta_header(content)
    name = header["ElementDataFile"]
    data = content[end:] if name == "LOCAL" else read_bytes(_meta_data_file(path, name), most=MAX_FILE_BYTES)
    bytes_each = META_BYTES.get(header.get("ElementType", "").removesuffix("_ARRAY"))
    if header.get("BinaryData", "True").lower() != "true" or bytes_each is None:
        kind = quoted(header.get("ElementType", ""))
        raise DataError(f"has elements of type {kind} or is text; expected binary numbers.")
    try:
        sides = [int(side) for side in header.get("DimSize", "0").split()]
        channels = int(header.get("ElementNumberOfChannels", 1))
    except ValueError:
        raise _cut_off("its header's DimSize or ElementNumberOfChannels is no number") from None
    _check_promise(product(sides))
    expected = product([*sides, channels, bytes_each])
    if header.get("CompressedData", "False").lower() == "true":
        found = _inflated_size(data, expected, wbits=zlib.MAX_WBITS | 32)
    else:
        found = len(data)
    if found < expected:
        raise _cut_off(f"it holds {found} bytes of pixels, its header promises {expected}")


def _check_promise(pixels: int) -> None:
    """Raises: DataError on a header that promises more than is read, before anything is inflated for it."""
    if pixels > MAX_VOXELS:
        raise DataError(f"promises {pixels} pixels; expected at most {MAX_VOXELS} in all. Make it smaller.")


def product(factors: Sequence[int]) -> int:
    """The bytes that a header promises, never wrapping around. Raises: DataError on negative or absurd numbers."""
    if any(factor < 0 for factor in factors) or len(factors) > 16 or max(factors, default=0) > 2**63:
        raise _cut_off("its header promises an impossible size")
    return math.prod(factors)


def _check_nifti(content: bytes, path: Path) -> None:
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
        raise _cut_off("its header cannot be read") from None
    if not 1 <= dims[0] <= 7 or bits < 0 or start < 0:
        raise _cut_off("its header promises an impossible size")
    pixels = product([max(1, side) for side in dims[1 : 1 + dims[0]]])
    _check_promise(pixels)
    expected = start + pixels * bits // 8
    found = _inflated_size(content, expected, wbits=31) if zipped else len(content)
    if found < expected:
        raise _cut_off(f"it holds {found} bytes, its header promises {expected}")


def _inflated_size(data: bytes, expected: int, *, wbits: int) -> int:
    """Bytes that compressed data inflates to; 0 where it is damaged or cut short.

    The stream is inflated to its checksum but never kept. It is given up, as large enough, where it grows past
    what the header promises.
    """
    inflater = zlib.decompressobj(wbits=wbits)
    found, rest, limit = 0, data, expected + 2**20
    try:
        while rest and not inflater.eof and found <= limit:
            found += len(inflater.decompress(rest, 2**20))
            rest = inflater.unconsumed_tail
    except zlib.error:
        return 0
    if found > limit:
        return expected
    return found if inflater.eof else 0


_META = _Format(image_io="MetaImageIO", magic=(), has_spacing=True, check=_check_meta)
_NIFTI = _Format(image_io="NiftiImageIO", magic=(), has_spacing=True, check=_check_nifti)
_JPEG = _Format(image_io="JPEGImageIO", magic=(b"\xff\xd8\xff",), has_spacing=False, check=_check_jpeg)
_TIFF = _Format(image_io="TIFFImageIO", magic=(b"II", b"MM"), has_spacing=False, check=_check_tiff)

FORMATS: Mapping[str, _Format] = {
    ".mha": _META,
    ".mhd": _META,
    ".nii": _NIFTI,
    ".nii.gz": _NIFTI,
    ".dcm": _Format(image_io="GDCMImageIO", magic=(), has_spacing=True, check=_check_dicom),
    ".png": _Format(image_io="PNGImageIO", magic=(b"\x89PNG\r\n\x1a\n",), has_spacing=False, check=_check_png),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
EXTENSIONS: tuple[str, ...] = tuple(FORMATS)
