"""Curves of a classifier's predictions with bands over patients: ROC and reliability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.metrics.catalogue import CALIBRATION_BINS
from trainables.metrics.classification import Floats, Ints
from trainables.metrics.intervals import resampled_patients
from trainables.results import TrialResult

RESAMPLES = 300
MOST_IMAGES = 20_000
"""Predictions that bands are computed from; of more, evenly chosen ones."""
_GRID = 101


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pooled:
    """All out-of-fold predictions of a trial together.

    Args:
        labels_N: class indices.
        probabilities_NK: in [0, 1], rows sum to 1.
        patients: N names.
    """

    labels_N: Ints
    probabilities_NK: Floats
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """A curve with its band: places, values, and the lower and upper ends of 95 % intervals at each place."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def pooled(trial: TrialResult | None) -> Pooled | None:
    """A trial's predictions, those of the locked test set left out; None where there are none."""
    found = [each for fold in trial.folds if not fold.locked for each in fold.predictions] if trial else []
    if not found:
        return None
    found = found[:: -(-len(found) // MOST_IMAGES)]
    return Pooled(
        labels_N=np.array([each.label for each in found], dtype=np.int64),
        probabilities_NK=np.array([each.probabilities for each in found], dtype=np.float64),
        patients=tuple(each.patient for each in found),
    )


def roc(predictions: Pooled, *, positive: int, seed: int) -> Curve | None:
    """The ROC curve: of the positive class; of more than two classes, the mean of one against the rest.

    Args:
        predictions: of all folds.
        positive: index of the positive class of two.
        seed: every draw of the band descends from it.

    Returns:
        Sensitivity at false-positive rates from 0 to 1; None where a class, or its rest, has no image.
    """
    classes = predictions.probabilities_NK.shape[1]
    wanted = [positive] if classes == 2 else list(range(classes))
    counts = np.bincount(predictions.labels_N, minlength=classes)
    if any(counts[index] in (0, len(predictions.labels_N)) for index in wanted):
        return None
    weights_BN = _weights(predictions, seed)
    grid_G = np.linspace(0.0, 1.0, _GRID)
    rates_BG = np.mean([_rates(weights_BN, predictions, index, grid_G) for index in wanted], axis=0)
    low_G, high_G = _ends(rates_BG)
    return Curve(x=grid_G, y=rates_BG[0], low=low_G, high=high_G)


def _weights(predictions: Pooled, seed: int) -> Floats:
    return resampled_patients(predictions.patients, len(predictions.labels_N), resamples=RESAMPLES, seed=seed)


def _rates(weights_BN: Floats, predictions: Pooled, index: int, grid_G: Floats) -> Floats:
    """Sensitivity (B, G) of a class against the rest; NaN where a resample lacks either."""
    score_N = predictions.probabilities_NK[:, index]
    order_N = np.argsort(-score_N, kind="stable")
    ends_T = np.flatnonzero(np.diff(score_N[order_N], append=np.inf))
    is_class_N = (predictions.labels_N == index)[order_N]
    hits_BT = np.cumsum(weights_BN[:, order_N] * is_class_N, axis=1)[:, ends_T]
    alarms_BT = np.cumsum(weights_BN[:, order_N] * ~is_class_N, axis=1)[:, ends_T]
    rates_BG = np.full((len(weights_BN), len(grid_G)), np.nan)
    for row, (hits_T, alarms_T) in enumerate(zip(hits_BT, alarms_BT, strict=True)):
        if hits_T[-1] > 0 and alarms_T[-1] > 0:
            alarm_T, hit_T = alarms_T / alarms_T[-1], hits_T / hits_T[-1]
            rates_BG[row] = np.interp(grid_G, np.concatenate([[0.0], alarm_T]), np.concatenate([[0.0], hit_T]))
    return rates_BG


def _ends(values_BG: Floats) -> tuple[Floats, Floats]:
    """Ends of 95 % intervals over the resamples, all rows but the first; undefined ones are left out."""
    defined_RG = values_BG[1:][~np.isnan(values_BG[1:]).any(axis=1)]
    if not len(defined_RG):
        return values_BG[0], values_BG[0]
    low_G, high_G = np.quantile(defined_RG, [0.025, 0.975], axis=0)
    return low_G, high_G


def reliability(predictions: Pooled, *, seed: int) -> tuple[Curve, Ints]:
    """How often the predicted class is right, against how probable it was said to be, in bins of equal width.

    Args:
        predictions: of all folds.
        seed: every draw of the band descends from it.

    Returns:
        The curve over the bins that hold images: mean probability, share that was right; and how many they hold.
    """
    confidence_N = predictions.probabilities_NK.max(axis=1)
    right_N = predictions.probabilities_NK.argmax(axis=1) == predictions.labels_N
    bin_N = np.clip(np.ceil(confidence_N * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    used = np.unique(bin_N)
    inside_NU = (bin_N[:, None] == used).astype(np.float64)
    weights_BN = _weights(predictions, seed)
    total_BU = weights_BN @ inside_NU
    hits_BU = weights_BN @ (inside_NU * right_N[:, None])
    share_BU = np.divide(hits_BU, total_BU, out=np.full(total_BU.shape, np.nan), where=total_BU > 0)
    count_U = inside_NU.sum(axis=0)
    low_U, high_U = np.nanquantile(share_BU, [0.025, 0.975], axis=0)
    mean_U = (confidence_N @ inside_NU) / count_U
    return Curve(x=mean_U, y=share_BU[0], low=low_U, high=high_U), count_U.astype(np.int64)


def names(classes: Sequence[str], positive: int) -> str:
    """What a ROC curve is of."""
    return f"'{classes[positive]}'" if len(classes) == 2 else "each class against the rest, mean"
