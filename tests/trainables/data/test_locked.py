"""The locked test set: chosen before anything is decoded, and refused when the data are others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import trainables.data.cohort as cohort_module
from spaces.protocol import OWN_SPLITS
from tests.trainables.conftest import write_images
from trainables.data.locked import LockedTest, Source, has_part, lock
from trainables.data.readers import Picture
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
    def refuse(*given: object, **settings: object) -> Picture:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(cohort_module, "read_picture", refuse)
    locked = locked_of(folder)
    assert (locked.classes, locked.counts, len(set(locked.patients))) == (("bright", "dark"), (4, 4), 4)


def test_the_search_reads_every_image_but_the_locked_ones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, read = locked_of(folder), cohort_module.read_picture

    def guarded(path: Path, **settings: object) -> Picture:
        assert path.name not in locked.ids, "a locked image was opened"
        return read(path, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(cohort_module, "read_picture", guarded)
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
    assert len(locked.unlock(cache=tmp_path / "cache")) == 40


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
    with pytest.raises(DataError, match=r"1 images have a fault .* 'bright-1-0.png' has no part"):
        Source(data=str(folder), split_file=str(file)).table()
    file.write_text(text + "other.png,train\n")
    with pytest.raises(DataError, match=r"'other.png' is no image of the data"):
        Source(data=str(folder), split_file=str(file)).table()
    file.write_text(text.replace(",test", ",exam"))
    with pytest.raises(DataError, match="has the split 'exam'"):
        Source(data=str(folder), split_file=str(file)).table()
    with pytest.raises(DataError, match="cannot be read"):
        Source(data=str(folder), split_file=str(file.with_name("none.csv"))).table()


def test_a_patient_on_both_sides_of_a_split_file_is_refused(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    file.write_text(file.read_text().replace("dark-4-0.png,test", "dark-4-0.png,train"))
    source = Source(data=str(folder), split_file=str(file))
    with pytest.raises(DataError, match="1 patients into test and elsewhere, 'p4'"):
        lock(source.table(), source, share=None, seed=0)


def test_the_labels_own_parts_are_taken_by_name(folder: Path) -> None:
    rows = (folder / "labels.csv").read_text().splitlines()
    parts = ("train", "val", "test")
    lines = [f"{rows[0]},split", *(f"{row},{parts[number // 4 % 3]}" for number, row in enumerate(rows[1:]))]
    (folder / "labels.csv").write_text("\n".join(lines))
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
