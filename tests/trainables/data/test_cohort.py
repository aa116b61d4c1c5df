from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import trainables.data.cohort_building as building_module
from trainables.data.cohort import Cohort
from trainables.data.cohort_building import group_names
from trainables.data.near_duplicates import near_duplicates, thumbnail
from trainables.data.reading import read_cohort
from trainables.errors import DataError


def write(path: Path, array: NDArray[np.generic]) -> None:
    import SimpleITK

    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=array.ndim == 3), str(path))


def picture(seed: int, height: int = 20, width: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(building_module, "decode_rows", refuse)


def test_a_cohort_knows_its_images(cohort: Cohort) -> None:
    assert cohort.classes == ("sick", "well")
    assert cohort.counts == (12, 12)
    assert (len(cohort), cohort.n_patients, cohort.patients_known) == (24, 12, True)
    assert [entry.id for entry in cohort.entries] == sorted(entry.id for entry in cohort.entries)
    first = cohort.entries[0]
    assert (first.id, first.label, first.patient, first.shape) == ("sick/p01-0.mha", 0, "p01", (20, 24))
    assert first.spacing == (1.0, 1.0)
    np.testing.assert_array_equal(cohort.pixels(0), picture(10))


def test_pixels_are_a_read_only_memory_map(cohort: Cohort) -> None:
    with pytest.raises(ValueError, match="read-only"):
        cohort.pixels(0)[0, 0] = 1
    assert isinstance(cohort.pixels(0), np.memmap)


def test_a_second_reading_decodes_nothing(
    cohort: Cohort, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_decoding(monkeypatch)
    again = read_cohort(data, cache=tmp_path / "cache")
    assert (again.digest, again.folder, again.entries) == (cohort.digest, cohort.folder, cohort.entries)


def test_a_moved_data_set_is_the_same_cohort(
    cohort: Cohort, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = data.rename(tmp_path / "moved")
    forbid_decoding(monkeypatch)
    again = read_cohort(moved, cache=tmp_path / "cache")
    assert again.digest == cohort.digest
    assert again.source == f"labels.csv of {moved}"


def test_the_order_of_the_table_does_not_matter(cohort: Cohort, data: Path, tmp_path: Path) -> None:
    header, *rows = (data / "labels.csv").read_text().splitlines()
    (data / "labels.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert read_cohort(data, cache=tmp_path / "cache").digest == cohort.digest


def test_the_digest_changes_with_pixels_labels_and_reader_options(cohort: Cohort, data: Path, tmp_path: Path) -> None:
    def digest(**settings: object) -> str:
        return read_cohort(data, cache=tmp_path / "cache", **settings).digest  # type: ignore[arg-type]

    digests = [cohort.digest, digest(slice_rule="middle"), digest(is_phantom=True)]
    write(data / "sick/p01-0.mha", picture(999))
    digests.append(digest())
    table = (data / "labels.csv").read_text()
    (data / "labels.csv").write_text(table.replace("well/p00-0.mha,well", "well/p00-0.mha,sick"))
    digests.append(digest())
    assert len(set(digests)) == len(digests)


def test_a_changed_metaimage_data_file_is_noticed(tmp_path: Path) -> None:
    for label in "ab":
        write(tmp_path / "set" / label / "1.mhd", picture(ord(label)))
    first = read_cohort(tmp_path / "set", cache=tmp_path / "cache")
    write(tmp_path / "set" / "a" / "1.mhd", picture(5))
    second = read_cohort(tmp_path / "set", cache=tmp_path / "cache")
    assert first.digest != second.digest
    np.testing.assert_array_equal(second.pixels(0), picture(5))


def test_a_pickled_cohort_carries_no_pixels(cohort: Cohort) -> None:
    content = pickle.dumps(cohort)
    assert len(content) < 1000
    again = pickle.loads(content)  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again.pixels(7), cohort.pixels(7))


def test_a_failed_reading_leaves_nothing_behind(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_decoding(monkeypatch)
    with pytest.raises(AssertionError, match="an image was decoded"):
        read_cohort(data, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_progress_ends_at_the_number_of_images(data: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_cohort(data, cache=tmp_path / "cache", on_progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (24, 24)


def break_images(data: Path, names: Sequence[str]) -> None:
    for name in names:
        (data / name).write_bytes(b"")


def test_all_bad_images_are_named_at_once(data: Path, tmp_path: Path) -> None:
    break_images(data, ["sick/p01-0.mha", "well/p02-1.mha"])
    with pytest.raises(DataError, match=r"2 of 24 images cannot be used .*use --skip-bad-images") as raised:
        read_cohort(data, cache=tmp_path / "cache")
    assert "sick/p01-0.mha: is empty (0 bytes)" in str(raised.value)
    assert "well/p02-1.mha: is empty (0 bytes)" in str(raised.value)


def test_at_most_twenty_bad_images_are_named(data: Path, tmp_path: Path) -> None:
    break_images(data, [path.relative_to(data).as_posix() for path in data.rglob("*.mha")][:22])
    with pytest.raises(DataError, match="and 2 more") as raised:
        read_cohort(data, cache=tmp_path / "cache")
    assert str(raised.value).count("is empty") == 20


def test_skipped_images_are_recorded_and_still_refused_without_the_flag(data: Path, tmp_path: Path) -> None:
    break_images(data, ["sick/p01-0.mha"])
    skipped = read_cohort(data, cache=tmp_path / "cache", skip_bad_images=True)
    assert len(skipped) == 23
    assert skipped.bad_images == (("sick/p01-0.mha", "is empty (0 bytes); copy it again."),)
    np.testing.assert_array_equal(skipped.pixels(0), picture(11))
    with pytest.raises(DataError, match="1 of 24 images cannot be used"):
        read_cohort(data, cache=tmp_path / "cache")


def test_skipping_a_whole_class_is_refused(data: Path, tmp_path: Path) -> None:
    break_images(data, [f"sick/{path.name}" for path in (data / "sick").iterdir()])
    with pytest.raises(DataError, match="one class, 'well'"):
        read_cohort(data, cache=tmp_path / "cache", skip_bad_images=True)


def test_mixed_colour_and_grey_is_refused_naming_one_of_each(tmp_path: Path) -> None:
    write(tmp_path / "set/a/grey.png", picture(0))
    write(tmp_path / "set/b/colour.png", np.stack([picture(1)] * 3, axis=-1))
    with pytest.raises(DataError, match=r"mix colour \('b/colour\.png'\) and grey \('a/grey\.png'\)"):
        read_cohort(tmp_path / "set", cache=tmp_path / "cache")


def test_masks_become_regions_and_regions_outside_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "set"
    mask = np.zeros((20, 24), np.uint8)
    mask[2:5, 3:9] = 255
    write(data / "mask.png", mask)
    write(data / "1.png", picture(1))
    write(data / "2.png", picture(2))
    (data / "labels.csv").write_text("path,label,mask,roi\n1.png,a,mask.png,\n2.png,b,,0;0;24;20\n")
    cohort = read_cohort(data, cache=tmp_path / "cache")
    assert [entry.roi for entry in cohort.entries] == [(3, 2, 6, 3), (0, 0, 24, 20)]
    (data / "labels.csv").write_text("path,label,mask,roi\n1.png,a,mask.png,\n2.png,b,,0;1;24;20\n")
    with pytest.raises(DataError, match=r"2\.png: has the roi \(0, 1, 24, 20\) outside its 24x20 pixels"):
        read_cohort(data, cache=tmp_path / "cache")


def test_archive_entries_become_images(tmp_path: Path) -> None:
    images = np.stack([picture(seed, 28, 28) for seed in range(5)])
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=np.array([[0], [1], [1], [0], [1]]))
    cohort = read_cohort(tmp_path / "m.npz", cache=tmp_path / "cache")
    assert [entry.id for entry in cohort.entries] == [f"train/{index:06d}" for index in range(5)]
    assert cohort.labels == (0, 1, 1, 0, 1)
    assert cohort.entries[0].split == "train"
    np.testing.assert_array_equal(cohort.pixels(3), images[3])


def test_an_archive_with_fewer_images_than_labels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", train_images=picture(0)[None], train_labels=np.array([0, 1]))
    with pytest.raises(DataError, match="2 train_labels and 1 train_images"):
        read_cohort(tmp_path / "m.npz", cache=tmp_path / "cache")


def test_images_with_equal_pixels_share_a_group(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "sick/p01-0.mha", data / "well/p02-1.mha")
    cohort = read_cohort(data, cache=tmp_path / "cache")
    groups = {entry.patient: entry.group for entry in cohort.entries}
    assert groups["p02"] == groups["p01"] == "p01"
    assert len(set(groups.values())) == 11
    assert cohort.near_duplicates == (("sick/p01-0.mha", "well/p02-1.mha"),)


def test_groups_chain_and_do_not_depend_on_order() -> None:
    patients, digests = ["c", "b", "b", "a", "d"], ["1", "1", "2", "2", "3"]
    assert group_names(patients, digests) == ["a", "a", "a", "a", "d"]
    assert group_names(patients[::-1], digests[::-1]) == ["d", "a", "a", "a", "a"]


def test_the_content_digest_depends_on_the_chosen_images_alone(cohort: Cohort, data: Path, tmp_path: Path) -> None:
    write(data / cohort.entries[9].id, picture(999))
    changed = read_cohort(data, cache=tmp_path / "cache")
    assert changed.content_digest(range(9)) == cohort.content_digest(range(9))
    assert changed.content_digest(range(10)) != cohort.content_digest(range(10))
    assert cohort.content_digest([0, 1]) != cohort.content_digest([1, 0])


def test_the_content_digest_changes_with_patient_and_label(cohort: Cohort, data: Path, tmp_path: Path) -> None:
    table = (data / "labels.csv").read_text()
    digests = {cohort.content_digest(range(24))}
    for change in ("sick/p01-0.mha,sick,p99", "sick/p01-0.mha,well,p01"):
        (data / "labels.csv").write_text(table.replace("sick/p01-0.mha,sick,p01", change))
        digests.add(read_cohort(data, cache=tmp_path / "cache").content_digest(range(24)))
    assert len(digests) == 3


def test_the_store_is_readable_by_others_and_plain_json(cohort: Cohort) -> None:
    assert cohort.folder.name == cohort.digest
    assert json.loads((cohort.folder / "cohort.json").read_text())["digest"] == cohort.digest


def blobs(seed: int) -> NDArray[np.float32]:
    """A smooth picture."""
    coarse = np.random.default_rng(seed).normal(size=(8, 8))
    return np.kron(coarse, np.ones((12, 12))).astype(np.float32)


def test_near_duplicates_are_found_across_patients_whatever_their_contrast() -> None:
    noise = np.random.default_rng(0).normal(size=(96, 96)).astype(np.float32) * 0.05
    pictures = [blobs(0), blobs(1), 40 + 7 * blobs(0) + noise, blobs(1), blobs(2)]
    thumbnails = np.stack([thumbnail(each) for each in pictures])
    assert near_duplicates(thumbnails, ["p", "q", "r", "q", "s"]) == [(0, 2)]


def test_a_thumbnail_is_the_mean_of_blocks() -> None:
    pixels = np.arange(64 * 96, dtype=np.float32).reshape(64, 96)
    np.testing.assert_allclose(thumbnail(pixels), pixels.reshape(32, 2, 32, 3).mean(axis=(1, 3)))
    assert thumbnail(pixels[:10, :50]).shape == (32, 32)
