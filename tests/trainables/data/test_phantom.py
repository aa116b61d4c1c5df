from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from trainables.data.phantom import write_phantom
from trainables.data.reading import read_cohort
from trainables.data.splits import make_folds
from trainables.errors import DataError


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        contents(write_phantom(tmp_path / name, seed=seed, patients=4, slices=2))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert len(set(first.values()) & set(other.values())) == 0


def test_a_phantom_is_a_data_set_that_can_be_split_by_patient(tmp_path: Path) -> None:
    folder = write_phantom(tmp_path / "phantom", patients=10, slices=3)
    cohort = read_cohort(folder, cache=tmp_path / "cache", is_phantom=True)
    assert cohort.classes == ("diseased", "healthy")
    assert cohort.counts == (18, 12)
    assert (cohort.n_patients, cohort.patients_known, cohort.is_phantom) == (10, True, True)
    assert cohort.near_duplicates == ()
    spacings = {entry.spacing for entry in cohort.entries}
    assert len(spacings) == 10
    assert all(spacing is not None and 1.2 <= spacing[0] <= 1.4 for spacing in spacings)
    assert len(make_folds(cohort, folds=3, seed=0)) == 3


def test_patients_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = write_phantom(tmp_path / "few", patients=4, slices=1)
    many = write_phantom(tmp_path / "many", patients=8, slices=1)
    shared = contents(few).items() & contents(many).items()
    assert [name for name, _ in shared if name.endswith(".mha")]


def test_every_file_says_that_it_is_synthetic(tmp_path: Path) -> None:
    folder = write_phantom(tmp_path / "phantom", patients=4, slices=1)
    assert (folder / "README.txt").read_text().startswith("SYNTHETIC PHANTOM - NOT PATIENT DATA")
    for path in folder.rglob("*.mha"):
        assert b"ImageComments = synthetic phantom" in path.read_bytes()[:1000]


def test_a_phantom_that_is_there_is_left_alone(tmp_path: Path) -> None:
    folder = write_phantom(tmp_path / "phantom", patients=4, slices=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_phantom(folder, patients=4, slices=1) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_folder_or_another_phantom_is_never_overwritten(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists and is not the phantom asked for"):
        write_phantom(tmp_path, patients=4, slices=1)
    folder = write_phantom(tmp_path / "phantom", patients=4, slices=1)
    with pytest.raises(DataError, match="exists and is not the phantom asked for"):
        write_phantom(folder, seed=1, patients=4, slices=1)


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainables.data.phantom.draw_slice", stop)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "phantom", patients=4, slices=1)
    assert list(tmp_path.iterdir()) == []


def test_thick_walls_separate_the_classes_only_in_part(tmp_path: Path) -> None:
    """Mean intensity around the centre, where cavity and wall lie, overlaps between the classes."""
    cohort = read_cohort(write_phantom(tmp_path / "phantom", patients=20, slices=1), cache=tmp_path / "cache")
    means = np.array([cohort.pixels(index)[38:58, 38:58].mean() for index in range(len(cohort))])
    labels = np.asarray(cohort.labels)
    assert means[labels == 0].max() > means[labels == 1].min()
    assert means[labels == 1].max() > means[labels == 0].min()
