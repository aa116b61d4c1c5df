"""The locked test set: chosen before anything is decoded, and refused when the data are others."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import trainables.data.cohort_building as building_module
import trainables.data.near_duplicates as near_duplicates_module
from spaces.protocol import OWN_SPLITS, Protocol
from tests.trainables.conftest import write_images
from trainables.data.decoding import Bad, Decoded
from trainables.data.evaluations import evaluations
from trainables.data.labels import LabelTable
from trainables.data.locked import LockedTest, has_part, lock
from trainables.data.near_duplicates import MAX_PAIRS
from trainables.data.source import Source
from trainables.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", patients=20)


def locked_of(folder: Path, share: float = 0.2, seed: int = 0) -> LockedTest:
    source = Source(data=str(folder))
    found = lock(source.table(), source, share=share, seed=seed)
    assert found is not None
    return found


def test_locking_opens_no_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **settings: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(building_module, "decode_rows", refuse)
    locked = locked_of(folder)
    assert (locked.classes, locked.counts, len(set(locked.patients))) == (("bright", "dark"), (4, 4), 4)


def test_the_search_reads_every_image_but_the_locked_ones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, read = locked_of(folder), building_module.decode_rows

    def guarded(table: LabelTable, *settings: object) -> Generator[Decoded | Bad, None, None]:
        assert not {row.id for row in table.rows} & set(locked.ids), "a locked image was opened"
        return read(table, *settings)  # type: ignore[arg-type]

    monkeypatch.setattr(building_module, "decode_rows", guarded)
    table = locked.source.table().part(locked.ids, inside=False)
    cohort = locked.source.decode(table, cache=tmp_path / "cache")
    assert len(cohort) == 32
    assert cohort.digest == locked.searched


def test_the_choice_depends_on_the_seed_alone_and_keeps_patients_whole(folder: Path) -> None:
    locked = locked_of(folder)
    assert locked_of(folder).ids == locked.ids
    assert any(locked_of(folder, seed=seed).ids != locked.ids for seed in (1, 2))
    patients = {row.id: row.patient for row in locked.source.table().rows}
    held = {patients[name] for name in locked.ids}
    assert sorted(name for name, patient in patients.items() if patient in held) == list(locked.ids)


def test_files_with_equal_bytes_are_locked_together(folder: Path) -> None:
    for patient in range(2, 20, 2):
        shutil.copy(folder / "dark-0-0.png", folder / f"dark-{patient}-0.png")
    rows = (folder / "labels.csv").read_text().splitlines()
    same = {f"dark-{patient}-0.png" for patient in range(0, 20, 2)}
    (folder / "labels.csv").write_text(
        "\n".join([rows[0], *(row for row in rows[1:] if "dark" in row or "-1.png" in row)])
    )
    table = Source(data=str(folder)).table()
    extra = [f"more-{number}.png" for number in range(6)]
    for number, name in enumerate(extra):
        shutil.copy(folder / f"bright-{2 * number + 1}-0.png", folder / name)
    with (folder / "labels.csv").open("a") as text:
        text.write("\n" + "\n".join(f"{name},dark,q{number}" for number, name in enumerate(extra)))
    assert len(table.rows) == 30
    locked = locked_of(folder, share=0.3)
    assert same <= set(locked.ids) or not same & set(locked.ids)


def test_a_locked_set_survives_its_file(folder: Path, tmp_path: Path) -> None:
    locked = locked_of(folder)
    (tmp_path / "search").mkdir()
    assert LockedTest.read(tmp_path / "search") is None
    locked.write(tmp_path / "search")
    assert LockedTest.read(tmp_path / "search") == locked


def test_unlocking_gives_all_images_once_the_data_are_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    locked = locked_of(Path("data"))
    monkeypatch.chdir(tmp_path.parent)
    unlocked = locked.unlock(cache=tmp_path / "cache")
    assert (len(unlocked.cohort), unlocked.seen) == (40, ())


def test_a_split_file_is_found_from_every_folder_and_the_labels_own_parts_stay_a_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    monkeypatch.chdir(folder.parent)
    (folder.parent / OWN_SPLITS).mkdir()
    assert Source(data="data", split_file=file.name).absolute().split_file == str(file)
    assert Source(data="data", split_file=OWN_SPLITS).absolute().split_file == OWN_SPLITS


@pytest.mark.parametrize("where", ["locked", "searched"])
def test_a_changed_image_is_refused_on_either_side(folder: Path, tmp_path: Path, where: str) -> None:
    import SimpleITK

    locked = locked_of(folder)
    names = {row.id for row in locked.source.table().rows}
    name = locked.ids[0] if where == "locked" else min(names - set(locked.ids))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((32, 32), np.uint8)), str(folder / name))
    with pytest.raises(DataError, match=f"the {where} images of .* are not those of the day they were locked"):
        locked.unlock(cache=tmp_path / "cache")


def test_a_changed_label_is_refused(folder: Path, tmp_path: Path) -> None:
    locked = locked_of(folder)
    text = (folder / "labels.csv").read_text().replace(f"{locked.ids[0]},bright", f"{locked.ids[0]},dark")
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match="the locked images"):
        locked.unlock(cache=tmp_path / "cache")


def parts_file(folder: Path, parts: tuple[str, ...]) -> str:
    rows = (folder / "labels.csv").read_text().splitlines()[1:]
    named = {path: patient for path, _, patient in (row.split(",") for row in rows)}
    lines = [f"{path},{parts[int(patient[1:]) // 2 % len(parts)]}" for path, patient in named.items()]
    (folder.parent / "parts.csv").write_text("\n".join(["path,split", *lines]) + "\n")
    return str(folder.parent / "parts.csv")


def test_the_test_part_of_a_split_file_is_locked(folder: Path) -> None:
    source = Source(data=str(folder), split_file=parts_file(folder, ("train", "val", "test")))
    table = source.table()
    locked = lock(table, source, share=None, seed=0)
    assert locked is not None
    assert set(locked.ids) == {row.id for row in table.rows if row.split == "test"}
    assert has_part(table, "val")


def test_without_share_and_split_file_nothing_is_locked(folder: Path) -> None:
    source = Source(data=str(folder))
    assert lock(source.table(), source, share=None, seed=0) is None


def test_a_split_file_must_name_every_image_and_no_other(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    text = file.read_text()
    file.write_text(text.replace("bright-1-0.png,train\n", ""))
    with pytest.raises(DataError, match=r"1 image has no part in '.*', such as 'bright-1-0\.png'; expected"):
        Source(data=str(folder), split_file=str(file)).table()
    file.write_text(text + "other.png,train\n")
    with pytest.raises(DataError, match=r"1 name in '.*' is no image of the data, such as 'other\.png'; expected"):
        Source(data=str(folder), split_file=str(file)).table()
    file.write_text(text.replace(",test", ",exam"))
    with pytest.raises(DataError, match="has the split 'exam'"):
        Source(data=str(folder), split_file=str(file)).table()
    with pytest.raises(DataError, match=r"--split-file '.*none\.csv' does not exist"):
        Source(data=str(folder), split_file=str(file.with_name("none.csv"))).table()


def test_a_split_file_that_is_not_there_is_refused_with_where_it_was_looked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    source = Source(data=str(folder), split_file="parts.csv")
    where = rf"--split-file 'parts\.csv' does not exist.* in '{tmp_path}/here' \(a path counts from the current folder"
    with pytest.raises(DataError, match=rf"{where}.* Correct the path"):
        source.table()
    (folder / "parts.csv").touch()
    with pytest.raises(DataError, match=rf"{where}.* Give --split-file '{folder}/parts\.csv'"):
        source.table()


def test_a_split_file_without_commas_is_refused_by_its_separator(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    file.write_text(file.read_text().replace(",", ";"))
    with pytest.raises(DataError, match=r"--split-file '.*parts\.csv' is separated by ';'; expected commas"):
        Source(data=str(folder), split_file=str(file)).table()


def test_a_split_file_may_name_images_by_their_whole_paths(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    source = Source(data=str(folder), split_file=str(file))
    relative = source.table()
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *(f"{folder}/{row}" for row in rows)]))
    assert source.table() == relative
    file.write_text(f"{file.read_text()}\nbright-1-0.png,train\n")
    with pytest.raises(DataError, match=r"names 'bright-1-0.png' again"):
        source.table()


def test_several_images_without_a_part_are_counted_in_the_plural(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("bright-1-")))
    with pytest.raises(DataError, match=r"2 images have no part in"):
        Source(data=str(folder), split_file=str(file)).table()


@pytest.mark.parametrize(
    ("row", "refusal"),
    [
        ("bright-1-0.png,test", r"line 42 of '.*parts.csv' names 'bright-1-0.png' again"),
        ("bright-1-0.png,train", r"line 42 of '.*parts.csv' names 'bright-1-0.png' again"),
        (",train", r"line 42 of '.*parts.csv' has a part and no path"),
    ],
)
def test_a_path_that_stands_twice_or_not_at_all_in_a_split_file_is_refused_by_its_line(
    folder: Path, row: str, refusal: str
) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    file.write_text(f"{file.read_text()}{row}\n")
    with pytest.raises(DataError, match=refusal):
        Source(data=str(folder), split_file=str(file)).table()


def test_empty_rows_of_a_split_file_count_for_nothing_and_short_ones_have_no_part(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    text = file.read_text()
    file.write_text(text.replace("\n", "\n\n,\n \n", 1))
    assert has_part(Source(data=str(folder), split_file=str(file)).table(), "val")
    file.write_text(text.replace("bright-1-0.png,train", "bright-1-0.png"))
    with pytest.raises(DataError, match=r"1 image has no part in '.*', such as 'bright-1-0\.png'; expected"):
        Source(data=str(folder), split_file=str(file)).table()


def test_equal_files_on_both_sides_of_a_split_file_are_refused_by_name(folder: Path) -> None:
    source = Source(data=str(folder), split_file=parts_file(folder, ("train", "val", "test")))
    shutil.copy(folder / "dark-0-0.png", folder / "bright-3-1.png")  # both of the part "train" or "val"
    assert lock(source.table(), source, share=None, seed=0) is not None
    shutil.copy(folder / "dark-0-0.png", folder / "dark-4-0.png")
    with pytest.raises(
        DataError, match=r"1 image into test .* 'dark-4-0.png' and '(dark-0-0|bright-3-1).png' the first"
    ):
        lock(source.table(), source, share=None, seed=0)


def test_equal_files_with_different_masks_are_equal_all_the_same(folder: Path) -> None:
    file = parts_file(folder, ("train", "val", "test"))
    shutil.copy(folder / "dark-0-0.png", folder / "dark-4-0.png")
    rows = (folder / "labels.csv").read_text().splitlines()
    masks = [f"{row},dark-8-{int('dark-4' in row)}.png" for row in rows[1:]]
    (folder / "labels.csv").write_text("\n".join([f"{rows[0]},mask", *masks]))
    table = Source(data=str(folder), split_file=file).table()
    with pytest.raises(DataError, match=r"'dark-4-0.png' and 'dark-0-0.png' the first"):
        lock(table, Source(data=str(folder), split_file=file), share=None, seed=0)


def test_a_patient_on_both_sides_of_a_split_file_is_refused(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    file.write_text(file.read_text().replace("dark-4-0.png,test", "dark-4-0.png,train"))
    source = Source(data=str(folder), split_file=str(file))
    with pytest.raises(DataError, match="1 patient into test and elsewhere, 'p4'"):
        lock(source.table(), source, share=None, seed=0)


def test_the_labels_own_parts_are_taken_by_name_even_where_a_file_has_that_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (folder / "labels.csv").read_text().splitlines()
    parts = ("train", "val", "test")
    lines = [f"{rows[0]},split", *(f"{row},{parts[number // 4 % 3]}" for number, row in enumerate(rows[1:]))]
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder.parent / OWN_SPLITS).write_text("path,split\n")
    monkeypatch.chdir(folder.parent)
    table = Source(data=str(folder), split_file=OWN_SPLITS).table()
    assert {row.split for row in table.rows} == set(parts)


def test_an_archive_loses_its_locked_images_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        name: value
        for part, count in {"train": 20, "val": 8, "test": 8}.items()
        for name, value in {
            f"{part}_images": rng.integers(0, 255, (count, 16, 16)).astype(np.uint8),
            f"{part}_labels": (np.arange(count) % 2)[:, None].astype(np.uint8),
        }.items()
    }
    np.savez(tmp_path / "set.npz", **arrays)
    source = Source(data=str(tmp_path / "set.npz"), split_file=OWN_SPLITS)
    table = source.table()
    locked = lock(table, source, share=None, seed=0)
    assert locked is not None
    assert len(locked.ids) == 8
    cohort = source.decode(table.part(locked.ids, inside=False), cache=tmp_path / "cache")
    assert len(cohort) == 28
    np.testing.assert_array_equal(cohort.pixels(0), arrays["train_images"][0])


def locked_archive(folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> LockedTest:
    """An archive of images by parts, whose part "test" is locked."""
    arrays = {f"{part}_images": each for part, each in images.items()}
    labels = {f"{part}_labels": (np.arange(len(each)) % 2)[:, None].astype(np.uint8) for part, each in images.items()}
    np.savez(folder / "set.npz", **arrays, **labels)  # type: ignore[arg-type]
    source = Source(data=str(folder / "set.npz"), split_file=OWN_SPLITS)
    locked = lock(source.table(), source, share=None, seed=0)
    assert locked is not None
    return locked


def test_unlocking_an_archive_names_the_locked_images_that_the_search_has_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {part: rng.integers(0, 200, (8, 32, 32)).astype(np.uint8) for part in ("train", "val", "test")}
    images["test"][2] = images["train"][5]  # equal to a searched image
    images["test"][4] = images["val"][1] + 9  # nearly equal to one
    images["test"][6] = images["test"][7] + 9  # nearly equal among the locked
    images["train"][0] = images["val"][0] + 9  # and among the searched
    locked = locked_archive(tmp_path, images)
    assert locked.unlock(cache=tmp_path / "cache").seen == ("test/000002", "test/000004")


def test_copies_of_locked_images_are_kept_back_however_many_others_are_nearly_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = {part: rng.integers(0, 200, (50, 32, 32)).astype(np.uint8) for part in ("train", "val", "test")}
    images["test"][:46] = images["test"][0] + np.arange(46, dtype=np.uint8)[:, None, None]  # 1,035 pairs
    images["test"][48] = images["train"][5] + 9
    images["val"][7] = images["test"][49] + 9
    images["train"][8] = images["val"][8] + 9
    locked = locked_archive(tmp_path, images)
    opened = locked.unlock(cache=tmp_path / "cache")
    assert len(opened.cohort.near_duplicates) == MAX_PAIRS
    assert opened.seen == ("test/000048", "test/000049")
    split = evaluations(opened.cohort, Protocol(folds=2, test_repeats=1), seed=0, locked=locked.ids)[-1]
    taught = {opened.cohort.entries[index].id for index in split.train}
    searched = {entry.id for entry in opened.cohort.entries} - set(locked.ids)
    assert searched - taught == {"train/000005", "val/000007"}
    monkeypatch.setattr(near_duplicates_module, "MAX_PAIRS", 10**6)
    listed = locked.unlock(cache=tmp_path / "another")
    assert len(listed.cohort.near_duplicates) == 46 * 45 / 2 + 3
    assert listed.seen == opened.seen


def test_all_images_of_a_locked_patient_are_seen_once_one_has_equal_pixels_in_another_file(
    folder: Path, tmp_path: Path
) -> None:
    import SimpleITK

    source = Source(data=str(folder), split_file=parts_file(folder, ("train", "val", "test")))
    image = SimpleITK.ReadImage(str(folder / "dark-0-0.png"))
    SimpleITK.WriteImage(image, str(folder / "dark-4-0.png"), useCompression=True, compressionLevel=0)
    assert (folder / "dark-0-0.png").read_bytes() != (folder / "dark-4-0.png").read_bytes()
    locked = lock(source.table(), source, share=None, seed=0)
    assert locked is not None
    assert locked.unlock(cache=tmp_path / "cache").seen == ("dark-4-0.png", "dark-4-1.png")


def test_a_nearly_equal_locked_image_is_seen_whether_its_name_comes_first_or_last(folder: Path, tmp_path: Path) -> None:
    import SimpleITK

    source = Source(data=str(folder), split_file=parts_file(folder, ("train", "val", "test")))
    for searched, name in {"bright-1-0.png": "dark-4-0.png", "dark-8-0.png": "bright-5-0.png"}.items():
        brighter = SimpleITK.ReadImage(str(folder / searched)) + 7
        SimpleITK.WriteImage(brighter, str(folder / name))
    locked = lock(source.table(), source, share=None, seed=0)
    assert locked is not None
    assert locked.unlock(cache=tmp_path / "cache").seen == ("bright-5-0.png", "dark-4-0.png")


def test_a_split_file_for_an_archive_is_refused_before_its_rows_are_looked_at(tmp_path: Path) -> None:
    labels = {f"{part}_labels": np.array([[0], [1]], np.uint8) for part in ("train", "val", "test")}
    images = {f"{part}_images": np.zeros((2, 8, 8), np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "set.npz", **images, **labels)  # type: ignore[arg-type]
    (tmp_path / "parts.csv").write_text("path,split\na.png,train\n")
    with pytest.raises(DataError, match="was given with an archive"):
        Source(data=str(tmp_path / "set.npz"), split_file=str(tmp_path / "parts.csv")).table()
