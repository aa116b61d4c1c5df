from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainables.data.archives import npz_picture, read_npz_labels, read_npz_pictures
from trainables.data.format_checks import MAX_SIDE
from trainables.data.readers import (
    EXTENSIONS,
    companions,
    format_of,
    read_mask_box,
    read_picture,
    reader_version,
)
from trainables.errors import DataError


def noise(height: int = 40, width: int = 30) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)


def write(path: Path, array: NDArray[np.generic], *, spacing: tuple[float, ...] = (), compress: bool = False) -> Path:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array, isVector=array.ndim == 3 and array.shape[-1] in (3, 4))
    if spacing:
        image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize("extension", [each for each in EXTENSIONS if each not in (".jpg", ".jpeg")])
def test_every_lossless_format_gives_the_values_that_were_written(extension: str, tmp_path: Path) -> None:
    read = read_picture(write(tmp_path / f"image{extension}", noise()))
    assert read.pixels_HW.dtype == np.float32
    np.testing.assert_array_equal(read.pixels_HW, noise())
    assert read.channels == 1


@pytest.mark.parametrize("extension", [".jpg", ".jpeg"])
def test_a_jpeg_gives_nearly_the_values_that_were_written(extension: str, tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8)
    assert np.abs(read_picture(write(tmp_path / f"image{extension}", smooth)).pixels_HW - smooth).max() < 8


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_sixteen_bits_are_kept(dtype: type, tmp_path: Path) -> None:
    array = (noise().astype(np.int32) * 128 - (9000 if dtype is np.int16 else 0)).astype(dtype)
    np.testing.assert_array_equal(read_picture(write(tmp_path / "image.mha", array)).pixels_HW, array)


@pytest.mark.parametrize("extension", [".mha", ".mhd", ".nii", ".nii.gz"])
def test_spacing_is_read_as_rows_then_columns(extension: str, tmp_path: Path) -> None:
    read = read_picture(write(tmp_path / f"image{extension}", noise(), spacing=(0.5, 0.75)))
    assert read.spacing == pytest.approx((0.75, 0.5))


@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif"])
def test_formats_without_physical_spacing_have_none(extension: str, tmp_path: Path) -> None:
    assert read_picture(write(tmp_path / f"image{extension}", noise(), spacing=(0.5, 0.5))).spacing is None


def test_colour_becomes_luma_and_alpha_is_ignored(tmp_path: Path) -> None:
    colour = np.stack([noise(), noise()[::-1], noise()[:, ::-1], noise()], axis=-1)
    expected = colour[..., :3].astype(float) @ [0.299, 0.587, 0.114]
    for name, channels in (("rgb.png", 3), ("rgba.png", 4)):
        read = read_picture(write(tmp_path / name, colour[..., :channels]))
        np.testing.assert_allclose(read.pixels_HW, expected, rtol=1e-6)
        assert read.channels == 3


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("image.png", "LA", {}),
        ("image.png", "L", {"transparency": 0}),
        ("image.tif", "LA", {}),
        ("image.tif", "LA", {"big_tiff": True}),
    ],
)
def test_alpha_beside_grey_is_refused_with_what_to_do(
    name: str, mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    pixels = np.stack([noise(), noise()[::-1]], axis=-1) if mode == "LA" else noise()
    Image.fromarray(pixels).save(tmp_path / name, **options)
    with pytest.raises(DataError, match=r"has 2 channels, grey and alpha.* Save it without alpha\."):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_picture_of_another_program_is_read(mode: str, name: str, tmp_path: Path) -> None:
    Image.fromarray(noise()).convert(mode).save(tmp_path / name)
    np.testing.assert_allclose(read_picture(tmp_path / name).pixels_HW, noise(), rtol=1e-6)


def test_a_dicom_has_a_spacing_only_where_its_attribute_is_present(tmp_path: Path) -> None:
    import SimpleITK

    path = tmp_path / "image.dcm"
    image = SimpleITK.GetImageFromArray(noise()[None])
    image.SetSpacing((0.5, 0.75, 1))
    image.SetMetaData("0028|0030", "0.75\\0.5")
    SimpleITK.WriteImage(image, str(path))
    assert read_picture(path).spacing == pytest.approx((0.75, 0.5))
    pixel_spacing, zoom_factor = b"\x28\x00\x30\x00", b"\x28\x00\x31\x00"
    assert path.read_bytes().count(pixel_spacing) == 1
    path.write_bytes(path.read_bytes().replace(pixel_spacing, zoom_factor))
    assert read_picture(path).spacing is None


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    padded = value + (b"\0" if kind == b"UI" else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(padded)) if kind in (b"OB", b"OW") else struct.pack("<H", len(padded))
    return struct.pack("<HH", group, number) + kind + length + padded


def dicom(path: Path, *, of_class: bytes, spacings: dict[int, bytes]) -> Path:
    """A file with ``noise`` and any of PixelSpacing (0028,0030) and ImagerPixelSpacing (0018,1164)."""
    meta = (
        element(2, 2, b"UI", of_class) + element(2, 3, b"UI", b"1.2.3") + element(2, 16, b"UI", b"1.2.840.10008.1.2.1")
    )
    numbers = {0x0002: 1, 0x0010: 40, 0x0011: 30, 0x0100: 8, 0x0101: 8, 0x0102: 7, 0x0103: 0}
    elements = {(0x0028, number): (b"US", struct.pack("<H", value)) for number, value in numbers.items()}
    elements |= {divmod(tag, 0x10000): (b"DS", text) for tag, text in spacings.items()}
    elements |= {
        (0x0008, 0x0016): (b"UI", of_class),
        (0x0008, 0x0018): (b"UI", b"1.2.3"),
        (0x0028, 0x0004): (b"CS", b"MONOCHROME2"),
        (0x7FE0, 0x0010): (b"OW", noise().tobytes()),
    }
    body = b"".join(element(*tag, *elements[tag]) for tag in sorted(elements))
    length = element(2, 0, b"UL", struct.pack("<I", len(meta)))
    path.write_bytes(bytes(128) + b"DICM" + length + meta + body)
    return path


RADIOGRAPH, CT = b"1.2.840.10008.5.1.4.1.1.1", b"1.2.840.10008.5.1.4.1.1.2"
PIXEL_SPACING, IMAGER_PIXEL_SPACING = 0x00280030, 0x00181164


@pytest.mark.parametrize("of_class", [RADIOGRAPH, CT])
@pytest.mark.parametrize(
    ("spacings", "expected"),
    [
        ({PIXEL_SPACING: rb"0.15\0.1"}, (0.15, 0.1)),
        ({IMAGER_PIXEL_SPACING: rb"0.15\0.1"}, (0.15, 0.1)),
        ({PIXEL_SPACING: rb"0.15\0.1", IMAGER_PIXEL_SPACING: rb"0.3\0.2"}, (0.15, 0.1)),
        ({PIXEL_SPACING: b"", IMAGER_PIXEL_SPACING: rb"0.3\0.2"}, (0.3, 0.2)),
        ({PIXEL_SPACING: b""}, None),
        ({PIXEL_SPACING: rb"0\0"}, None),
        ({PIXEL_SPACING: rb"-1\1"}, None),
        ({PIXEL_SPACING: rb"inf\1"}, None),
        ({PIXEL_SPACING: b"0.15"}, None),
        ({PIXEL_SPACING: b"\xe9\\1"}, None),
        ({}, None),
    ],
)
def test_a_dicom_has_the_spacing_that_it_states_whatever_its_class(
    spacings: dict[int, bytes], expected: tuple[float, float] | None, of_class: bytes, tmp_path: Path
) -> None:
    assert read_picture(dicom(tmp_path / "image.dcm", of_class=of_class, spacings=spacings)).spacing == expected


def test_dicom_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = write(tmp_path / "image.dcm", noise())
    content = path.read_bytes()
    assert content.count(b"MONOCHROME2") == 1
    path.write_bytes(content.replace(b"MONOCHROME2", b"MONOCHROME1"))
    np.testing.assert_array_equal(read_picture(path).pixels_HW, 255 - noise().astype(int))


def test_a_volume_of_one_slice_is_a_picture(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_picture(write(tmp_path / "v.nii.gz", noise()[None])).pixels_HW, noise())


def test_a_volume_is_refused_with_the_option_that_says_which_slice(tmp_path: Path) -> None:
    volume = write(tmp_path / "v.mha", np.stack([noise()] * 5))
    with pytest.raises(DataError, match=r"has 5 slices; expected one\. Use --slice middle or --slice INDEX"):
        read_picture(volume)


@pytest.mark.parametrize(("rule", "index"), [("middle", 2), (0, 0), ("4", 4)])
def test_the_slice_rule_says_which_slice_is_read(rule: str | int, index: int, tmp_path: Path) -> None:
    volume = np.stack([np.roll(noise(), shift) for shift in range(5)])
    read = read_picture(write(tmp_path / "v.mha", volume), slice_rule=rule)
    np.testing.assert_array_equal(read.pixels_HW, volume[index])


@pytest.mark.parametrize(("rule", "sentence"), [(5, "no slice 5"), (-1, "no slice -1"), ("top", "--slice is 'top'")])
def test_a_slice_that_does_not_exist_is_refused(rule: str | int, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence):
        read_picture(write(tmp_path / "v.mha", np.stack([noise()] * 5)), slice_rule=rule)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_file_that_is_cut_short_is_never_read(extension: str, compress: bool, kept: float, tmp_path: Path) -> None:
    path = write(tmp_path / f"image{extension}", noise(96, 96), compress=compress)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError):
        read_picture(path)


@pytest.mark.parametrize("compress", [False, True])
def test_a_metaimage_whose_data_file_is_cut_short_is_refused(compress: bool, tmp_path: Path) -> None:
    header = write(tmp_path / "image.mhd", noise(), compress=compress)
    data_file = next(path for path in tmp_path.iterdir() if path != header)
    data_file.write_bytes(data_file.read_bytes()[:500])
    with pytest.raises(DataError, match="is cut off or damaged"):
        read_picture(header)


@pytest.mark.parametrize("name", ["image.mha", "image.nii.gz"])
def test_damage_inside_compressed_data_is_found(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, noise(96, 96), compress=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="is cut off or damaged"):
        read_picture(path)


def tiff_with_its_directory_first(pixels_HW: NDArray[np.uint8], *, samples: int = 1) -> bytes:
    """As many programs write it; SimpleITK's own has the directory last."""
    height, width = pixels_HW.shape
    tags = {256: width // samples, 257: height, 258: 8, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: samples}
    tags[278] = height
    tags[279] = height * width
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + pixels_HW.tobytes()


def test_a_tiff_whose_pixels_end_beyond_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(tiff_with_its_directory_first(noise()))
    np.testing.assert_array_equal(read_picture(path).pixels_HW, noise())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="its pixels end at byte 1322, the file at 1321"):
        read_picture(path)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_a_grey_tiff_with_more_channels_is_refused(samples: int, tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiff_with_its_directory_first(noise(40, 30 * samples), samples=samples))
    with pytest.raises(DataError, match=f"has {samples} channels, grey and alpha or another beside it"):
        read_picture(tmp_path / "image.tif")


def test_a_metaimage_header_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    header = write(tmp_path / "inside" / "image.mhd", noise())
    (tmp_path / "inside" / "image.raw").rename(tmp_path / "secret.raw")
    header.write_text(header.read_text().replace("image.raw", "../secret.raw"))
    with pytest.raises(DataError, match=r"names '\.\./secret\.raw' as its data file"):
        read_picture(header)


def test_a_metaimage_header_brings_its_data_file(tmp_path: Path) -> None:
    header = write(tmp_path / "image.mhd", noise())
    assert companions(header) == (header, tmp_path / "image.raw")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinite_pixels_are_refused(value: float, tmp_path: Path) -> None:
    array = noise().astype(np.float32)
    array[3, 4] = value
    with pytest.raises(DataError, match="has NaN or infinite pixels"):
        read_picture(write(tmp_path / "image.mha", array))


def test_a_constant_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has the same value 7 in every pixel"):
        read_picture(write(tmp_path / "image.png", np.full((40, 30), 7, np.uint8)))


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_picture(write(tmp_path / "image.nii", noise().astype(np.complex64)))


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "image.png", noise()).rename(tmp_path / "image.jpg")
    with pytest.raises(DataError, match=r"does not begin as a \.jpg file does"):
        read_picture(path)


def test_a_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    path = write(tmp_path / "image.mha", np.zeros((8, MAX_SIDE + 1), np.uint8), compress=True)
    with pytest.raises(DataError, match=r"has 16385x8 pixels; expected at most 16384 a side"):
        read_picture(path)


def test_a_tiny_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected at least 8 a side"):
        read_picture(write(tmp_path / "image.mha", noise(7, 30)))


def test_reasons_hold_no_memory_addresses(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(b"no DICOM" * 40)
    with pytest.raises(DataError) as raised:
        read_picture(path)
    assert "0x" not in str(raised.value)


@pytest.mark.parametrize(("name", "extension"), [("a.NII.GZ", ".nii.gz"), ("a.JPEG", ".jpeg"), ("a.gz", None)])
def test_extensions_are_found_without_regard_to_case(name: str, extension: str | None) -> None:
    assert format_of(Path(name)) == extension


def test_a_mask_gives_its_bounding_box(tmp_path: Path) -> None:
    mask = np.zeros((40, 30), np.uint8)
    mask[5:9, 12] = 1
    mask[7, 10:15] = 1
    assert read_mask_box(write(tmp_path / "mask.png", mask), shape=(40, 30)) == (10, 5, 5, 4)


def test_an_empty_or_foreign_mask_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mask.png", np.zeros((40, 30), np.uint8))
    with pytest.raises(DataError, match="is zero everywhere"):
        read_mask_box(path, shape=(40, 30))
    with pytest.raises(DataError, match="is 40x30; expected 30x40 as the image"):
        read_mask_box(path, shape=(30, 40))


@pytest.mark.parametrize("shape", [(5, 28, 28), (5, 28, 28, 3)])
def test_a_medmnist_archive_gives_labels_and_images_by_split(shape: tuple[int, ...], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    labels = np.array([[0], [1], [1], [0], [10]])
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels[:, 0])
    assert read_npz_labels(tmp_path / "m.npz") == {
        "train": ("0", "1", "1", "0", "10"),
        "test": ("0", "1", "1", "0", "10"),
    }
    read = npz_picture(read_npz_pictures(tmp_path / "m.npz")["train"][2])
    expected = images[2].astype(float)
    np.testing.assert_allclose(
        read.pixels_HW, expected @ [0.299, 0.587, 0.114] if len(shape) == 4 else expected, rtol=1e-6
    )
    assert (read.spacing, read.channels) == (None, 3 if len(shape) == 4 else 1)


def test_an_archive_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", train_labels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"holds Python objects as train_labels\.npy"):
        read_npz_labels(tmp_path / "m.npz")


def test_other_archives_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"has the arrays 'x'; expected MedMNIST's train_images"):
        read_npz_pictures(tmp_path / "m.npz")
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(DataError, match="download it again"):
        read_npz_labels(tmp_path / "no.npz")


def test_multi_label_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", train_labels=np.zeros((5, 14), int))
    with pytest.raises(DataError, match="one label an image"):
        read_npz_labels(tmp_path / "m.npz")


def test_files_of_other_formats_are_not_read_anew_for_what_has_changed_in_one() -> None:
    assert reader_version([Path("a.png"), Path("b.NII.GZ"), Path("archive.npz")]) == 1
    assert reader_version([Path("a.png"), Path("b.DCM")]) == 2
    assert reader_version([]) == 1
