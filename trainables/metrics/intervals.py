"""Confidence intervals of scores by resampling patients: images of one patient are not independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from trainables.metrics.classification import Floats, Ints, checked
from trainables.metrics.interval import Interval


def bootstrap_by_patient(
    labels_N: npt.ArrayLike,
    probabilities_NK: npt.ArrayLike,
    patients: Sequence[str],
    *,
    positive: int,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int,
) -> Mapping[str, Interval | None]:
    """Percentile intervals of balanced accuracy and AUROC, resampling whole patients with replacement.

    A resample in which a class is missing that the data have leaves the scores undefined and is left out; the
    interval is None where fewer than half remain, or where the score of all images is undefined. The model is not
    trained again: the interval covers the choice of test patients, not that of training patients or of the seed.

    Args:
        labels_N: class indices.
        probabilities_NK: in [0, 1], rows sum to 1.
        patients: N patient names.
        positive: index of the positive class; with more than two classes AUROC is the mean of one against the rest.
        resamples: how many.
        level: share of the resamples inside the interval.
        seed: every draw descends from it.

    Returns:
        Intervals by the names of the scores, "balanced_accuracy" and "auroc".

    Raises:
        ValueError: on empty, non-finite or misshapen input.

    Source: Efron & Tibshirani 1993, section 13.3; resampling of clusters: Field & Welsh 2007, section 2.
    """
    n_classes = np.asarray(probabilities_NK).shape[-1]
    labels, probabilities = checked(labels_N, probabilities_NK, n_classes)
    weights_BN = resampled_patients(patients, len(labels), resamples=resamples, seed=seed)
    found = weighted_scores(weights_BN, labels, probabilities, positive=positive)
    return {name: _interval(values_B, level) for name, values_B in found.items()}


def resampled_patients(patients: Sequence[str], images: int, *, resamples: int, seed: int) -> Floats:
    """How often each image is in each resample of whole patients.

    Args:
        patients: the patient of each image.
        images: the number of images.
        resamples: how many.
        seed: every draw descends from it.

    Returns:
        float64 (1 + resamples, N); the first row holds every image once: the data as they are.

    Raises:
        ValueError: an image has no patient.

    Source: resampling of clusters: Field & Welsh 2007, section 2.
    """
    if len(patients) != images:
        raise ValueError(f"each image needs a patient; got {images} images and {len(patients)} patients.")
    names, patient_N = np.unique(np.asarray(patients), return_inverse=True)
    weights_BN: Floats = _drawn(len(names), resamples, seed)[:, patient_N]
    return weights_BN


@lru_cache(maxsize=4)
def _drawn(patients: int, resamples: int, seed: int) -> Floats:
    """How often each patient counts, below a row of ones: the same for all trials of a search, so kept."""
    rng = np.random.default_rng(seed)
    drawn_RP = rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    counts_BP: Floats = np.concatenate([np.ones((1, patients)), drawn_RP])
    counts_BP.setflags(write=False)
    return counts_BP


def weighted_scores(
    weights_BN: Floats, labels_N: Ints, probabilities_NK: Floats, *, positive: int
) -> Mapping[str, Floats]:
    """Balanced accuracy and AUROC under each row of weights.

    Args:
        weights_BN: how often each image counts, at least 0.
        labels_N: class indices.
        probabilities_NK: in [0, 1], rows sum to 1.
        positive: index of the positive class; with more than two classes AUROC is the mean of one against the rest.

    Returns:
        float64 (B,) by the names of the scores; NaN where a class of ``labels_N`` has no weight.
    """
    return {
        "balanced_accuracy": _balanced_accuracy(weights_BN, labels_N, probabilities_NK),
        "auroc": _auroc(weights_BN, labels_N, probabilities_NK, positive),
    }


def _interval(values_R: Floats, level: float) -> Interval | None:
    estimate, defined = values_R[0], values_R[1:][~np.isnan(values_R[1:])]
    if np.isnan(estimate) or 2 * len(defined) < len(values_R) - 1:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate=float(estimate), low=float(low), high=float(high), resamples=len(defined))


def _balanced_accuracy(weights_RN: Floats, labels_N: Ints, probabilities_NK: Floats) -> Floats:
    """Mean sensitivity of the classes that the labels have, one per row of weights; NaN where one has no weight."""
    is_class_NC = labels_N[:, None] == np.unique(labels_N)
    is_hit_N = probabilities_NK.argmax(axis=1) == labels_N
    hits_RC = weights_RN @ (is_class_NC & is_hit_N[:, None]).astype(np.float64)
    sensitivity_RC = _divided(hits_RC, weights_RN @ is_class_NC.astype(np.float64))
    mean_R: Floats = sensitivity_RC.mean(axis=1)
    return mean_R


def _auroc(weights_RN: Floats, labels_N: Ints, probabilities_NK: Floats, positive: int) -> Floats:
    """AUROC, one per row of weights; NaN where it is undefined."""
    indices = [positive] if probabilities_NK.shape[1] == 2 else range(probabilities_NK.shape[1])
    areas = [_weighted_area(weights_RN, labels_N == index, probabilities_NK[:, index]) for index in indices]
    mean_R: Floats = np.mean(areas, axis=0)
    return mean_R


def _weighted_area(weights_RN: Floats, is_positive_N: npt.NDArray[np.bool_], score_N: Floats) -> Floats:
    """Share of the weighted pairs of a positive and a negative that the score orders rightly; a tie counts half."""
    order_N = np.argsort(score_N, kind="stable")
    starts_G = np.flatnonzero(np.diff(score_N[order_N], prepend=-np.inf))
    sorted_RN = weights_RN[:, order_N]
    positive_RG, negative_RG = sorted_RN * is_positive_N[order_N], sorted_RN * ~is_positive_N[order_N]
    if len(starts_G) < len(score_N):
        positive_RG, negative_RG = (
            np.add.reduceat(each_RG, starts_G, axis=1) for each_RG in (positive_RG, negative_RG)
        )
    below_RG = np.cumsum(negative_RG, axis=1) - negative_RG / 2
    return _divided((positive_RG * below_RG).sum(axis=1), positive_RG.sum(axis=1) * negative_RG.sum(axis=1))


def _divided(part: Floats, whole: Floats) -> Floats:
    """part / whole; NaN where whole is 0."""
    quotient: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return quotient
