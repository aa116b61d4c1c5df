"""Stratified splits in which a patient is on one side only: k folds, or one part held out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from spaces.wording import counted
from trainables.data.cohort import Cohort
from trainables.errors import DataError
from trainables.seeding import stream

ATTEMPTS = 50
"""Random deals that are tried at most."""

GOOD_IMBALANCE = 0.02**2
"""Class counts within about 2 % of equal shares; such a deal is taken at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldSplit:
    """One training and its test: sorted positions of the cohort's entries.

    Args:
        fold: its number among all evaluations of a trial, from 0.
        train: what generators, extractor and classifier learn from.
        test: what is scored.
        validation: what early stopping reads, cut from the training side; nothing else reads it.
        stream: names the random draws: evaluations of one stream draw alike.
        name: what it is, for sentences: "fold 2", "repeat 2, fold 1", "site Basel", "locked test, training 1".
        locked: whether the test is the locked test set.
    """

    fold: int
    train: tuple[int, ...]
    test: tuple[int, ...]
    validation: tuple[int, ...] = ()
    stream: str
    name: str
    locked: bool = False


def make_folds(
    cohort: Cohort, *, folds: int, seed: int, repeat: int = 0, among: Sequence[int] | None = None
) -> tuple[FoldSplit, ...]:
    """Split a cohort into folds, stratified by label and grouped by patient.

    Patients are dealt out at random, so that each fold gets equally many of each class, give or take one; a patient
    with several labels counts for the most frequent. Up to ``ATTEMPTS`` such deals are drawn from seeds derived from
    ``seed``. The first is taken whose image counts of each class lie within about 2 % of equal shares; failing that,
    the one that lies closest, a deal with every class in every test fold going before one without. The split depends
    on ids, labels and groups alone, not on the order of files.

    Args:
        cohort: the data set.
        folds: number of folds, at least 2.
        seed: the search's seed.
        repeat: which of several splits that share no draw; its folds are numbered on from those of the one before.
        among: positions of the entries to split; None: all.

    Returns:
        The folds, in order. Every image is tested once, every training fold has every class.

    Raises:
        DataError: a class has fewer patients than folds, or no deal leaves every class in each training fold.

    Source: scikit-learn's StratifiedKFold over patients. Its StratifiedGroupKFold deals by size first: where
    patients differ in size, the folds of different seeds resemble each other, and some lack a class needlessly.
    """
    everything = np.arange(len(cohort)) if among is None else np.asarray(among, dtype=np.intp)
    labels_N = np.asarray(cohort.labels)[everything]
    groups_N = np.asarray([entry.group for entry in cohort.entries])[everything]
    _check_patients(cohort, labels_N, groups_N, folds)
    best: tuple[tuple[int, float], list[NDArray[np.intp]]] | None = None
    for tests in _deals(labels_N, groups_N, folds, seed if repeat == 0 else stream(seed, f"repeat{repeat}")):
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
    return tuple(
        FoldSplit(
            fold=repeat * folds + fold,
            train=tuple(np.delete(everything, test).tolist()),
            test=tuple(everything[test].tolist()),
            stream=f"repeat{repeat}/fold{fold}",
            name=f"fold {fold + 1}" if repeat == 0 else f"repeat {repeat + 1}, fold {fold + 1}",
        )
        for fold, test in enumerate(best[1])
    )


def hold_out(labels: Sequence[int], groups: Sequence[str], *, share: float, seed: int, what: str) -> tuple[int, ...]:
    """Choose about a share of the images, whole groups, so that each class loses about that share of its images.

    Of ``ATTEMPTS`` random choices of groups, stratified by their most frequent label, the one is taken that comes
    closest to the share in every class. The choice depends on labels and groups alone, not on the order of images.

    Args:
        labels: class index of each image.
        groups: name of each image's group.
        share: more than 0, less than 1.
        seed: every draw descends from it.
        what: what the chosen images are for, for the error: "the locked test set".

    Returns:
        Sorted positions of the chosen images; both sides have every class.

    Raises:
        DataError: no choice leaves every class on both sides.

    Source: scikit-learn's StratifiedShuffleSplit over groups.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    labels_N, groups_N = np.asarray(labels), np.asarray(groups)
    strata_G, codes_N = _strata(labels_N, groups_N)
    totals_K = np.bincount(labels_N)
    if np.bincount(strata_G)[np.unique(strata_G)].min() < 2:
        strata_G = np.zeros_like(strata_G)
    splitter = StratifiedShuffleSplit(ATTEMPTS, test_size=share, random_state=seed % 2**32)
    best: tuple[float, NDArray[np.intp]] | None = None
    with suppress(ValueError):  # fewer patients on one side than classes
        for _, chosen_G in splitter.split(strata_G, strata_G):
            chosen = np.flatnonzero(np.isin(codes_N, chosen_G))
            counts_K = np.bincount(labels_N[chosen], minlength=len(totals_K))
            deviation = float(np.square(counts_K / totals_K - share).sum())
            if (counts_K > 0).all() and (counts_K < totals_K).all() and (best is None or deviation < best[0]):
                best = deviation, chosen
    if best is None:
        raise _cannot_hold_out(labels_N, groups_N, share, what)
    return tuple(best[1].tolist())


def _cannot_hold_out(labels_N: NDArray[np.intp], groups_N: NDArray[np.str_], share: float, what: str) -> DataError:
    strata_G, codes_N = _strata(labels_N, groups_N)
    n_patients, n_held = len(strata_G), ceil(share * len(strata_G))
    found = f"{share:.0%} of {n_patients} patients cannot be held out for {what} with every class on both sides"
    patients_K = [len(np.unique(codes_N[labels_N == label])) for label in np.unique(labels_N)]
    if min(patients_K) < 2:
        return DataError(f"{found}; expected at least 2 patients of each class. Add patients.")
    strata_K = np.bincount(strata_G)[np.unique(strata_G)]
    by_distance = sorted(range(1, n_patients), key=lambda held: abs(held - n_held))
    enough = next((held for held in by_distance if _reaches_every_class(strata_K, held)), n_held)
    if enough == n_held:
        return DataError(f"{found}; no choice of whole patients was found. Add patients, or choose another share.")
    least, more = ("least", "more") if enough > n_held else ("most", "less")
    return DataError(
        f"{found}: that is {counted(n_held, 'patient')}; expected at {least} {enough}, so that each class has one on "
        f"both sides. Give {_as_share(enough, n_patients)} or {more} (--validation or --lock-test), or add patients; "
        f"early stopping needs none with classifier.patience=0."
    )


def _reaches_every_class(patients_K: NDArray[np.intp], held: int) -> bool:
    """Whether each class has patients on both sides where so many are held out, as StratifiedShuffleSplit deals."""
    n_kept = int(patients_K.sum()) - held
    if len(patients_K) > min(held, n_kept):
        return False
    exact_K = patients_K / patients_K.sum() * n_kept
    kept_K = np.floor(exact_K).astype(np.intp)
    kept_K[np.argsort(kept_K - exact_K)[: n_kept - kept_K.sum()]] += 1
    return bool((kept_K > 0).all() and (kept_K < patients_K).all())


def _as_share(held: int, n_patients: int) -> str:
    """The share that is that many patients once it is rounded up to whole ones."""
    digits = max(2, len(str(n_patients)))
    return f"{held * 10**digits // n_patients / 10**digits:g}"


def _check_patients(cohort: Cohort, labels_N: NDArray[np.intp], groups_N: NDArray[np.str_], folds: int) -> None:
    if folds < 2:
        raise DataError(f"--folds is {folds}; expected at least 2.")
    unit = "patient" if cohort.patients_known else "image"
    counts = [len(set(groups_N[labels_N == label])) for label in range(len(cohort.classes))]
    fewest = int(np.argmin(counts))
    if counts[fewest] >= folds:
        return
    advice = f"Use --folds {counts[fewest]} or add {unit}s." if counts[fewest] >= 2 else f"Add {unit}s."
    raise DataError(
        f"label '{cohort.classes[fewest]}' has {counted(counts[fewest], unit)}, fewer than the {folds} folds asked for "
        f"({cohort.source}). {advice}"
    )


def _deals(
    labels_N: NDArray[np.intp], groups_N: NDArray[np.str_], folds: int, seed: int
) -> Iterator[list[NDArray[np.intp]]]:
    """The test folds of each attempt. Groups are numbered by name, so that only names matter."""
    from sklearn.model_selection import StratifiedKFold

    strata_G, codes_N = _strata(labels_N, groups_N)
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


def _strata(labels_N: NDArray[np.intp], groups_N: NDArray[np.str_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The most frequent label of each group, and each image's group; groups are numbered by name."""
    names_G, codes_N = np.unique(groups_N, return_inverse=True)
    counts_GK = np.zeros((len(names_G), labels_N.max() + 1), dtype=np.intp)
    np.add.at(counts_GK, (codes_N, labels_N), 1)
    return counts_GK.argmax(axis=1), codes_N


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
