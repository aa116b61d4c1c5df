from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from trainables.metrics.classification import scores
from trainables.metrics.interval import Interval
from trainables.metrics.intervals import bootstrap_by_patient

Arrays = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], list[str]]


def cohort(patients: int, images: int, *, seed: int, n_classes: int = 2, spread: float = 1.0) -> Arrays:
    """Patients of one class each, whose images share most of their score; scores are rounded, so that some tie."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % n_classes, images)
    logits = np.repeat(rng.normal(size=(patients, n_classes)), images, axis=0)
    logits += spread * np.eye(n_classes)[labels] + 0.3 * rng.normal(size=logits.shape)
    raw = np.round(np.exp(logits), 1) + 0.1
    names = [f"p{number}" for number in np.repeat(np.arange(patients), images)]
    return labels, raw / raw.sum(axis=1, keepdims=True), names


def intervals(case: Arrays, *, seed: int = 0, resamples: int = 300) -> dict[str, Interval]:
    found = bootstrap_by_patient(*case, positive=1, seed=seed, resamples=resamples)
    defined = {name: interval for name, interval in found.items() if interval is not None}
    assert len(defined) == len(found) == 2
    return defined


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_the_estimate_is_the_score_of_all_images(seed: int, n_classes: int) -> None:
    case = cohort(20, 4, seed=seed, n_classes=n_classes)
    expected = scores(case[0], case[1], ("a", "b", "c")[:n_classes], positive=1)
    for name, interval in intervals(case).items():
        assert interval.estimate == pytest.approx(expected[name], abs=1e-12)
        assert interval.low <= interval.estimate <= interval.high


def test_the_ends_are_percentiles_of_scores_of_resampled_patients() -> None:
    """The same resamples by loops and scikit-learn."""
    labels, probabilities, names = cohort(12, 3, seed=3)
    _, index = np.unique(names, return_inverse=True)
    draws = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=60)
    areas, balanced = [], []
    for draw in draws:
        rows = np.repeat(np.arange(len(labels)), draw[index])
        if len(set(labels[rows])) == 2:
            areas.append(roc_auc_score(labels[rows], probabilities[rows, 1]))
            balanced.append(balanced_accuracy_score(labels[rows], probabilities[rows].argmax(axis=1)))
    got = intervals((labels, probabilities, names), seed=5, resamples=60)
    for name, values in (("auroc", areas), ("balanced_accuracy", balanced)):
        assert got[name].resamples == len(values)
        assert (got[name].low, got[name].high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_many_images_of_few_patients_do_not_narrow_the_interval() -> None:
    labels, probabilities, names = cohort(30, 1, seed=1)
    once = intervals((labels, probabilities, names))
    repeated = intervals((np.tile(labels, 10), np.tile(probabilities, (10, 1)), names * 10))
    as_if_independent = intervals(
        (np.tile(labels, 10), np.tile(probabilities, (10, 1)), [str(number) for number in range(300)])
    )
    for name in ("auroc", "balanced_accuracy"):
        width, repeated_width = (each[name].high - each[name].low for each in (once, repeated))
        assert repeated_width == pytest.approx(width)
        assert as_if_independent[name].high - as_if_independent[name].low < 0.6 * width


def test_the_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    """The scores are normal with unit distance, so that the true AUROC is Phi(1 / sqrt 2) = .760."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    names = [str(number) for number in range(60)]
    covered = 0
    for seed in range(150):
        probability = 1 / (1 + np.exp(-(labels + rng.normal(size=60))))
        case = (labels, np.stack([1 - probability, probability], axis=1), names)
        interval = intervals(case, seed=seed)["auroc"]
        covered += interval.low <= 0.7602 <= interval.high
    assert 0.88 * 150 <= covered <= 150 * 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    case = cohort(20, 3, seed=2)
    assert intervals(case, seed=1) == intervals(case, seed=1)
    assert intervals(case, seed=1) != intervals(case, seed=2)


def test_the_order_of_the_images_does_not_matter() -> None:
    labels, probabilities, names = cohort(20, 3, seed=2)
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = intervals((labels[order], probabilities[order], [names[index] for index in order]))
    for name, interval in intervals((labels, probabilities, names)).items():
        assert (shuffled[name].low, shuffled[name].high) == pytest.approx((interval.low, interval.high))


def test_a_single_class_has_no_auroc_interval() -> None:
    found = bootstrap_by_patient([1, 1, 1], np.full((3, 2), 0.5), ["p", "q", "r"], positive=1, seed=0)
    assert found["auroc"] is None
    assert found["balanced_accuracy"] == Interval(estimate=0, low=0, high=0, resamples=1000)


def test_a_class_of_one_patient_among_many_keeps_the_resamples_that_have_it() -> None:
    labels = np.array([0] * 20 + [1])
    probabilities = np.random.default_rng(0).random(21)
    case = (labels, np.stack([1 - probabilities, probabilities], axis=1), [str(index) for index in range(21)])
    interval = intervals(case, resamples=1000)["auroc"]
    assert interval.resamples == pytest.approx(1000 * (1 - (20 / 21) ** 21), abs=60)


def test_an_image_without_a_patient_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 images and 1 patients"):
        bootstrap_by_patient([0, 1], np.full((2, 2), 0.5), ["p"], positive=1, seed=0)
