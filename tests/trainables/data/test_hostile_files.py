"""Files that harm who reads them: each is one bad image, or one sentence, and never a dead or hanging search."""

from __future__ import annotations

import gzip
import io
import os
import resource
import shutil
import socket
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import trainables.data.decoding as decoding
from tests.trainables.data.test_cohort import picture, write
from trainables.data import limits as limits_module
from trainables.data.archives import labels_apart
from trainables.data.decoding import decoded
from trainables.data.digests import file_digest
from trainables.data.labels import read_labels
from trainables.data.reading import read_cohort
from trainables.data.sandbox import Sandbox
from trainables.data.untrusted import read_bytes
from trainables.errors import DataError


def bad_images(data: Path, tmp_path: Path) -> dict[str, str]:
    return dict(read_cohort(data, cache=tmp_path / "cache", skip_bad_images=True).bad_images)


def reason(path: Path) -> str:
    """Why a file cannot be decoded, asked within this process; with a limit, so that a failing test eats no memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, hard))
    try:
        return str(decoded({"path": str(path), "mask": None, "slice": None, "roi": None})[0]["bad"])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def test_a_file_that_crashes_hangs_or_starves_its_decoder_is_one_bad_image(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("crash", "hang", "eat"):
        shutil.copy(data / "sick/p01-0.mha", data / f"sick/{name}.mha")
    with (data / "labels.csv").open("a") as table:
        table.writelines(f"sick/{name}.mha,sick,p01\n" for name in ("crash", "hang", "eat"))

    def sandbox(factory: str, *, workers: int) -> Sandbox:
        return Sandbox("tests.trainables.data.sandboxed:crashing_decoder", workers=2)

    monkeypatch.setattr(decoding, "Sandbox", sandbox)
    monkeypatch.setattr(limits_module, "SECONDS", 1.0)
    cohort = read_cohort(data, cache=tmp_path / "cache", skip_bad_images=True)
    reasons = dict(cohort.bad_images)
    assert reasons["sick/crash.mha"] == "crashed its decoder (SIGSEGV); copy it again or convert it."
    assert reasons["sick/hang.mha"].startswith("took longer than 1 s to decode")
    assert reasons["sick/eat.mha"].startswith("needed more than 4096 MB of memory to decode; make it smaller")
    assert len(cohort) == 24
    assert [entry.id for entry in cohort.entries] == sorted(entry.id for entry in cohort.entries)
    with pytest.raises(DataError, match="3 of 27 images cannot be used"):
        read_cohort(data, cache=tmp_path / "cache")


def nifti_header(sides: tuple[int, ...], bits: int = 8, kind: int = 2) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(sides), *sides, *[1] * (7 - len(sides)))
    struct.pack_into("<2h", header, 70, kind, bits)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    return bytes(header)


def zeros_gzip(gigabytes: int) -> bytes:
    """A few kilobytes a gigabyte: zeros compressed twice over, as gzip members in a row."""
    return gzip.compress(bytes(2**26), mtime=0) * (16 * gigabytes)


@pytest.mark.parametrize("sides", [(16000, 16000, 30), (32767, 32767), (32767,) * 7])
def test_a_gzip_bomb_is_refused_at_once_by_what_its_header_promises(sides: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(nifti_header(sides)) + zeros_gzip(1))
    start = time.process_time()
    assert "pixels; expected at most 268435456 in all" in reason(tmp_path / "bomb.nii.gz")
    assert time.process_time() - start < 5


def test_a_bomb_behind_a_modest_header_is_not_inflated_further_than_that(tmp_path: Path) -> None:
    header = b"ObjectType = Image\nNDims = 2\nDimSize = 20 20\nElementType = MET_UCHAR\nCompressedData = True\n"
    bomb = zlib.compress(bytes(2**28))
    content = header + f"CompressedDataSize = {len(bomb)}\nElementDataFile = LOCAL\n".encode() + bomb
    (tmp_path / "bomb.mha").write_bytes(content)
    start = time.process_time()
    assert "cannot be decoded" in reason(tmp_path / "bomb.mha") or "same value" in reason(tmp_path / "bomb.mha")
    assert time.process_time() - start < 5


def test_an_archive_that_promises_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    shapes = {"(1000000000000,)": "promises 8000000000000 bytes", "(-5,)": "impossible size", "(1,": "no description"}
    for shape, sentence in shapes.items():
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(80)
        with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
            archive.writestr("train_labels.npy", npy)
        with pytest.raises(DataError, match=sentence):
            labels_apart(tmp_path / "m.npz")


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.npz", "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_labels.npy", b"x")
    content = bytearray((tmp_path / "m.npz").read_bytes())
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "m.npz").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"m\.npz' .*\.$"):
        labels_apart(tmp_path / "m.npz")


def test_an_archive_of_pickles_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(tmp_path / "m.npz", train_labels=np.array([Trap()], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        labels_apart(tmp_path / "m.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "b/2.png"):
        write(tmp_path / "set" / name, picture(ord(name[0])))
    return tmp_path / "set"


def test_what_is_no_regular_file_is_a_bad_image_and_never_opened(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "a/pipe.png")
    (folder / "a/none.png").symlink_to("nothing.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "b/s.png"))
        reasons = bad_images(folder, tmp_path)
    assert reasons == {
        "a/pipe.png": "is a FIFO; expected a regular file.",
        "a/none.png": "does not exist, or is a link to nothing; expected a regular file.",
        "b/s.png": "is a socket; expected a regular file.",
    }


def test_a_folder_that_is_called_like_an_image_is_a_folder(folder: Path, tmp_path: Path) -> None:
    write(folder / "a/p1.png/3.png", picture(3))
    assert [entry.id for entry in read_cohort(folder, cache=tmp_path / "cache").entries] == [
        "a/1.png",
        "a/p1.png/3.png",
        "b/2.png",
    ]


def test_a_fifo_in_the_table_or_as_the_table_does_not_hang(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "a/pipe.png")
    (folder / "labels.csv").write_text("path,label\na/1.png,a\na/pipe.png,a\nb/2.png,b\n")
    assert bad_images(folder, tmp_path) == {"a/pipe.png": "is a FIFO; expected a regular file."}
    (folder / "labels.csv").unlink()
    os.mkfifo(folder / "labels.csv")
    with pytest.raises(DataError, match=r"labels\.csv of .* is a FIFO; expected a regular file"):
        read_labels(folder)


@pytest.mark.parametrize("given", ["/dev/zero", "/dev/null", "/proc/self/mem/x", "/nowhere\0", "x" * 5000])
def test_data_that_is_no_folder_and_no_archive_is_refused(given: str) -> None:
    with pytest.raises(DataError, match="give a folder of images or a MedMNIST"):
        read_labels(Path(given))


def test_a_link_that_goes_round_is_refused(folder: Path) -> None:
    (folder / "a/loop.png").symlink_to("loop.png")
    with pytest.raises(DataError, match="is a link that leads back to itself"):
        read_labels(folder)
    (folder / "labels.csv").write_text("path,label\na/loop.png,a\nb/2.png,b\n")
    with pytest.raises(DataError, match=r"line 2 of .*'a/loop\.png' is a link that leads back to itself"):
        read_labels(folder)


@pytest.mark.parametrize("name", [b"a/x\n.png", b"a/\xff.png", b"a/\x1b[31m.png", "a/\u202egnp.png".encode()])
def test_names_that_do_not_print_are_refused_and_quoted(folder: Path, name: bytes) -> None:
    write(folder / "a/3.png", picture(3))
    os.rename(folder / "a/3.png", os.fsencode(folder) + b"/" + name)  # noqa: PTH104 - bytes
    with pytest.raises(DataError, match="with characters that do not print") as raised:
        read_labels(folder)
    assert str(raised.value).isprintable()


def test_a_file_that_may_not_be_read_is_a_bad_image(folder: Path, tmp_path: Path) -> None:
    write(folder / "a/3.png", picture(3))
    (folder / "a/3.png").chmod(0)
    if os.access(folder / "a/3.png", os.R_OK):
        pytest.skip("this user may read everything")
    assert bad_images(folder, tmp_path) == {"a/3.png": "must not be read by this user; expected a readable file."}


def test_no_more_is_read_than_a_file_had_when_it_was_opened(tmp_path: Path) -> None:
    """A log that grows, or a file under /proc that claims to be empty and never ends."""
    assert read_bytes(Path("/proc/self/maps"), most=10**6) == b""
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(DataError, match="is 5 bytes; expected at most 4"):
        read_bytes(tmp_path / "file", most=4)
    assert file_digest(Path("/proc/self/maps")) == file_digest(Path("/proc/self/status"))


def test_a_metaimage_header_that_hides_its_data_file_is_refused(tmp_path: Path) -> None:
    """SimpleITK would take the second line, and read whatever that names into the pixels."""
    (tmp_path / "secret.raw").write_bytes(bytes(range(256)) * 2)
    header = "ObjectType = Image\nNDims = 2\nDimSize = 20 20\nElementType = MET_UCHAR\nComment = ElementDataFile\n"
    (tmp_path / "x.mha").write_text(f"{header}ElementDataFile = {tmp_path}/secret.raw\n")
    assert "is none that names a file" in reason(tmp_path / "x.mha")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (b"path,label\na/1.png,x\0\n", "with characters that do not print"),
        (b"path,label\na/1.png,=HYPERLINK(1)\n", "which spreadsheets compute"),
        (b"path,label\na/1.png,@SUM(1)\n", "which spreadsheets compute"),
        (b"path,label\na/1.png," + b"x" * 300 + b"\n", "a label of 300 characters; expected at most 250"),
        (b"path,label\na/1.png," + b"x" * 70000 + b"\n", "line 2 of .* has 70009 characters"),
        (b"path,label\n" + b"x" * 5000 + b".png,x\n", "a path of 5004 characters"),
        (b"path,label\n../a/1.png\0,x\n", "with characters that do not print"),
        ("path,label\na/1.png,x\n".encode("utf-16"), "is no UTF-8 text"),
        (b"path,label,roi\na/1.png,x," + b"9" * 5000 + b";1;1;1\n", "a roi of 5006 characters"),
        (b"path,label,roi\na/1.png,x,9999999999;1;1;1\n", "expected x,y,w,h"),
        (b"\n" * 1_000_001, "has more than 1000000 lines"),
    ],
)
def test_tables_that_no_data_set_has_are_refused(folder: Path, table: bytes, sentence: str) -> None:
    (folder / "labels.csv").write_bytes(table)
    with pytest.raises(DataError, match=sentence) as raised:
        read_labels(folder)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


def test_plus_and_minus_are_names_of_classes(folder: Path) -> None:
    (folder / "labels.csv").write_text("path,label,patient\na/1.png,+,-12\nb/2.png,-,+3\n")
    assert read_labels(folder).classes == ("+", "-")


def test_a_picture_of_the_largest_size_fits_the_limits() -> None:
    """What the reader allows must not be refused for its memory: 16 bit pixels, as chest X-rays have."""
    seconds, memory = limits_module.limits(Path("/nowhere"))
    assert seconds == 10
    assert memory >= min(2**32, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def test_zipped_pictures_come_as_they_were_stored(tmp_path: Path) -> None:
    """Column-major arrays, too, whose bytes lie in another order."""
    images = np.asfortranarray(np.stack([picture(seed, 28, 28) for seed in range(4)]))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, train_images=images, train_labels=np.array([0, 1, 1, 0]))
    (tmp_path / "m.npz").write_bytes(buffer.getvalue())
    cohort = read_cohort(tmp_path / "m.npz", cache=tmp_path / "cache")
    np.testing.assert_array_equal(cohort.pixels(2), images[2])
