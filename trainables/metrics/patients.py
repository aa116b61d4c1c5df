"""Scores of patients: each is judged once, by the mean probability over their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainables.metrics.catalogue import OF_PATIENTS, PATIENT_SCORES
from trainables.metrics.classification import Floats, Ints, checked, scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatientMeans:
    """What is scored once: a patient, or each label of a patient whose images have several.

    Args:
        labels_U: class indices, int64.
        probabilities_UK: mean over the images, float64, rows sum to 1.
        patients: the patient of each; one with several labels is there several times.
    """

    labels_U: Ints
    probabilities_UK: Floats
    patients: tuple[str, ...]


def patient_means(labels_N: npt.ArrayLike, probabilities_NK: npt.ArrayLike, patients: Sequence[str]) -> PatientMeans:
    """Average the probabilities of each patient's images of one label.

    Args:
        labels_N: class indices, N >= 1.
        probabilities_NK: in [0, 1], rows sum to 1.
        patients: N patient names.

    Returns:
        In the order of the patients' names, then of the labels, whatever the probabilities: the means of two models
        lie side by side.

    Raises:
        ValueError: on empty, non-finite or misshapen input, or where an image has no patient.
    """
    labels, probabilities = checked(labels_N, probabilities_NK, np.asarray(probabilities_NK).shape[-1])
    if len(patients) != len(labels):
        raise ValueError(f"each image needs a patient; got {len(labels)} images and {len(patients)} patients.")
    names, patient_N = np.unique(np.asarray(patients), return_inverse=True)
    units_U2, unit_N = np.unique(np.stack([patient_N, labels], axis=1), axis=0, return_inverse=True)
    sums_UK = np.zeros((len(units_U2), probabilities.shape[1]))
    np.add.at(sums_UK, unit_N, probabilities)
    return PatientMeans(
        labels_U=units_U2[:, 1].astype(np.int64),
        probabilities_UK=sums_UK / np.bincount(unit_N)[:, None],
        patients=tuple(names[units_U2[:, 0]].tolist()),
    )


def patient_scores(
    labels_N: npt.ArrayLike,
    probabilities_NK: npt.ArrayLike,
    patients: Sequence[str],
    classes: Sequence[str],
    positive: int,
) -> dict[str, float | None]:
    """The scores of one fold, or of the out-of-fold predictions together, with patients in the place of images.

    Args:
        labels_N: class indices, N >= 1.
        probabilities_NK: in [0, 1], rows sum to 1.
        patients: N patient names.
        classes: the K class names, K >= 2.
        positive: index of the positive class.

    Returns:
        Each of ``PATIENT_SCORES``; None where the labels leave a score undefined.

    Raises:
        ValueError: on empty, non-finite or misshapen input, or where an image has no patient.
    """
    means = patient_means(labels_N, probabilities_NK, patients)
    found = scores(means.labels_U, means.probabilities_UK, classes, positive)
    return {name: found[name.removeprefix(OF_PATIENTS)] for name in PATIENT_SCORES}
