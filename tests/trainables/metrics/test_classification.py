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

from trainables.metrics.classification import SCORES, calibration_error, confusion_matrix, scores

Case = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]
CLASSES = ("a", "b", "c", "d")


def random_case(seed: int) -> Case:
    """Labels, probabilities and number of classes: many ties, some folds without a class, some with one class only."""
    rng = np.random.default_rng(seed)
    n_classes, count = int(rng.integers(2, 5)), int(rng.integers(1, 60))
    present = rng.choice(n_classes, size=int(rng.integers(1, n_classes + 1)), replace=False)
    labels = rng.choice(present, size=count)
    raw = rng.integers(1, 5, size=(count, n_classes)).astype(float) if seed % 2 else rng.random((count, n_classes))
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


@pytest.mark.parametrize("number", range(len(CASES)))
def test_scores_equal_scikit_learn_or_counting_by_hand(number: int) -> None:
    labels, probabilities, n_classes = CASES[number]
    got = scores(labels, probabilities, CLASSES[:n_classes], positive=1)
    predicted = probabilities.argmax(axis=1)
    counts = [one_against_rest(labels, predicted, index) for index in range(n_classes)]
    sensitivity = [ratio(tp, tp + fn) for tp, fn, _, _ in counts]
    specificity = [ratio(tn, tn + fp) for _, _, tn, fp in counts]
    pick = (lambda values: values[1]) if n_classes == 2 else mean
    assert same(got["accuracy"], metrics.accuracy_score(labels, predicted))
    assert same(got["balanced_accuracy"], mean([rate for rate in sensitivity if rate is not None]))
    assert same(got["macro_f1"], metrics.f1_score(labels, predicted, average="macro"))
    assert same(got["sensitivity"], pick(sensitivity))
    assert same(got["specificity"], pick(specificity))
    for index, name in enumerate(CLASSES[:n_classes]):
        assert same(got[f"sensitivity_{name}"], sensitivity[index])
        assert same(got[f"specificity_{name}"], specificity[index])
    complete = len(set(labels)) == n_classes
    for name, function in (("auroc", metrics.roc_auc_score), ("auprc", metrics.average_precision_score)):
        if not complete:
            assert got[name] is None
        elif n_classes == 2:
            assert same(got[name], function(labels, probabilities[:, 1]))
        else:
            one_hot = np.eye(n_classes)[labels]
            assert same(got[name], function(one_hot, probabilities, average="macro"))


def test_the_random_cases_cover_ties_missing_classes_and_single_class_folds() -> None:
    missing = [len(set(labels)) < n_classes for labels, _, n_classes in CASES]
    single = [len(set(labels)) == 1 for labels, _, _ in CASES]
    ties = [len(set(probabilities[:, 1])) < len(probabilities) for _, probabilities, _ in CASES]
    assert min(sum(missing), sum(single), sum(ties), 200 - sum(missing)) > 30


def test_balanced_accuracy_is_scikit_learns_where_every_predicted_class_occurs() -> None:
    labels, probabilities, n_classes = CASES[0]
    for labels, probabilities, n_classes in CASES:
        predicted = probabilities.argmax(axis=1)
        if set(predicted) <= set(labels) and len(set(labels)) > 1:
            expected = metrics.balanced_accuracy_score(labels, predicted)
            assert same(scores(labels, probabilities, CLASSES[:n_classes], 0)["balanced_accuracy"], expected)


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
    assert list(got)[: len(SCORES)] == list(SCORES)
    assert list(got)[len(SCORES) :] == ["sensitivity_a", "specificity_a", "sensitivity_b", "specificity_b"]
    assert all(name == score.name for name, score in SCORES.items())


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
