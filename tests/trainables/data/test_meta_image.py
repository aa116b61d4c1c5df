"""The pixels that the check of a MetaImage has inflated are those that SimpleITK would read, or are not used."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import trainables.data.readers as readers
from trainables.data import meta_image
from trainables.data.readers import Picture, read_picture
from trainables.errors import DataError

TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]


def noise(shape: tuple[int, ...], dtype: type) -> NDArray[np.generic]:
    low = 0 if np.issubdtype(dtype, np.unsignedinteger) else -100
    return np.random.default_rng(0).integers(low, 100, shape).astype(dtype)


def write(path: Path, array: NDArray[np.generic], *, spacing: tuple[float, ...] = ()) -> Path:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array, isVector=array.ndim == 3 and array.shape[-1] == 3)
    if spacing:
        image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    return path


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What SimpleITK was asked to read."""
    asked: list[str] = []
    executed = readers._executed

    def counted(reader: object) -> object:
        asked.append("read")
        return executed(reader)

    monkeypatch.setattr(readers, "_executed", counted)
    yield asked


def read_plainly(path: Path, monkeypatch: pytest.MonkeyPatch) -> Picture:
    with monkeypatch.context() as patch:
        patch.setattr(readers, "_inflated_pixels", lambda *_: None)
        return read_picture(path, slice_rule="middle")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(20, 24), (1, 20, 24), (5, 12, 16)])
def test_a_compressed_picture_is_inflated_once_and_equal_to_what_simpleitk_reads(
    shape: tuple[int, ...], dtype: type, tmp_path: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mha", noise(shape, dtype), spacing=(0.5, 0.75, 2.0)[: len(shape)])
    found = read_picture(path, slice_rule="middle")
    assert readings == []
    plain = read_plainly(path, monkeypatch)
    assert readings == ["read"]
    assert found.pixels_HW.tobytes() == plain.pixels_HW.tobytes()
    assert (found.pixels_HW.shape, found.spacing, found.channels) == (plain.pixels_HW.shape, plain.spacing, 1)


UNUSUAL = [
    (rb"ByteOrderMSB = False", b"ByteOrderMSB = True"),
    (rb"TransformMatrix = .*", b"TransformMatrix = 1 1 1 1"),
    (rb"TransformMatrix = .*", b"TransformMatrix = nan 0 0 1"),
    (rb"TransformMatrix = .*", b"TransformMatrix = 1 1 0 1"),
    (rb"ElementSpacing = .*", b"ElementSpacing = 0.5 -0.5"),
    (rb"ElementSpacing = .*", b"ElementSpacing = 0.5 0"),
    (rb"DimSize = 24 20", b"DimSize = 20 24\nDimSize = 24 20"),
    (rb"DimSize = 24 20", b"DimSize = 24  20"),
    (rb"ElementType = MET_USHORT", b"ElementNumberOfChannels = 1\nElementType = MET_USHORT"),
    (rb"ElementType = MET_USHORT", b"HeaderSize = 10\nElementType = MET_USHORT"),
    (rb"ElementType = MET_USHORT", b"ElementType = MET_USHORT_ARRAY"),
    (rb"CompressedDataSize = .*", b"CompressedDataSize = 100"),
    (rb"CompressedDataSize = .*", b""),
    (rb"ObjectType = Image", b"ObjectType = Scene"),
]


@pytest.mark.parametrize(("field", "other"), UNUSUAL)
def test_a_header_that_says_anything_unusual_is_left_to_simpleitk(
    field: bytes, other: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mha", noise((20, 24), np.uint16))
    content = path.read_bytes()
    end = content.index(b"LOCAL\n")
    path.write_bytes(re.sub(field, other, content[:end]) + content[end:])
    given: list[object] = []
    inflated = readers._inflated_pixels
    monkeypatch.setattr(readers, "_inflated_pixels", lambda *each: given.append(inflated(*each)))
    with suppress(DataError):
        read_picture(path)
    assert given in ([], [None])


@pytest.mark.parametrize("change", [lambda data: data + b"more", lambda data: data + data, lambda data: data[:-1]])
def test_pixels_that_do_not_end_with_their_stream_are_left_to_the_other_checks(change: object, tmp_path: Path) -> None:
    array = noise((20, 24), np.uint16)
    data = change(zlib.compress(array.tobytes()))
    assert meta_image._inflated(data, array.nbytes) is None
    assert meta_image._inflated(zlib.compress(array.tobytes()), array.nbytes) == array.tobytes()
    assert meta_image._inflated(zlib.compress(array.tobytes()), array.nbytes - 2) is None


def test_large_pictures_are_not_kept_beside_themselves(
    tmp_path: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_image, "KEPT_BYTES", 20 * 24 * 2 - 1)
    path = write(tmp_path / "a.mha", noise((20, 24), np.uint16))
    np.testing.assert_array_equal(read_picture(path).pixels_HW, noise((20, 24), np.uint16))
    assert readings == ["read"]


def test_colour_is_left_to_simpleitk(tmp_path: Path, readings: list[str]) -> None:
    path = write(tmp_path / "a.mha", noise((20, 24, 3), np.uint8))
    assert read_picture(path).channels == 3
    assert readings == ["read"]
