"""Scores of class probabilities against true labels; a score that is not defined is None, never 0 or 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from trainables.metrics.catalogue import CALIBRATION_BINS

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


def scores(
    labels_N: npt.ArrayLike, probabilities_NK: npt.ArrayLike, classes: Sequence[str], positive: int
) -> dict[str, float | None]:
    """All scores of one fold, or of the out-of-fold predictions together.

    The predicted class is the most probable one, the first of these where several are. With two classes, auroc,
    auprc, sensitivity and specificity are the positive class's; with more they are means over all classes, one
    against the rest, and None where one of the classes is missing. Balanced accuracy leaves missing classes out.

    Args:
        labels_N: class indices, N >= 1.
        probabilities_NK: in [0, 1], rows sum to 1.
        classes: the K class names, K >= 2.
        positive: index of the positive class.

    Returns:
        Each of ``IMAGE_SCORES``, then ``sensitivity_<class>`` and ``specificity_<class>`` (TN / (TN + FP)) of each
        class. None where the labels leave a score undefined.

    Raises:
        ValueError: on empty, non-finite or misshapen input.
    """
    labels, probabilities = checked(labels_N, probabilities_NK, len(classes))
    if not 0 <= positive < len(classes):
        raise ValueError(f"the positive class must be an index of the {len(classes)} classes; got {positive}.")
    predicted_N = probabilities.argmax(axis=1)
    matrix_KK = confusion_matrix(labels, predicted_N, len(classes))
    sensitivity, specificity = _rates(matrix_KK)
    present = [rate for rate in sensitivity if rate is not None]

    def headline(values: Sequence[float | None]) -> float | None:
        return values[positive] if len(classes) == 2 else _mean(values)

    values: dict[str, float | None] = {
        "accuracy": float(metrics.accuracy_score(labels, predicted_N)),
        "balanced_accuracy": _mean(present),
        "macro_f1": float(metrics.f1_score(labels, predicted_N, average="macro")),
        "auroc": headline(_ranked(metrics.roc_auc_score, labels, probabilities)),
        "auprc": headline(_ranked(metrics.average_precision_score, labels, probabilities)),
        "sensitivity": headline(sensitivity),
        "specificity": headline(specificity),
        "calibration_error": calibration_error(labels, probabilities),
    }
    for name, class_sensitivity, class_specificity in zip(classes, sensitivity, specificity, strict=True):
        values[f"sensitivity_{name}"] = class_sensitivity
        values[f"specificity_{name}"] = class_specificity
    return values


def checked(labels_N: npt.ArrayLike, probabilities_NK: npt.ArrayLike, n_classes: int) -> tuple[Ints, Floats]:
    """Labels and probabilities as arrays. Raises: ValueError on empty, non-finite or misshapen input."""
    labels = np.asarray(labels_N)
    probabilities = np.asarray(probabilities_NK, dtype=np.float64)
    if not len(labels) or labels.ndim != 1 or probabilities.shape != (len(labels), n_classes):
        raise ValueError(
            f"scores need N >= 1 labels and N x {n_classes} probabilities; got shapes {labels.shape} and "
            f"{probabilities.shape}."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must be indices of the {n_classes} classes; got {np.unique(labels)}.")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite; got NaN or infinity.")
    return labels.astype(np.int64), probabilities


def confusion_matrix(labels_N: npt.ArrayLike, predicted_N: npt.ArrayLike, n_classes: int) -> Ints:
    """Counts int64 (K, K): row = true class, column = predicted class."""
    matrix_KK: Ints = metrics.confusion_matrix(labels_N, predicted_N, labels=np.arange(n_classes)).astype(np.int64)
    return matrix_KK


def calibration_error(labels_N: Ints, probabilities_NK: Floats) -> float:
    """Expected calibration error of the predicted class: sum_b n_b / N |accuracy_b - confidence_b|.

    Ten bins of equal width, closed above, where the source has fifteen: a fold has a few hundred images.

    Args:
        labels_N: class indices.
        probabilities_NK: in [0, 1], rows sum to 1.

    Returns:
        In [0, 1]; 0 is best.

    Source: Guo et al. 2017, equation 3.
    """
    confidence_N = probabilities_NK.max(axis=1)
    surplus_N = (probabilities_NK.argmax(axis=1) == labels_N) - confidence_N
    bin_N = np.clip(np.ceil(confidence_N * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bin_N, weights=surplus_N)).sum() / len(labels_N))


def _rates(matrix_KK: Ints) -> tuple[list[float | None], list[float | None]]:
    """Sensitivity and specificity of each class against the rest."""
    true_positive_K = np.diag(matrix_KK)
    actual_K, predicted_K, total = matrix_KK.sum(axis=1), matrix_KK.sum(axis=0), matrix_KK.sum()
    true_negative_K = total - actual_K - predicted_K + true_positive_K
    sensitivity = [_ratio(*pair) for pair in zip(true_positive_K, actual_K, strict=True)]
    specificity = [_ratio(*pair) for pair in zip(true_negative_K, total - actual_K, strict=True)]
    return sensitivity, specificity


def _ranked(score: Callable[..., float], labels_N: Ints, probabilities_NK: Floats) -> list[float | None]:
    """A ranking score of each class against the rest; None where the class or the rest is missing."""
    values: list[float | None] = []
    for index, probability_N in enumerate(probabilities_NK.T):
        is_class_N = labels_N == index
        mixed = 0 < is_class_N.sum() < len(labels_N)
        values.append(float(score(is_class_N, probability_N)) if mixed else None)
    return values


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one of the values is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined and len(defined) == len(values) else None
