"""Stratified k-fold splits in which a patient is in one fold only."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.cohort import Cohort
from trainables.errors import DataError
from trainables.seeding import stream

ATTEMPTS = 50
"""Random deals that are tried at most."""

GOOD_IMBALANCE = 0.02**2
"""Class counts within about 2 % of equal shares; such a deal is taken at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldSplit:
    """One fold of a split: sorted positions of the cohort's entries."""

    fold: int
    train: tuple[int, ...]
    test: tuple[int, ...]


def make_folds(cohort: Cohort, *, folds: int, seed: int) -> tuple[FoldSplit, ...]:
    """Split a cohort into folds, stratified by label and grouped by patient.

    Patients are dealt out at random, so that each fold gets equally many of each class, give or take one; a patient
    with several labels counts for the most frequent. Up to ``ATTEMPTS`` such deals are drawn from seeds derived from
    ``seed``. The first is taken whose image counts of each class lie within about 2 % of equal shares; failing that,
    the one that lies closest, a deal with every class in every test fold going before one without. The split depends
    on ids, labels and groups alone, not on the order of files.

    Args:
        cohort: the data set.
        folds: number of folds, at least 2.
        seed: the search's seed, or a repeat's.

    Returns:
        The folds, in order. Every image is tested once, every training fold has every class.

    Raises:
        DataError: a class has fewer patients than folds, or no deal leaves every class in each training fold.

    Source: scikit-learn's StratifiedKFold over patients. Its StratifiedGroupKFold deals by size first: where
    patients differ in size, the folds of different seeds resemble each other, and some lack a class needlessly.
    """
    labels_N = np.asarray(cohort.labels)
    groups_N = np.asarray([entry.group for entry in cohort.entries])
    _check_patients(cohort, labels_N, groups_N, folds)
    best: tuple[tuple[int, float], list[NDArray[np.intp]]] | None = None
    for tests in _deals(labels_N, groups_N, folds, seed):
        imbalance = _imbalance(labels_N, tests, len(cohort.classes))
        if imbalance is not None and (best is None or imbalance < best[0]):
            best = imbalance, tests
            if imbalance <= (0, GOOD_IMBALANCE):
                break
    if best is None:
        raise DataError(
            f"no way was found to split {cohort.n_patients} patients into {folds} folds with every class in each "
            f"training fold ({cohort.source}). Use fewer --folds or add patients."
        )
    everything = np.arange(len(cohort))
    return tuple(
        FoldSplit(fold=fold, train=tuple(np.setdiff1d(everything, test).tolist()), test=tuple(test.tolist()))
        for fold, test in enumerate(best[1])
    )


def _check_patients(cohort: Cohort, labels_N: NDArray[np.intp], groups_N: NDArray[np.str_], folds: int) -> None:
    if folds < 2:
        raise DataError(f"--folds is {folds}; expected at least 2.")
    unit = "patients" if cohort.patients_known else "images"
    counts = [len(set(groups_N[labels_N == label])) for label in range(len(cohort.classes))]
    fewest = int(np.argmin(counts))
    if counts[fewest] >= folds:
        return
    noun = unit if counts[fewest] != 1 else unit.removesuffix("s")
    advice = f"Use --folds {counts[fewest]} or add {unit}." if counts[fewest] >= 2 else f"Add {unit}."
    raise DataError(
        f"label '{cohort.classes[fewest]}' has {counts[fewest]} {noun}, fewer than the {folds} folds asked for "
        f"({cohort.source}). {advice}"
    )


def _deals(
    labels_N: NDArray[np.intp], groups_N: NDArray[np.str_], folds: int, seed: int
) -> Iterator[list[NDArray[np.intp]]]:
    """The test folds of each attempt. Groups are numbered by name, so that only names matter."""
    from sklearn.model_selection import StratifiedKFold

    names_G, codes_N = np.unique(groups_N, return_inverse=True)
    counts_GK = np.zeros((len(names_G), labels_N.max() + 1), dtype=np.intp)
    np.add.at(counts_GK, (codes_N, labels_N), 1)
    strata_G = counts_GK.argmax(axis=1)
    if np.bincount(strata_G).max() < folds:
        strata_G = np.zeros_like(strata_G)  # classes that live in mixed groups only: deal without strata
    for attempt in range(ATTEMPTS):
        name = "splits" if attempt == 0 else f"splits/{attempt}"
        splitter = StratifiedKFold(n_splits=folds, shuffle=True, random_state=stream(seed, name) % 2**32)
        with warnings.catch_warnings():
            # "The least populated class has fewer members": patients of each class are counted before.
            warnings.simplefilter("ignore", UserWarning)
            chosen = [test_G for _, test_G in splitter.split(strata_G, strata_G)]
        yield [np.flatnonzero(np.isin(codes_N, test_G)) for test_G in chosen]


def _imbalance(labels_N: NDArray[np.intp], tests: list[NDArray[np.intp]], n_classes: int) -> tuple[int, float] | None:
    """How many classes test folds lack, and the mean squared deviation of class counts from equal shares.

    None where the deal cannot be used: an empty test fold, or a training fold without a class.
    """
    counts_FK = np.stack([np.bincount(labels_N[test], minlength=n_classes) for test in tests])
    totals_K = counts_FK.sum(axis=0)
    if (counts_FK.sum(axis=1) == 0).any() or (counts_FK == totals_K).any():
        return None
    shares_FK = counts_FK * len(tests) / totals_K
    return int((counts_FK == 0).sum()), float(np.square(shares_FK - 1).mean())
