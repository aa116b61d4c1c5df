"""Intervals of a trial's scores, by resampling patients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainables.ledger import SearchRecord
from trainables.metrics.catalogue import OF_PATIENTS
from trainables.metrics.classification import Floats, Ints
from trainables.metrics.interval import Interval
from trainables.metrics.intervals import bootstrap_by_patient, resampled_patients
from trainables.metrics.patients import patient_means
from trainables.results import TrialResult

RESAMPLES = 1000


def score_intervals(trial: TrialResult, record: SearchRecord, *, locked: bool = False) -> dict[str, Interval]:
    """95 % intervals, by bootstrap over patients, of all out-of-fold predictions of a trial taken together.

    A completed trial has its own on record; others are computed here. The order of patients in the bootstrap is that of
    their names, so that intervals depend on the predictions alone.

    Args:
        trial: its folds' predictions, of all repeats.
        record: names the classes and the seed.
        locked: take the predictions of the locked test set, by all models that were trained for it.

    Returns:
        By score: "balanced_accuracy", "auroc", "accuracy", "macro_f1" and, where patients are known,
        "patient_balanced_accuracy" and "patient_auroc"; what is undefined is left out.
    """
    if trial.intervals and not locked:
        return dict(trial.intervals)
    predictions = [each for fold in trial.folds if fold.locked == locked for each in fold.predictions]
    if not predictions:
        return {}
    labels_N = np.array([each.label for each in predictions], dtype=np.int64)
    predicted_N = np.array([each.probabilities for each in predictions]).argmax(axis=1)
    patients = [each.patient for each in predictions]
    probabilities_NK = [each.probabilities for each in predictions]
    positive, seed = record.data.positive, record.seed
    found = dict(
        bootstrap_by_patient(labels_N, probabilities_NK, patients, positive=positive, resamples=RESAMPLES, seed=seed)
    )
    if record.data.patients_known:
        found |= _of_patients(trial, record, locked=locked)
    weights_BN = resampled_patients(patients, len(labels_N), resamples=RESAMPLES, seed=record.seed)
    n_classes = len(record.data.classes)
    return {
        **{name: interval for name, interval in found.items() if interval is not None},
        "accuracy": _interval(weighted_accuracy(weights_BN, labels_N, predicted_N)),
        "macro_f1": _interval(weighted_macro_f1(weights_BN, labels_N, predicted_N, n_classes)),
    }


def _of_patients(trial: TrialResult, record: SearchRecord, *, locked: bool) -> dict[str, Interval | None]:
    """Intervals of the patients' scores; a patient's images are averaged within each evaluation, as its scores are."""
    means = [
        patient_means(
            [each.label for each in fold.predictions],
            [each.probabilities for each in fold.predictions],
            [each.patient for each in fold.predictions],
        )
        for fold in trial.folds
        if fold.locked == locked and fold.predictions
    ]
    found = bootstrap_by_patient(
        np.concatenate([each.labels_U for each in means]),
        np.concatenate([each.probabilities_UK for each in means]),
        [patient for each in means for patient in each.patients],
        positive=record.data.positive,
        resamples=RESAMPLES,
        seed=record.seed,
    )
    return {f"{OF_PATIENTS}{name}": interval for name, interval in found.items()}


def weighted_accuracy(weights_BN: Floats, labels_N: Ints, predicted_N: Ints) -> Floats:
    """Accuracy under each row of weights, float64 (B,).

    Args:
        weights_BN: how often each image counts, at least 0, not all 0 in a row.
        labels_N: class indices.
        predicted_N: class indices.
    """
    hit_N = (labels_N == predicted_N).astype(np.float64)
    accuracy_B: Floats = (weights_BN @ hit_N) / weights_BN.sum(axis=1)
    return accuracy_B


def weighted_macro_f1(weights_BN: Floats, labels_N: Ints, predicted_N: Ints, n_classes: int) -> Floats:
    """Macro F1 under each row of weights, float64 (B,): the mean over the classes that occur or are predicted.

    Args:
        weights_BN: how often each image counts, at least 0, not all 0 in a row.
        labels_N: class indices below ``n_classes``.
        predicted_N: class indices below ``n_classes``.
        n_classes: K.
    """
    is_actual_NK = _one_hot(labels_N, n_classes)
    is_predicted_NK = _one_hot(predicted_N, n_classes)
    hits_BK = weights_BN @ (is_actual_NK * is_predicted_NK)
    # 2 TP / (2 TP + FP + FN), whose denominator is what occurs plus what is predicted
    both_BK = weights_BN @ (is_actual_NK + is_predicted_NK)
    f1_BK = np.divide(2 * hits_BK, both_BK, out=np.full(both_BK.shape, np.nan), where=both_BK > 0)
    mean_B: Floats = np.nanmean(f1_BK, axis=1)
    return mean_B


def _one_hot(indices_N: Ints, n_classes: int) -> npt.NDArray[np.float64]:
    is_class_NK: npt.NDArray[np.bool_] = indices_N[:, None] == np.arange(n_classes)
    return is_class_NK.astype(np.float64)


def _interval(values_R: Floats) -> Interval:
    """From the score of the data as they are (first) and of the resamples."""
    low, high = np.quantile(values_R[1:], [0.025, 0.975])
    return Interval(estimate=float(values_R[0]), low=float(low), high=float(high), resamples=len(values_R) - 1)
