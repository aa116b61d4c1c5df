from __future__ import annotations

import numpy as np
import pytest

from trainables.metrics.catalogue import PATIENT_SCORES
from trainables.metrics.classification import scores
from trainables.metrics.patients import patient_means, patient_scores

CLASSES = ("healthy", "ill")


def both(ill: list[float]) -> list[list[float]]:
    return [[1 - probability, probability] for probability in ill]


def test_a_patients_probability_is_the_mean_over_the_images() -> None:
    means = patient_means([1, 0, 1, 1], both([0.9, 0.2, 0.4, 0.5]), ["p", "q", "p", "r"])
    assert means.patients == ("p", "q", "r")
    assert means.labels_U.tolist() == [1, 0, 1]
    assert means.probabilities_UK == pytest.approx(np.array(both([0.65, 0.2, 0.5])))


def test_a_patient_with_images_of_two_labels_counts_once_for_each() -> None:
    means = patient_means([1, 0, 1, 0], both([0.9, 0.1, 0.7, 0.3]), ["p", "p", "p", "q"])
    assert means.patients == ("p", "p", "q")
    assert means.labels_U.tolist() == [0, 1, 0]
    assert means.probabilities_UK[:, 1] == pytest.approx([0.1, 0.8, 0.3])


def test_scores_of_patients_worked_out_by_hand() -> None:
    """Images .9 .2 .2 of ill p (mean .433: wrong), .6 of ill q (right), .4 .5 .3 of healthy r (mean .4: right)."""
    got = patient_scores(
        [1, 1, 1, 1, 0, 0, 0], both([0.9, 0.2, 0.2, 0.6, 0.4, 0.5, 0.3]), list("pppqrrr"), CLASSES, positive=1
    )
    assert list(got) == list(PATIENT_SCORES)
    assert got["patient_accuracy"] == pytest.approx(2 / 3)
    assert got["patient_sensitivity"] == 0.5
    assert got["patient_balanced_accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert got["patient_specificity"] == got["patient_auroc"] == 1


def test_with_one_image_each_patients_score_as_images_do() -> None:
    rng = np.random.default_rng(0)
    labels, raw = rng.integers(3, size=40), rng.random((40, 3))
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    names = [str(number) for number in range(40)]
    images = scores(labels, probabilities, ("a", "b", "c"), positive=0)
    for name, value in patient_scores(labels, probabilities, names, ("a", "b", "c"), positive=0).items():
        assert value == pytest.approx(images[name.removeprefix("patient_")], abs=1e-12)


def test_a_patient_with_many_images_weighs_no_more_than_one_with_few() -> None:
    labels = [1] * 10 + [1] + [0]
    probabilities = both([0.1] * 10 + [0.9] + [0.2])
    names = ["many"] * 10 + ["few"] + ["healthy"]
    got = patient_scores(labels, probabilities, names, CLASSES, positive=1)
    assert got["patient_sensitivity"] == 0.5
    assert scores(labels, probabilities, CLASSES, positive=1)["sensitivity"] == pytest.approx(1 / 11)


def test_patients_of_one_class_leave_ranking_scores_undefined() -> None:
    got = patient_scores([1, 1, 1], both([0.2, 0.8, 0.6]), ["p", "p", "q"], CLASSES, positive=1)
    assert got["patient_auroc"] is got["patient_auprc"] is got["patient_specificity"] is None


def test_the_order_of_the_images_does_not_matter_to_patients() -> None:
    rng = np.random.default_rng(1)
    labels, ill, names = rng.integers(2, size=30), rng.random(30), [str(name) for name in rng.integers(8, size=30)]
    order = rng.permutation(30)
    one = patient_scores(labels, both(ill.tolist()), names, CLASSES, positive=1)
    other = patient_scores(
        labels[order], both(ill[order].tolist()), [names[index] for index in order], CLASSES, positive=1
    )
    assert other == pytest.approx(one)


def test_an_image_without_a_patient_cannot_be_averaged() -> None:
    with pytest.raises(ValueError, match="2 images and 1 patients"):
        patient_means([0, 1], both([0.5, 0.5]), ["p"])
