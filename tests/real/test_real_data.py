"""The two public image sets: counts, patients and folds, as their README says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from spaces.config import PreprocessConfig
from trainables.data.cohort import Cohort
from trainables.data.positive import positive_class
from trainables.data.preprocess import fit_scaling, preprocess
from trainables.data.reading import read_cohort
from trainables.data.splits import make_folds

FOLDER = os.environ.get("GENMIX_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER, reason="GENMIX_REAL_DATA names no folder with the real image sets"),
]
SETS = [
    ("cardiac_sunnybrook", "labels.csv"),
    ("cardiac_sunnybrook", "labels_binary.csv"),
    ("cxr_nih_pneumonia", "labels.csv"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def cohort_of(name: str, labels: str, cache: Path) -> Cohort:
    return read_cohort(Path(FOLDER or "") / name, labels, cache=cache)


@pytest.mark.parametrize(
    ("name", "labels", "counts", "n_patients"),
    [
        (*SETS[0], {"HF-I": 245, "HF-NI": 234, "HYP": 184, "N": 142}, 45),
        (*SETS[1], {"diseased": 663, "normal": 142}, 45),
        (*SETS[2], {"No_findings": 500, "Pneumonia": 500}, 682),
    ],
)
def test_a_set_has_the_images_that_its_readme_lists(
    name: str, labels: str, counts: dict[str, int], n_patients: int, cache: Path
) -> None:
    cohort = cohort_of(name, labels, cache)
    assert dict(zip(cohort.classes, cohort.counts, strict=True)) == counts
    assert cohort.n_patients == n_patients
    assert {entry.shape for entry in cohort.entries} == {(128, 128)}
    assert cohort.bad_images == ()
    assert cohort.near_duplicates == ()


def test_twenty_one_chest_patients_are_in_both_classes(cache: Path) -> None:
    cohort = cohort_of(*SETS[2], cache)
    labels: dict[str, set[int]] = {}
    for entry in cohort.entries:
        labels.setdefault(entry.patient, set()).add(entry.label)
    assert sum(len(each) == 2 for each in labels.values()) == 21


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "labels"), SETS)
def test_no_patient_is_in_two_folds_and_every_test_fold_has_every_class(
    name: str, labels: str, seed: int, cache: Path
) -> None:
    cohort = cohort_of(name, labels, cache)
    tested: list[int] = []
    for split in make_folds(cohort, folds=5, seed=seed):
        train = {cohort.entries[index].patient for index in split.train}
        test = {cohort.entries[index].patient for index in split.test}
        assert not train & test
        assert {cohort.labels[index] for index in split.test} == set(range(len(cohort.classes)))
        tested += split.test
    assert sorted(tested) == list(range(len(cohort)))


@pytest.mark.parametrize(("name", "labels"), SETS)
def test_preprocessed_images_use_the_whole_range(name: str, labels: str, cache: Path) -> None:
    cohort = cohort_of(name, labels, cache)
    config = PreprocessConfig(pixels=32)
    split = make_folds(cohort, folds=5, seed=0)[0]
    images = preprocess(cohort, split.test, fit_scaling(cohort, split.train, config), config)
    assert np.isfinite(images.images_NCHW.numpy()).all()
    assert float(images.images_NCHW.std()) > 0.25


def test_the_positive_classes_are_the_diseased(cache: Path) -> None:
    for name, positive in ((SETS[1], "diseased"), (SETS[2], "Pneumonia")):
        classes = cohort_of(*name, cache).classes
        assert classes[positive_class(classes)] == positive
