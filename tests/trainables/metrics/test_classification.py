from __future__ import annotations

import math
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn import metrics

from trainables.metrics.catalogue import IMAGE_SCORES, PATIENT_SCORES, SCORES, maximizes
from trainables.metrics.classification import calibration_error, confusion_matrix, scores

Value = float | None
Case = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]
CLASSES = ("a", "b", "c", "d")


def random_case(seed: int) -> Case:
    """Labels, probabilities and number of classes: many ties, some folds without a class, some with one class only."""
    rng = np.random.default_rng(seed)
    n_classes, count = 2 + seed % 3, int(rng.integers(1, 60))
    present = rng.choice(n_classes, size=int(rng.integers(1, n_classes + 1)), replace=False)
    labels = rng.choice(present, size=count)
    tied = rng.integers(1, 5, size=(count, n_classes)).astype(float)
    raw = tied if seed % 2 else rng.random((count, n_classes))
    return labels.astype(np.int64), raw / raw.sum(axis=1, keepdims=True), n_classes


CASES = [random_case(seed) for seed in range(200)]


def one_against_rest(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], index: int) -> tuple[int, ...]:
    """Counts by loops: TP, FN, TN, FP."""
    pairs = [(truth == index, guess == index) for truth, guess in zip(labels, predicted, strict=True)]
    return tuple(pairs.count(pair) for pair in ((True, True), (True, False), (False, False), (False, True)))


def ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def mean(values: list[float | None]) -> float | None:
    return None if None in values else sum(value for value in values if value is not None) / len(values)


def same(got: float | None, expected: float | None) -> bool:
    if got is None or expected is None:
        return got is expected
    return math.isclose(got, expected, abs_tol=1e-12)


def scikit_learns(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], index: int) -> tuple[Value, Value]:
    """Sensitivity and specificity of one class as recalls; None where scikit-learn calls them undefined."""
    is_class, is_predicted = labels == index, predicted == index
    rates = [
        metrics.recall_score(is_class, is_predicted, pos_label=label, zero_division=np.nan) for label in (True, False)
    ]
    sensitivity, specificity = (None if math.isnan(rate) else float(rate) for rate in rates)
    return sensitivity, specificity


@pytest.mark.parametrize("number", range(len(CASES)))
def test_scores_equal_scikit_learns_and_what_is_undefined_is_none(number: int) -> None:
    labels, probabilities, n_classes = CASES[number]
    got = scores(labels, probabilities, CLASSES[:n_classes], positive=1)
    predicted = first_of_the_largest(probabilities)
    rates = [scikit_learns(labels, predicted, index) for index in range(n_classes)]
    sensitivity, specificity = ([rate[kind] for rate in rates] for kind in (0, 1))
    pick = (lambda values: values[1]) if n_classes == 2 else mean
    assert same(got["accuracy"], metrics.accuracy_score(labels, predicted))
    assert same(got["balanced_accuracy"], scikit_learns_balanced_accuracy(labels, predicted))
    assert same(got["macro_f1"], metrics.f1_score(labels, predicted, average="macro"))
    assert same(got["sensitivity"], pick(sensitivity))
    assert same(got["specificity"], pick(specificity))
    for index, name in enumerate(CLASSES[:n_classes]):
        assert same(got[f"sensitivity_{name}"], sensitivity[index])
        assert same(got[f"specificity_{name}"], specificity[index])
    assert same(got["auroc"], scikit_learns_area(labels, probabilities))
    assert same(got["auprc"], scikit_learns_average_precision(labels, probabilities))


def first_of_the_largest(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.array([row.tolist().index(max(row)) for row in probabilities], dtype=np.int64)


def scikit_learns_balanced_accuracy(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """It warns of classes that are predicted only, and leaves them out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(metrics.balanced_accuracy_score(labels, predicted))


def scikit_learns_area(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> Value:
    n_classes = probabilities.shape[1]
    if len(set(labels)) < n_classes:
        return None
    if n_classes == 2:
        return float(metrics.roc_auc_score(labels, probabilities[:, 1]))
    return float(metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))


def scikit_learns_average_precision(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> Value:
    n_classes = probabilities.shape[1]
    if len(set(labels)) < n_classes:
        return None
    if n_classes == 2:
        return float(metrics.average_precision_score(labels, probabilities[:, 1]))
    return float(metrics.average_precision_score(np.eye(n_classes)[labels], probabilities, average="macro"))


@pytest.mark.parametrize("number", range(0, len(CASES), 10))
def test_sensitivity_and_specificity_equal_counting_by_hand(number: int) -> None:
    labels, probabilities, n_classes = CASES[number]
    got = scores(labels, probabilities, CLASSES[:n_classes], positive=1)
    for index, name in enumerate(CLASSES[:n_classes]):
        tp, fn, tn, fp = one_against_rest(labels, first_of_the_largest(probabilities), index)
        assert same(got[f"sensitivity_{name}"], ratio(tp, tp + fn))
        assert same(got[f"specificity_{name}"], ratio(tn, tn + fp))


def test_the_200_random_cases_cover_ties_missing_classes_and_single_class_folds() -> None:
    assert len(CASES) == 200
    for n_classes in (2, 3, 4):
        chosen = [case for case in CASES if case[2] == n_classes]
        missing = [len(set(labels)) < n_classes for labels, _, _ in chosen]
        single = [len(set(labels)) == 1 for labels, _, _ in chosen]
        ties = [len(set(probabilities[:, 1])) < len(probabilities) for _, probabilities, _ in chosen]
        # of the largest probability of an image: the predicted class is the first
        tied_classes = [
            bool((np.isclose(rows, rows.max(axis=1, keepdims=True)).sum(axis=1) > 1).any()) for _, rows, _ in chosen
        ]
        counts = [sum(each) for each in (missing, single, ties, tied_classes)]
        assert min(*counts, len(chosen) - sum(missing)) >= 10, (n_classes, counts)


def test_a_fold_with_one_class_has_no_ranking_scores_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = scores([1, 1, 1], [[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], ("healthy", "ill"), positive=1)
    assert got["auroc"] is got["auprc"] is got["specificity"] is got["sensitivity_healthy"] is None
    assert got["specificity_ill"] is None
    assert got["sensitivity"] == got["sensitivity_ill"] == got["balanced_accuracy"] == pytest.approx(1 / 3)


def test_the_positive_class_decides_sensitivity_and_specificity() -> None:
    labels, probabilities = [0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]]
    ill, healthy = (scores(labels, probabilities, ("healthy", "ill"), positive=index) for index in (1, 0))
    assert (ill["sensitivity"], ill["specificity"]) == (1, pytest.approx(2 / 3))
    assert (healthy["sensitivity"], healthy["specificity"]) == (pytest.approx(2 / 3), 1)
    assert ill["auroc"] == healthy["auroc"] == 1


def test_specificity_counts_true_negatives_not_hits_of_the_other_classes() -> None:
    labels, predicted = [0, 1, 2], np.eye(3)[[0, 2, 1]]
    assert scores(labels, predicted, ("a", "b", "c"), 0)["specificity_a"] == 1


def test_calibration_error_equals_the_formula_computed_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.95, 0.05], [0.93, 0.07], [0.92, 0.08], [0.45, 0.55]])
    expected = 3 / 4 * abs(2 / 3 - (0.95 + 0.93 + 0.92) / 3) + 1 / 4 * abs(1 - 0.55)
    assert calibration_error(labels, probabilities) == pytest.approx(expected)


def test_calibration_error_of_certain_and_right_predictions_is_zero() -> None:
    assert calibration_error(np.array([0, 1]), np.eye(2)) == 0


def test_the_confusion_matrix_has_true_classes_in_rows() -> None:
    assert confusion_matrix([0, 0, 1], [1, 0, 1], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_every_score_of_the_catalogue_is_computed_in_its_order() -> None:
    got = scores([0, 1], [[0.6, 0.4], [0.4, 0.6]], ("a", "b"), positive=1)
    assert list(got)[: len(IMAGE_SCORES)] == list(IMAGE_SCORES)
    assert list(got)[len(IMAGE_SCORES) :] == ["sensitivity_a", "specificity_a", "sensitivity_b", "specificity_b"]
    assert all(name == score.name for name, score in SCORES.items())


def test_scores_of_patients_are_in_the_catalogue_beside_those_of_images() -> None:
    assert list(SCORES) == [*IMAGE_SCORES, *PATIENT_SCORES]
    assert all(name.startswith("patient_") and name.removeprefix("patient_") in IMAGE_SCORES for name in PATIENT_SCORES)
    assert maximizes("patient_auroc")
    assert not maximizes("calibration_error")


def test_tensors_score_as_arrays_do() -> None:
    labels, probabilities, n_classes = CASES[3]
    tensors = scores(torch.tensor(labels), torch.tensor(probabilities), CLASSES[:n_classes], 0)
    assert tensors == scores(labels, probabilities, CLASSES[:n_classes], 0)


@pytest.mark.parametrize(
    ("labels", "probabilities", "positive", "message"),
    [
        ([], np.zeros((0, 2)), 1, "N >= 1 labels"),
        ([0, 1], np.zeros((2, 3)), 1, "N x 2 probabilities"),
        ([0, 2], np.zeros((2, 2)), 1, "indices of the 2 classes"),
        ([0, 1], np.full((2, 2), np.nan), 1, "finite"),
        ([0, 1], np.full((2, 2), 0.5), 2, "positive class"),
    ],
)
def test_unusable_input_is_an_error(
    labels: list[int], probabilities: npt.NDArray[np.float64], positive: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scores(labels, probabilities, ("a", "b"), positive)


def test_the_catalogue_is_cheap_to_import() -> None:
    code = "import sys, trainables.metrics.catalogue; print({'torch', 'sklearn', 'numpy'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_better_ranking_scores_higher() -> None:
    labels = np.array([0] * 50 + [1] * 50)
    noise = np.random.default_rng(0).normal(size=100)
    areas = []
    for signal in (0.0, 1.0, 3.0):
        probability = 1 / (1 + np.exp(-(signal * (labels - 0.5) + noise)))
        area = scores(labels, np.stack([1 - probability, probability], axis=1), ("a", "b"), 1)["auroc"]
        assert area is not None
        areas.append(area)
    assert all(low < high for low, high in pairwise(areas))
