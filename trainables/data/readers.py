"""One reader for every image format: a file becomes a grey picture and, where the format has one, its pixel spacing.

The rules, alike for every format:

- Colour becomes grey by ITU-R 601 luma; an alpha channel is ignored.
- Values are those of the file (after a DICOM or NIfTI file's own rescaling) as float32; signed and unsigned 16 bit
  are kept. Contrast is a matter of the percentiles fitted later.
- DICOM MONOCHROME1 (low is bright) is inverted within the range of its stored bits; SimpleITK does it.
- The picture lies as it is stored; nothing is reoriented.
- A volume of one slice is a picture. Of more slices the reader takes none by guess: ``slice_rule`` says which.
- PNG, JPEG and TIFF have no physical spacing; their resolution tags are about printing. That of a DICOM file is its
  PixelSpacing, else its ImagerPixelSpacing, where that is two positive numbers. Functional groups are not searched:
  SimpleITK gives 1 mm where they say nothing.
- Grey with alpha or transparency beside it is refused: SimpleITK reads such TIFFs as noise, and no such PNG.
- Files that are cut short or whose compressed data is damaged are refused. SimpleITK alone reads some of them as
  zeros (NIfTI), as grey (JPEG) or as noise (compressed MetaImage).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from trainables.data.format_checks import (
    MAX_FILE_BYTES,
    MAX_SIDE,
    MAX_VOXELS,
    check_dicom,
    check_jpeg,
    check_nifti,
    check_png,
    check_tiff,
)
from trainables.data.meta_image import check_meta, data_file_of, simple_pixels
from trainables.data.untrusted import read_bytes
from trainables.errors import DataError

MIN_SIDE = 8

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
    """How one format is decoded: SimpleITK's plug-in, how its files begin, and whether a spacing is meant.

    ``check`` may give what the pixels inflate to, where that has been found out. ``version`` is raised by hand when the
    same file is read into other numbers; stored cohorts with such files are then read anew.
    """

    image_io: str
    magic: tuple[bytes, ...]
    has_spacing: bool
    check: Callable[[bytes, Path], bytes | None]
    version: int = 1


def format_of(path: Path) -> str | None:
    """The supported extension that a file name ends in, such as ".nii.gz"; None for any other file."""
    name = path.name.lower()
    return next((extension for extension in EXTENSIONS if name.endswith(extension)), None)


def reader_version(files: Iterable[Path]) -> int:
    """The version of the reader of some files, the newest among their formats."""
    return max((FORMATS[known].version for file in files if (known := format_of(file)) is not None), default=1)


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
    return path, data_file_of(path)


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
    inflated = form.check(content, path)
    image = _open(path, form.image_io)
    array = None if inflated is None else _inflated_pixels(content, inflated, image)
    channels = 1
    if array is None:
        image, array = _executed(image)
        channels = image.GetNumberOfComponentsPerPixel()
    pixels = grey(array, channels) if channels > 1 else _real(array)
    pixels_HW = _one_slice(pixels, slice_rule)
    if min(pixels_HW.shape) < MIN_SIDE:
        raise DataError(f"is {_size(pixels_HW.shape)} pixels; expected at least {MIN_SIDE} a side.")
    spacing = _stated_spacing(image) if extension == ".dcm" else _spacing(image)
    return Picture(
        pixels_HW=np.ascontiguousarray(pixels_HW, dtype=np.float32),
        spacing=spacing if form.has_spacing else None,
        channels=3 if channels > 1 else 1,
    )


def _spacing(image: Any) -> tuple[float, float]:
    """(sy, sx) in millimetres, as SimpleITK has it."""
    x, y = map(float, image.GetSpacing()[:2])
    if not (0 < x < math.inf and 0 < y < math.inf):
        raise DataError(f"has pixels of {x:g} x {y:g} mm; expected positive lengths. Mend its header.")
    return y, x


def _stated_spacing(image: Any) -> tuple[float, float] | None:
    """(sy, sx) in millimetres, as a DICOM file states it.

    SimpleITK reads one of the two attributes, by the file's class, and gives 1 mm where that one is missing.

    Source: DICOM PS3.3, sections 10.7.1.1 and 10.7.1.3: the distance of rows first.
    """
    for key in ("0028|0030", "0018|1164"):
        texts = image.GetMetaData(key).split("\\") if image.HasMetaDataKey(key) else ()
        try:
            y, x = map(float, texts)
        except ValueError:
            continue
        if 0 < x < math.inf and 0 < y < math.inf:
            return y, x
    return None


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


def _executed(reader: Any) -> tuple[Any, NDArray[Any]]:
    """The image that a reader reads, and its pixels."""
    try:
        image = reader.Execute()
        return image, import_simpleitk().GetArrayFromImage(image)
    except RuntimeError as error:
        raise DataError(f"cannot be decoded ({_reason(error)}); copy it again or convert it.") from None


def _inflated_pixels(content: bytes, inflated: bytes, reader: Any) -> NDArray[Any] | None:
    """The pixels of a MetaImage that need not be read a second time; None where the reader has to."""
    spacing, size = reader.GetSpacing(), reader.GetSize()
    directions = np.asarray(reader.GetDirection(), dtype=np.float64).reshape(len(size), -1)
    return simple_pixels(
        content,
        inflated,
        size=size,
        element=import_simpleitk().GetPixelIDValueAsString(reader.GetPixelID()),
        is_placed=all(0 < each < math.inf for each in spacing) and _are_orthogonal(directions),
    )


def _are_orthogonal(directions_DD: NDArray[np.float64]) -> bool:
    """Whether SimpleITK would accept directions without a look; those that are skewed it judges itself."""
    return bool(np.abs(directions_DD @ directions_DD.T - np.eye(len(directions_DD))).max() < 1e-3)


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


_META = _Format(image_io="MetaImageIO", magic=(), has_spacing=True, check=check_meta)
_NIFTI = _Format(image_io="NiftiImageIO", magic=(), has_spacing=True, check=check_nifti)
_JPEG = _Format(image_io="JPEGImageIO", magic=(b"\xff\xd8\xff",), has_spacing=False, check=check_jpeg)
_TIFF = _Format(image_io="TIFFImageIO", magic=(b"II", b"MM"), has_spacing=False, check=check_tiff)

FORMATS: Mapping[str, _Format] = {
    ".mha": _META,
    ".mhd": _META,
    ".nii": _NIFTI,
    ".nii.gz": _NIFTI,
    # version 2: the spacing is what the attributes say
    ".dcm": _Format(image_io="GDCMImageIO", magic=(), has_spacing=True, check=check_dicom, version=2),
    ".png": _Format(image_io="PNGImageIO", magic=(b"\x89PNG\r\n\x1a\n",), has_spacing=False, check=check_png),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
EXTENSIONS: tuple[str, ...] = tuple(FORMATS)
