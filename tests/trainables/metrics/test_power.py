from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trainables.metrics.comparison import corrected_resampled_t_test, paired_difference_by_patient
from trainables.metrics.power import (
    TYPICAL,
    Disagreement,
    detectable_difference,
    effective_images,
    locked_power,
    resampled_power,
)

Bools = npt.NDArray[np.bool_]

WITHIN, BETTER, WORSE = 0.12, 0.06, 0.02
DIFFERENCE = BETTER - WORSE
MODELS_AGREE = Disagreement(between=BETTER + WORSE + WITHIN, within=WITHIN, training=0, correlation=0)
"""Of the policies that ``drawn`` simulates."""


def drawn(rng: np.random.Generator, models: int, images: int, training: float = 0.0) -> tuple[Bools, Bools]:
    """Which of the images two policies' models (R, N) get right.

    Of any image, with these probabilities: the first policy is right and the second wrong, or the other way round, with
    all models; or chance decides for every model (WITHIN * 2); or else all are right. In a model ``training`` more or
    fewer images are right, whatever they are.
    """
    kind_N = rng.random(images)
    chance_N = kind_N > 1 - 2 * WITHIN

    def policy(right_N: Bools) -> Bools:
        lucky_RN = rng.random((models, images)) < 0.5 + training * rng.normal(size=(models, 1)) / (2 * WITHIN)
        return np.where(chance_N, lucky_RN, right_N)

    return policy((kind_N < BETTER) | (kind_N >= BETTER + WORSE)), policy(kind_N >= BETTER)


def test_power_with_one_model_is_mcnemars_worked_out_by_hand() -> None:
    """100 images of each class, disagreement .16, difference .05: variance (.16 - .0025) / 200, error .028062.

    .05 / .028062 = 1.78177; Phi(1.78177 - 1.95996) = Phi(-.17819) = .42929, and Phi(-3.74173) = .00009 beyond.
    """
    models = Disagreement(between=0.16, within=0.1, training=0, correlation=0)
    assert locked_power(0.05, (100, 100), disagreement=models) == pytest.approx(0.42938, abs=2e-5)


def test_the_detectable_difference_solves_its_equation_by_hand() -> None:
    """(1.95996 + .84162)^2 (.16 - d^2) / 200 = d^2, so that d^2 = .16 / (1 + 200 / 7.84888), d = .07774."""
    models = Disagreement(between=0.16, within=0.1, training=0, correlation=0)
    found = detectable_difference(partial(locked_power, images_C=(100, 100), disagreement=models))
    assert found == pytest.approx(0.07774, abs=6e-5)


@pytest.mark.parametrize(("models", "images"), [(1, 150), (5, 80)])
def test_the_power_of_the_locked_test_is_that_of_its_simulation(models: int, images: int) -> None:
    """200 test sets: the share found has a deviation of .035. An error 1.3 times as large would shift it by .15."""
    labels = np.arange(2 * images) % 2
    names = [str(number) for number in range(2 * images)]
    rng = np.random.default_rng(0)
    found = []
    for seed in range(200):
        first, second = (
            np.stack([right != (labels == 1), right == (labels == 1)], axis=-1).astype(float)
            for right in drawn(rng, models, 2 * images)
        )
        compared = paired_difference_by_patient(labels, first, second, names, positive=1, resamples=200, seed=seed)
        balanced = compared["balanced_accuracy"]
        assert balanced is not None
        found.append(balanced.p_value < 0.05)
    printed = locked_power(DIFFERENCE, (images, images), disagreement=MODELS_AGREE, models=models)
    assert 0.3 < printed < 0.7
    assert np.mean(found) == pytest.approx(printed, abs=0.09)


def test_the_power_of_the_corrected_t_test_is_that_of_its_simulation() -> None:
    """500 repeated cross-validations: the share found has a deviation of .022."""
    images, folds, repeats = 1000, 5, 4
    labels, rng = np.arange(images) % 2, np.random.default_rng(1)
    found = []
    for _ in range(500):
        first, second = drawn(rng, repeats, images)
        differences = []
        for repeat in range(repeats):
            fold = np.empty(images, dtype=int)
            for label in (0, 1):
                fold[labels == label] = rng.permutation(images // 2) % folds
            right = first[repeat].astype(float) - second[repeat]
            differences += [
                np.mean([right[(fold == each) & (labels == label)].mean() for label in (0, 1)]) for each in range(folds)
            ]
        p_value = corrected_resampled_t_test(differences, n_train=folds - 1, n_test=1).p_value
        assert p_value is not None
        found.append(p_value < 0.05)
    printed = resampled_power(DIFFERENCE, (500, 500), folds=folds, repeats=repeats, disagreement=MODELS_AGREE)
    assert 0.3 < printed < 0.7
    assert np.mean(found) == pytest.approx(printed, abs=0.08)


@pytest.mark.parametrize("models", [1, 4])
def test_the_variance_behind_the_power_is_that_of_simulated_differences(models: int) -> None:
    """As ``locked_power`` says: within / R, between - within and the square of the difference, over images."""
    images, training = 4000, 0.015
    rng = np.random.default_rng(2)
    differences = [np.subtract(*(policy.mean() for policy in drawn(rng, models, images, training))) for _ in range(600)]
    expected = (WITHIN / models + BETTER + WORSE - DIFFERENCE**2) / images + 2 * training**2 / models
    assert np.std(differences) == pytest.approx(expected**0.5, rel=0.1)
    assert np.mean(differences) == pytest.approx(DIFFERENCE, abs=4 * (expected / 600) ** 0.5)


def test_more_images_more_models_and_less_disagreement_find_smaller_differences() -> None:
    def found(images: float = 100, models: int = 1, between: float = 0.14) -> float:
        policies = Disagreement(between=between, within=0.1, training=0.005, correlation=0)
        power = partial(locked_power, images_C=(images, images), disagreement=policies, models=models)
        smallest = detectable_difference(power)
        assert smallest is not None
        return smallest

    assert found() > found(images=200) > found(images=400)
    assert found() > found(models=5) > found(models=10)
    assert found(between=0.2) > found()


def test_a_rare_class_decides_what_can_be_found() -> None:
    power = partial(locked_power, 0.05, disagreement=TYPICAL)
    assert power(images_C=(190, 10)) < power(images_C=(20, 20)) < power(images_C=(100, 100))


def test_power_does_not_fall_with_the_difference_and_has_no_sign() -> None:
    for power in _powers():
        values = [power(difference) for difference in np.linspace(0, 1, 201)]
        assert all(later >= earlier - 1e-9 for earlier, later in pairwise(values))
        assert values[-1] == pytest.approx(1)
        assert power(-0.05) == pytest.approx(power(0.05))


def _powers() -> Iterator[partial[float]]:
    for images in (20, 500):
        yield partial(resampled_power, images_C=(images, images), folds=5, repeats=3, disagreement=TYPICAL)
        for models in (1, 5):
            yield partial(locked_power, images_C=(images, images), disagreement=TYPICAL, models=models)


def test_without_a_difference_the_locked_test_finds_one_as_rarely_as_its_level() -> None:
    policies = Disagreement(between=0.1, within=0.1, training=0, correlation=0)
    assert locked_power(0, (100, 100), disagreement=policies) == pytest.approx(0.05)
    assert 0.02 < locked_power(0, (100, 100), disagreement=policies, models=5) < 0.05


def test_a_difference_that_no_power_reaches_is_none() -> None:
    assert detectable_difference(lambda difference: difference / 2) is None
    assert detectable_difference(lambda difference: difference) == pytest.approx(0.8, abs=1e-4)


def test_images_of_one_patient_count_as_the_design_effect_says_by_hand() -> None:
    """Class 0: patients of 3 and 1 images, sum m^2 / sum m = 10 / 4 = 2.5; 4 / (1 + 1.5 * .5). Class 1: 2 of 1."""
    labels, patients = [0, 0, 0, 0, 1, 1], ["p", "p", "p", "q", "p", "r"]
    assert effective_images(labels, patients, 3, correlation=0.5) == pytest.approx((4 / 1.75, 2, 0))
    assert effective_images(labels, patients, 2, correlation=0) == (4, 2)


def test_images_that_are_all_alike_count_as_their_patients_where_these_are_of_one_size() -> None:
    assert effective_images([0] * 6, list("aabbcc"), 1, correlation=1) == (3,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"within": 0.2}, "within <= between"),
        ({"between": 1.2}, "between <= 1"),
        ({"training": -0.1}, "at least 0"),
        ({"correlation": 1.5}, r"in \[0, 1\]"),
    ],
)
def test_impossible_disagreement_is_an_error(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Disagreement(**{"between": 0.1, "within": 0.1, "training": 0.0, "correlation": 0.0, **change})


def test_impossible_designs_are_errors() -> None:
    with pytest.raises(ValueError, match="every class needs"):
        locked_power(0.1, (10, 0), disagreement=TYPICAL)
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        locked_power(1.1, (10, 10), disagreement=TYPICAL)
    with pytest.raises(ValueError, match="at least 2 folds"):
        resampled_power(0.1, (10, 10), folds=1, repeats=2, disagreement=TYPICAL)


def test_power_is_cheap_to_import() -> None:
    code = "import sys, trainables.metrics.power; print({'torch', 'sklearn', 'numpy', 'scipy'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
