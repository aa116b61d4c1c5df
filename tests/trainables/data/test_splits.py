from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainables.data.cohort import Cohort, Entry
from trainables.data.splits import make_folds
from trainables.errors import DataError


def cohort_of(patients: dict[str, tuple[str, int]], *, patients_known: bool = True) -> Cohort:
    """Patients with a class name and a number of images; no pixels."""
    classes = tuple(sorted({label for label, _ in patients.values()}))
    entries = tuple(
        Entry(
            id=f"{patient}/{view}", label=classes.index(label), patient=patient, group=patient, site="", split="",
            roi=None, shape=(8, 8), offset=0, spacing=None, pixel_digest="",
        )
        for patient, (label, count) in sorted(patients.items())
        for view in range(count)
    )  # fmt: skip
    return Cohort(
        folder=Path(), digest="", source="labels.csv of data/fll", is_phantom=False, patients_known=patients_known,
        classes=classes, entries=entries, bad_images=(), near_duplicates=(), _values=np.zeros(0, np.float32),
    )  # fmt: skip


def uneven(n_minority: int = 9, n_patients: int = 45, seed: int = 0) -> Cohort:
    """A minority of patients, and patients with 4 to 26 images, as in the cardiac set."""
    counts = np.random.default_rng(seed).integers(4, 27, n_patients)
    return cohort_of({f"p{i:02d}": ("n" if i < n_minority else "d", int(count)) for i, count in enumerate(counts)})


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_never_appears_in_two_folds(seed: int) -> None:
    cohort = uneven(seed=seed)
    for split in make_folds(cohort, folds=5, seed=seed):
        train = {cohort.entries[index].patient for index in split.train}
        test = {cohort.entries[index].patient for index in split.test}
        assert not train & test


def test_images_of_one_group_share_a_fold_even_if_their_patients_differ() -> None:
    cohort = uneven()
    entries = tuple(
        replace(entry, group="p00") if entry.patient in ("p00", "p01") else entry for entry in cohort.entries
    )
    cohort = replace(cohort, entries=entries)
    for seed in range(4):
        for split in make_folds(cohort, folds=4, seed=seed):
            patients = {cohort.entries[index].patient for index in split.test}
            assert ("p00" in patients) == ("p01" in patients)


def test_every_image_is_tested_once_and_trains_in_the_other_folds() -> None:
    cohort = uneven()
    splits = make_folds(cohort, folds=5, seed=1)
    assert sorted(index for split in splits for index in split.test) == list(range(len(cohort)))
    for split in splits:
        assert sorted(split.train + split.test) == list(range(len(cohort)))
    assert [split.fold for split in splits] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(8))
def test_every_test_fold_has_every_class_where_that_is_possible(seed: int) -> None:
    cohort = uneven(n_minority=6, seed=seed)
    labels = np.asarray(cohort.labels)
    for split in make_folds(cohort, folds=5, seed=seed):
        assert set(labels[list(split.test)]) == {0, 1}


@pytest.mark.parametrize("seed", range(4))
def test_folds_have_equally_many_patients_of_each_class_give_or_take_one(seed: int) -> None:
    cohort = uneven(n_minority=12, seed=seed)
    counts = [
        [len({cohort.entries[i].patient for i in split.test if cohort.labels[i] == label}) for label in (0, 1)]
        for split in make_folds(cohort, folds=5, seed=seed)
    ]
    assert np.ptp(counts, axis=0).max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_a_class_that_exists_only_beside_another_reaches_every_test_fold(seed: int) -> None:
    """Six of fourteen patients have one image of class a; most random deals leave some fold without."""
    sizes = np.random.default_rng(seed).integers(3, 9, 14)
    cohort = cohort_of({f"p{i:02d}": ("b", int(size)) for i, size in enumerate(sizes)})
    mixed = {f"p{i:02d}/0" for i in range(6)}
    entries = tuple(replace(entry, label=0 if entry.id in mixed else 1) for entry in cohort.entries)
    cohort = replace(cohort, classes=("a", "b"), entries=entries)
    labels = np.asarray(cohort.labels)
    for split in make_folds(cohort, folds=5, seed=seed):
        assert set(labels[list(split.test)]) == {0, 1}


def test_different_seeds_deal_uneven_patients_differently() -> None:
    """Of two patients tested together under one seed, about as many as by chance are so under another."""
    cohort = uneven()
    patients = sorted({entry.patient for entry in cohort.entries})
    together = []
    for seed in range(6):
        folds = {
            cohort.entries[index].patient: split.fold
            for split in make_folds(cohort, folds=5, seed=seed)
            for index in split.test
        }
        fold_P = np.asarray([folds[patient] for patient in patients])
        together.append((fold_P[:, None] == fold_P)[np.triu_indices(len(patients), 1)])
    shared = [(one & other).sum() / one.sum() for i, one in enumerate(together) for other in together[:i]]
    assert np.mean(shared) < 0.25


def test_the_split_follows_the_seed_and_nothing_else() -> None:
    cohort = uneven()
    assert make_folds(cohort, folds=5, seed=3) == make_folds(cohort, folds=5, seed=3)
    assert make_folds(cohort, folds=5, seed=3) != make_folds(cohort, folds=5, seed=4)


def test_pixels_do_not_change_the_split() -> None:
    cohort = uneven()
    entries = tuple(replace(entry, pixel_digest="x", spacing=(2.0, 2.0)) for entry in cohort.entries)
    assert make_folds(replace(cohort, entries=entries), folds=5, seed=3) == make_folds(cohort, folds=5, seed=3)


def test_a_label_with_fewer_patients_than_folds_is_named_with_what_to_do() -> None:
    cohort = cohort_of({f"p{i}": ("hemangioma" if i < 3 else "hcc", 9) for i in range(20)})
    with pytest.raises(DataError) as raised:
        make_folds(cohort, folds=5, seed=0)
    assert str(raised.value) == (
        "label 'hemangioma' has 3 patients, fewer than the 5 folds asked for (labels.csv of data/fll). "
        "Use --folds 3 or add patients."
    )


def test_without_known_patients_images_are_counted() -> None:
    cohort = cohort_of({f"p{i}": ("a" if i < 1 else "b", 1) for i in range(20)}, patients_known=False)
    with pytest.raises(DataError, match=r"label 'a' has 1 image, fewer than the 2 folds .*\. Add images\."):
        make_folds(cohort, folds=2, seed=0)


def test_fewer_than_two_folds_are_refused() -> None:
    with pytest.raises(DataError, match="--folds is 1; expected at least 2"):
        make_folds(uneven(), folds=1, seed=0)


def test_a_class_that_is_in_one_group_cannot_be_split() -> None:
    cohort = cohort_of({f"p{i}": ("a" if i < 2 else "b", 3) for i in range(6)})
    entries = tuple(replace(entry, group="p0") if entry.label == 0 else entry for entry in cohort.entries)
    with pytest.raises(DataError, match="label 'a' has 1 patient, fewer than the 2 folds"):
        make_folds(replace(cohort, entries=entries), folds=2, seed=0)
