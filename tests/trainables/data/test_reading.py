"""Decoded once: found again by other searches and storages, checked before it is used, and mended."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import trainables.data.decoding as decoding
import trainables.data.reading as reading
from tests.trainables.data.test_cohort import forbid_decoding, picture, write
from trainables.data import digests, elsewhere
from trainables.data.cohort import PIXELS_FILE, TABLE_FILE, Cohort
from trainables.data.image_files import load_image_set, save_image_set
from trainables.data.image_set import ImageSet
from trainables.data.reading import read_cohort
from trainables.errors import DataError
from trainables.leases import Lease, held, own_process


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of notes of where images have been decoded."""
    monkeypatch.setenv(elsewhere.CACHE_VARIABLE, str(tmp_path / "notes"))
    return tmp_path / "notes" / "images"


def bytes_of(cohort: Cohort) -> bytes:
    return (cohort.folder / PIXELS_FILE).read_bytes()


def rewrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file that forbids it, in place."""
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_bytes(change(file.read_bytes()))
    file.chmod(mode)


def test_any_number_of_processes_decodes_the_same_bytes(
    cohort: Cohort, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "IMAGES_PER_WORKER", 8)
    monkeypatch.setattr(decoding, "_cores", lambda: 3)
    again = read_cohort(data, cache=tmp_path / "other")
    for name in (PIXELS_FILE, TABLE_FILE):
        assert (again.folder / name).read_bytes() == (cohort.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (PIXELS_FILE, lambda content: content[:-8]),
        (PIXELS_FILE, lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        (PIXELS_FILE, lambda content: content[:2000] + bytes(8) + content[2008:]),
        (TABLE_FILE, lambda content: content.replace(b'"label": 1', b'"label": 0', 1)),
        (TABLE_FILE, lambda content: content[:100]),
        (TABLE_FILE, lambda content: b"[]"),
    ],
)
def test_a_damaged_cohort_is_noticed_as_a_search_begins_and_made_anew(
    name: str, change: Callable[[bytes], bytes], cohort: Cohort, data: Path, tmp_path: Path
) -> None:
    before, table = bytes_of(cohort), cohort.entries
    rewrite(cohort.folder / name, change)
    with pytest.raises(DataError, match=r"holds no usable cohort .* delete it and read the data again"):
        Cohort.load(cohort.folder).check()
    again = read_cohort(data, cache=tmp_path / "cache")
    assert (again.folder, bytes_of(again), again.entries) == (cohort.folder, before, table)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [cohort.digest]


def test_a_cohort_of_earlier_days_without_a_seal_is_still_read(
    cohort: Cohort, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((cohort.folder / TABLE_FILE).read_text())
    del content["seal"]
    rewrite(cohort.folder / TABLE_FILE, lambda _: json.dumps(content).encode())
    forbid_decoding(monkeypatch)
    assert read_cohort(data, cache=tmp_path / "cache").entries == cohort.entries


def test_a_whole_cohort_may_be_read_by_all_and_written_by_none(cohort: Cohort) -> None:
    for name in (PIXELS_FILE, TABLE_FILE):
        assert stat.S_IMODE((cohort.folder / name).stat().st_mode) & 0o333 == 0
    assert not stat.S_IMODE(cohort.folder.stat().st_mode) & 0o022


def test_another_storage_takes_over_what_is_decoded_without_taking_its_room_twice(
    notes: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_cohort(data, cache=tmp_path / "one")
    moved = data.rename(tmp_path / "moved")
    forbid_decoding(monkeypatch)
    second = read_cohort(moved, cache=tmp_path / "two")
    assert second.folder == tmp_path / "two" / first.digest
    assert (bytes_of(second), second.entries) == (bytes_of(first), first.entries)
    assert Cohort.load(second.folder).source == f"labels.csv of {moved}"
    assert (second.folder / PIXELS_FILE).samefile(first.folder / PIXELS_FILE)
    shutil.rmtree(tmp_path / "one")
    np.testing.assert_array_equal(Cohort.load(second.folder).check().pixels(0), picture(10))


def test_a_storage_of_other_readers_gets_a_copy_of_its_own(notes: Path, data: Path, tmp_path: Path) -> None:
    first = read_cohort(data, cache=tmp_path / "one")
    before = os.umask(0o077)
    try:
        second = read_cohort(data, cache=tmp_path / "two")
    finally:
        os.umask(before)
    assert bytes_of(second) == bytes_of(first)
    assert stat.S_IMODE((second.folder / PIXELS_FILE).stat().st_mode) == 0o400
    assert not (second.folder / PIXELS_FILE).samefile(first.folder / PIXELS_FILE)


def test_nothing_is_taken_over_that_others_could_have_written(notes: Path, data: Path, tmp_path: Path) -> None:
    first = read_cohort(data, cache=tmp_path / "one")
    assert list(elsewhere.folders(first.digest)) == [first.folder]
    for path in (first.folder, first.folder / PIXELS_FILE, first.folder / TABLE_FILE):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | 0o020)
        assert list(elsewhere.folders(first.digest)) == []
        path.chmod(mode)
    (tmp_path / "link").symlink_to(first.folder)
    (notes / f"{first.digest}.json").write_text(json.dumps([str(tmp_path / "link"), 3, "\0"]))
    assert list(elsewhere.folders(first.digest)) == []


def test_what_is_damaged_elsewhere_is_not_taken_over(notes: Path, data: Path, tmp_path: Path) -> None:
    first = read_cohort(data, cache=tmp_path / "one")
    whole = bytes_of(first)
    rewrite(first.folder / PIXELS_FILE, lambda content: content[:-1] + b"\1")
    second = read_cohort(data, cache=tmp_path / "two")
    assert bytes_of(second) == whole
    assert [path.name for path in (tmp_path / "two").iterdir()] == [first.digest]


def test_a_note_names_the_latest_folders_and_readers_without_notes_do_as_well(
    notes: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "FOLDERS", 2)
    read = [read_cohort(data, cache=tmp_path / name) for name in ("one", "two", "three", "two")]
    file = notes / f"{read[0].digest}.json"
    assert json.loads(file.read_text()) == [str(tmp_path / name / read[0].digest) for name in ("two", "three")]
    assert stat.S_IMODE(notes.stat().st_mode) == 0o700
    file.write_text("{}")
    monkeypatch.setattr(elsewhere, "NOTES", 0)
    read_cohort(data, cache=tmp_path / "one")
    assert list(notes.iterdir()) == []
    monkeypatch.setenv(elsewhere.CACHE_VARIABLE, "/proc/nowhere")
    assert read_cohort(data, cache=tmp_path / "four").entries == read[0].entries


def test_who_comes_second_waits_for_the_cohort_of_the_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, built, waiting = reading.build, [], threading.Event()

    def slow(building: Path, **settings: object) -> None:
        built.append(building)
        assert waiting.wait(60)
        build(building, **settings)  # type: ignore[arg-type]

    try_acquire = Lease.try_acquire

    def seen(lease: Lease) -> bool:
        acquired = try_acquire(lease)
        if not acquired:
            waiting.set()
        return acquired

    monkeypatch.setattr(reading, "build", slow)
    monkeypatch.setattr(Lease, "try_acquire", seen)
    found: list[Cohort] = []
    threads = [threading.Thread(target=lambda: found.append(read_cohort(data, cache=tmp_path / "c"))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert found[0].entries == found[1].entries
    assert [path.name for path in (tmp_path / "c").iterdir()] == [found[0].digest]


def test_who_has_lost_the_lease_uses_the_cohort_that_is_there(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading._building(cohort.folder) as building:
        for name in (PIXELS_FILE, TABLE_FILE):
            shutil.copy(cohort.folder / name, building / name)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [cohort.digest]
    with pytest.raises(OSError, match="not empty"), reading._building(tmp_path / "cache") as building:
        for name in (PIXELS_FILE, TABLE_FILE):
            shutil.copy(cohort.folder / name, building / name)


def test_what_a_killed_reader_has_left_is_swept_away_and_its_lease_taken_over(
    cohort: Cohort, data: Path, tmp_path: Path
) -> None:
    cache = cohort.folder.parent
    script = (
        "import os, sys; from pathlib import Path; from trainables.files import temporary_for;"
        "from trainables.leases import Lease; folder = Path(sys.argv[1]); building = temporary_for(folder);"
        "building.mkdir(); (building / 'pixels.npy').write_bytes(b'half');"
        "assert Lease(folder.parent / f'.{folder.name}.lease').try_acquire(); os.kill(os.getpid(), 9)"
    )
    shutil.rmtree(cohort.folder)
    living = cache / f".other.{'0' * 32}.{own_process()}.tmp"
    living.mkdir()
    subprocess.run([sys.executable, "-c", script, str(cohort.folder)], check=False)
    assert len(list(cache.iterdir())) == 3
    again = read_cohort(data, cache=cache)
    assert again.entries == cohort.entries
    assert sorted(path.name for path in cache.iterdir()) == sorted([again.digest, living.name])


def test_a_changed_file_of_the_same_name_size_and_time_is_noticed(
    cohort: Cohort, data: Path, tmp_path: Path, notes: Path
) -> None:
    file = data / "sick/p01-0.mha"
    status, size = file.stat(), file.stat().st_size
    write(file, picture(999))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == size
    again = read_cohort(data, cache=tmp_path / "cache")
    assert again.digest != cohort.digest
    np.testing.assert_array_equal(again.pixels(0), picture(999))


def test_a_file_is_digested_once_until_it_changes_whatever_time_it_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.mha"
    file.write_bytes(b"one")
    status, fresh = file.stat(), digests.file_digest(file)
    monkeypatch.setattr(digests, "_SETTLED_SECONDS", -1.0)  # as if it had been written long ago
    assert digests.file_digest(file) == fresh
    with monkeypatch.context() as patch:
        patch.setattr(digests, "_READ_BYTES", "no reading")
        assert digests.file_digest(file) == fresh
    time.sleep(0.05)
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests.file_digest(file) != fresh


def test_readers_of_an_image_set_share_its_pixels_and_keep_what_they_change_to_themselves(tmp_path: Path) -> None:
    images = ImageSet(
        images_NCHW=torch.linspace(-1, 1, 3 * 16).reshape(3, 1, 4, 4),
        labels_N=torch.tensor([0, 1, 0]),
        ids=("a", "b", "c"),
        patients=("p", "q", "p"),
        classes=("sick", "well"),
    )
    save_image_set(tmp_path, images)
    read = load_image_set(tmp_path)
    assert read.digest == images.digest
    mapped = Path("/proc/self/maps").read_text()
    assert f"{tmp_path}/images.npy" in mapped
    read.images_NCHW.zero_()
    assert load_image_set(tmp_path).digest == images.digest


def test_a_lease_is_held_while_images_are_decoded_and_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    with reading._alone(path):
        assert Lease(path).is_held()
    assert not path.exists()
    lease = Lease(path)
    assert lease.try_acquire()
    with held(lease):
        assert not Lease(path).try_acquire()
