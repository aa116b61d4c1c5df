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
"""Shuffles that are tried at most."""

GOOD_IMBALANCE = 0.05**2
"""Class counts within about 5 % of equal shares; such a shuffle is taken at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldSplit:
    """One fold of a split: sorted positions of the cohort's entries."""

    fold: int
    train: tuple[int, ...]
    test: tuple[int, ...]


def make_folds(cohort: Cohort, *, folds: int, seed: int) -> tuple[FoldSplit, ...]:
    """Split a cohort into folds, stratified by label and grouped by patient.

    Up to ``ATTEMPTS`` shuffles are drawn from seeds derived from ``seed``. Every image is tested once, every
    training fold has every class. The first shuffle whose class counts lie within about 5 % of equal shares is
    taken; failing that, the one that lies closest, a shuffle with every class in every test fold going before
    one without. The split depends on ids, labels and groups alone, not on the order of files.

    Args:
        cohort: the data set.
        folds: number of folds, at least 2.
        seed: the search's seed, or a repeat's.

    Returns:
        The folds, in order.

    Raises:
        DataError: a class has fewer patients than folds, or no shuffle leaves every class in each training fold.

    Source: scikit-learn's StratifiedGroupKFold makes each shuffle.
    """
    labels_N = np.asarray(cohort.labels)
    groups_N = np.asarray([entry.group for entry in cohort.entries])
    _check_patients(cohort, labels_N, groups_N, folds)
    best: tuple[float, list[NDArray[np.intp]]] | None = None
    for tests in _shuffles(labels_N, groups_N, folds, seed):
        imbalance = _imbalance(labels_N, tests, len(cohort.classes))
        if imbalance is not None and (best is None or imbalance < best[0]):
            best = imbalance, tests
            if imbalance <= GOOD_IMBALANCE:
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


def _shuffles(
    labels_N: NDArray[np.intp], groups_N: NDArray[np.str_], folds: int, seed: int
) -> Iterator[list[NDArray[np.intp]]]:
    """The test folds of each attempt. Groups are numbered by name, so that only names matter."""
    from sklearn.model_selection import StratifiedGroupKFold

    codes_N = np.unique(groups_N, return_inverse=True)[1]
    for attempt in range(ATTEMPTS):
        name = "splits" if attempt == 0 else f"splits/{attempt}"
        splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=stream(seed, name) % 2**32)
        with warnings.catch_warnings():
            # "The least populated class has fewer members": checked above, per patient.
            warnings.simplefilter("ignore", UserWarning)
            yield [test for _, test in splitter.split(labels_N, labels_N, groups=codes_N)]


def _imbalance(labels_N: NDArray[np.intp], tests: list[NDArray[np.intp]], n_classes: int) -> float | None:
    """How far class counts are from equal shares: 0 is perfect, at least 1e6 where a test fold lacks a class.

    None where a fold cannot be used: an empty test fold, or a training fold without a class.
    """
    counts_FK = np.stack([np.bincount(labels_N[test], minlength=n_classes) for test in tests])
    totals_K = counts_FK.sum(axis=0)
    if (counts_FK.sum(axis=1) == 0).any() or (counts_FK == totals_K).any():
        return None
    shares_FK = counts_FK * len(tests) / totals_K
    return float(np.square(shares_FK - 1).mean()) + 1e6 * int((counts_FK == 0).sum())
