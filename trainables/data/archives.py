"""MedMNIST archives: the labels and pictures of an .npz, read without pickle and within bounds."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.format_checks import product
from trainables.data.limits import in_words, limits
from trainables.data.readers import MIN_SIDE, Picture, grey
from trainables.data.sandbox import Failure, Request, Sandbox
from trainables.data.untrusted import one_line, opened, quoted
from trainables.errors import DataError

MAX_NPZ_BYTES = 8 * 2**30
MAX_LABELS = 10**6
"""How many images an archive may hold."""

SPLITS = ("train", "val", "test")


def labels_apart(path: Path) -> dict[str, tuple[str, ...]]:
    """``read_npz_labels``, in a process with limits.

    Raises:
        DataError: not such an archive, or one that crashes or hangs what reads it.
    """
    seconds, memory = limits(path)
    request = Request(content={"archive": str(path)}, seconds=seconds, memory=memory)
    with Sandbox("trainables.data.archives:label_reader", workers=1) as sandbox:
        (outcome,) = sandbox.map([request], ahead=1)
    if isinstance(outcome, Failure):
        raise DataError(f"'{path}' {in_words(outcome)}")
    if "bad" in outcome.content:
        raise DataError(outcome.content["bad"])
    return {split: tuple(names) for split, names in outcome.content["labels"].items()}


def label_reader() -> Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], Sequence[bytes]]]:
    """What a worker calls for the labels of an archive."""
    return _labels


def _labels(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[bytes]]:
    try:
        return {"labels": read_npz_labels(Path(request["archive"]))}, ()
    except (DataError, OSError) as error:
        return {"bad": str(error)}, ()


_ZIP_ERRORS = (
    OSError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, struct.error,
    RuntimeError,  # a password is wanted, or (as NotImplementedError) another compression
    OverflowError, RecursionError,
)  # fmt: skip


def read_npz_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """The labels of a MedMNIST archive, for each of the splits train, val and test that it has.

    Args:
        path: an .npz with ``train_images``, ``train_labels``, and likewise for val and test; labels (N,) or (N, 1).

    Raises:
        DataError: not such an archive.
    """
    labels: dict[str, tuple[str, ...]] = {}
    for split, array in _npz_arrays(path, "labels").items():
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1 or array.dtype.kind not in "biuSU":
            raise DataError(
                f"{split}_labels of '{path}' has shape {array.shape} and type {array.dtype}; expected (N,) or (N, 1) "
                f"whole numbers or names, one label an image."
            )
        if len(array) > MAX_LABELS:
            raise DataError(f"{split}_labels of '{path}' are {len(array)}; expected at most {MAX_LABELS}.")
        labels[split] = _names(array, f"{split}_labels of '{path}'")
    return labels


def _names(array: NDArray[Any], where: str) -> tuple[str, ...]:
    try:
        values = array.tolist()
    except (SystemError, ValueError):  # what numpy raises on numbers that are no characters depends on the numbers
        raise DataError(f"{where} are no text; download it again.") from None
    return tuple(value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values)


def read_npz_pictures(path: Path) -> dict[str, NDArray[Any]]:
    """The images of a MedMNIST archive by split: arrays (N, H, W), or (N, H, W, 3) for colour.

    Raises:
        DataError: not such an archive.
    """
    images = _npz_arrays(path, "images")
    for split, array in images.items():
        colour = array.ndim == 4 and array.shape[-1] == 3
        if not (array.ndim == 3 or colour) or array.dtype.kind not in "uif" or min(array.shape[1:3]) < MIN_SIDE:
            raise DataError(
                f"{split}_images of '{path}' has shape {array.shape} and type {array.dtype}; expected numbers "
                f"(N, H, W) or (N, H, W, 3), at least {MIN_SIDE} pixels a side."
            )
    return images


def npz_picture(array: NDArray[Any]) -> Picture:
    """One entry (H, W) or (H, W, 3) of a MedMNIST archive as a picture.

    Raises:
        DataError: NaN, infinite or constant; the sentence begins with the reason.
    """
    pixels_HW = (grey(array, 3) if array.ndim == 3 else array).astype(np.float32)
    if not np.isfinite(pixels_HW).all():
        raise DataError("has NaN or infinite pixels; expected finite numbers.")
    if pixels_HW.min() == pixels_HW.max():
        raise DataError(f"has the same value {pixels_HW.flat[0]:g} in every pixel; expected a picture.")
    return Picture(pixels_HW=pixels_HW, spacing=None, channels=3 if array.ndim == 3 else 1)


def _npz_arrays(path: Path, kind: str) -> dict[str, NDArray[Any]]:
    try:
        with opened(path, most=MAX_NPZ_BYTES) as (stream, _), zipfile.ZipFile(stream) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > MAX_NPZ_BYTES:
                raise DataError(f"unpacks to {size} bytes; expected at most {MAX_NPZ_BYTES}. Use image files.")
            names = sorted(member.removesuffix(".npy") for member in archive.namelist())
            found = {split: _npy(archive, f"{split}_{kind}.npy") for split in SPLITS if f"{split}_{kind}" in names}
    except DataError as error:
        raise DataError(f"'{path}' {error}") from None
    except _ZIP_ERRORS as error:
        raise DataError(f"'{path}' cannot be read as .npz ({one_line(error)}); download it again.") from None
    if not found:
        listed = ", ".join(quoted(name) for name in names[:10])
        raise DataError(
            f"'{path}' has the arrays {listed or 'none'}; expected MedMNIST's train_{kind}, val_{kind}, "
            f"test_{kind}, or some of them."
        )
    return found


def _npy(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One array of an archive, never unpickled. Its room is only taken once the archive is known to fill it."""
    member = archive.getinfo(name)
    with archive.open(member) as file:
        shape, dtype = _npy_header(file)
    if dtype.hasobject:
        raise DataError(f"holds Python objects as {name}, which are never loaded; expected numbers.")
    promised = product([*shape, dtype.itemsize])
    if promised > member.file_size:
        raise DataError(f"is damaged ({name} promises {promised} bytes and has {member.file_size}); download it again.")
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    except (SyntaxError, tokenize.TokenError, TypeError) as error:  # numpy reads it as an expression of Python
        raise ValueError(f"a header is no description of an array: {one_line(error)}") from None
    return shape, dtype
