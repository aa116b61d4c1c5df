from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from spaces.protocol import Protocol
from trainables.metrics.comparison import (
    PairedComparison,
    PairedDifference,
    compare_evaluations,
    corrected_resampled_t_test,
    holm,
    paired_difference_by_patient,
)
from trainables.metrics.patients import patient_means

Models = npt.NDArray[np.float64]


def test_the_corrected_t_test_equals_five_differences_worked_out_by_hand() -> None:
    """Mean .03; squares about it 1 + 0 + 4 + 1 + 4 = 10 (1e-4), s^2 = 2.5e-4; factor 1/5 + 20/80 = .45.

    Variance of the mean 1.125e-4, standard error .0106066, t = 2.828427 = sqrt 8; t_4 at .975 is 2.776445 (tables).
    """
    found = corrected_resampled_t_test([0.02, 0.03, 0.05, 0.04, 0.01], n_train=80, n_test=20)
    assert found.n == 5
    assert found.mean == pytest.approx(0.03)
    assert found.t == pytest.approx(8**0.5)
    assert (found.low, found.high) == pytest.approx((0.03 - 2.776445 * 0.010606602, 0.03 + 2.776445 * 0.010606602))
    # P(|t_4| > x) = 1 - u (3 - u^2) / 2 with u = x / sqrt(4 + x^2), which is sqrt(8 / 12) here
    u = (8 / 12) ** 0.5
    assert found.p_value == pytest.approx(1 - u * (3 - u**2) / 2)


def test_the_corrected_t_test_equals_two_differences_worked_out_by_hand() -> None:
    """Mean .02, s^2 = 2e-4, factor 1/2 + 1/2 = 1, t = sqrt 2; t_1 is Cauchy's: p = 1 - 2 atan(sqrt 2) / pi."""
    found = corrected_resampled_t_test([0.01, 0.03], n_train=10, n_test=5)
    assert found.t == pytest.approx(2**0.5)
    assert found.p_value == pytest.approx(0.391827, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_without_the_correction_it_is_scipys_t_test(seed: int) -> None:
    """With so large a training set the correction vanishes."""
    values = np.random.default_rng(seed).normal(0.1, 0.2, size=12).tolist()
    found, expected = corrected_resampled_t_test(values, n_train=10**12, n_test=1), stats.ttest_1samp(values, 0)
    assert (found.t, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_leaves_out_zero_where_p_is_below_the_level(level: float) -> None:
    for shift in np.linspace(0, 0.1, 41):
        found = corrected_resampled_t_test((shift + np.array([-0.05, 0.02, 0.03])), n_train=4, n_test=1, level=level)
        assert found.p_value is not None and found.low is not None and found.high is not None
        assert (found.low > 0 or found.high < 0) == (found.p_value < 1 - level)


def test_exchanging_the_policies_changes_the_sign_alone() -> None:
    values = np.array([0.02, -0.01, 0.07, 0.03])
    one, other = (corrected_resampled_t_test(each.tolist(), n_train=4, n_test=1) for each in (values, -values))
    assert one.p_value == other.p_value
    assert one.mean is not None and one.low is not None and one.high is not None and one.t is not None
    assert (other.mean, other.low, other.high, other.t) == pytest.approx((-one.mean, -one.high, -one.low, -one.t))


def test_fewer_than_two_differences_are_no_test() -> None:
    assert corrected_resampled_t_test([], n_train=4, n_test=1) == PairedComparison(
        mean=None, low=None, high=None, t=None, p_value=None, n=0
    )
    assert corrected_resampled_t_test([0.25], n_train=4, n_test=1) == PairedComparison(
        mean=0.25, low=None, high=None, t=None, p_value=None, n=1
    )


def test_policies_that_are_equal_everywhere_do_not_differ() -> None:
    assert corrected_resampled_t_test([0.0] * 5, n_train=4, n_test=1) == PairedComparison(
        mean=0, low=0, high=0, t=0, p_value=1, n=5
    )


def test_one_difference_seen_every_time_is_no_certainty() -> None:
    found = corrected_resampled_t_test([0.3, 0.1 + 0.2, 0.3], n_train=4, n_test=1)
    assert found.mean == pytest.approx(0.3)
    assert found.p_value is found.t is found.low is found.high is None


@pytest.mark.parametrize(
    ("differences", "sizes", "message"),
    [([0.1, float("nan")], (4, 1), "finite"), ([0.1, 0.2], (0, 1), "at least 1"), ([0.1, 0.2], (4, 0), "at least 1")],
)
def test_unusable_differences_are_an_error(differences: list[float], sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrected_resampled_t_test(differences, n_train=sizes[0], n_test=sizes[1])


def test_evaluations_on_splits_of_their_own_are_tested_one_by_one() -> None:
    values = [0.02, 0.03, 0.05, 0.04]
    found = compare_evaluations(
        dict(enumerate(values)), Protocol(folds=2, repeats=2), evaluations=4, n_train=80, n_test=20
    )
    assert found == corrected_resampled_t_test(values, n_train=80, n_test=20)


def test_evaluations_of_the_same_test_images_are_averaged_as_far_as_they_are_there() -> None:
    found, single = (
        compare_evaluations(
            {0: 0.25, 1: 0.5, 3: 0.75, 4: 0.25}, Protocol(kind=kind, repeats=6 // apart), evaluations=6,
            n_train=80, n_test=20,
        )
        for kind, apart in (("sites", 3), ("split", 1))
    )  # fmt: skip
    assert found == corrected_resampled_t_test([0.5, 0.375], n_train=80, n_test=20)
    assert single == corrected_resampled_t_test([0.4375], n_train=80, n_test=20)


@pytest.mark.parametrize(("sites", "repeats"), [(2, 5), (3, 5), (5, 2)])
def test_repeating_sites_makes_no_difference_of_chance_a_finding(sites: int, repeats: int) -> None:
    protocol, rng, found = Protocol(kind="sites", repeats=repeats), np.random.default_rng(0), 0
    for _ in range(1000):
        by_site, by_training = rng.normal(size=sites), rng.normal(0, 0.1, size=(repeats, sites))
        tested = compare_evaluations(
            dict(enumerate((by_site + by_training).ravel())), protocol, evaluations=sites * repeats,
            n_train=100 * (sites - 1), n_test=100,
        )  # fmt: skip
        found += tested.p_value is not None and tested.p_value < 0.05
    assert found <= 60


def test_holm_equals_a_case_worked_out_by_hand() -> None:
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04; the last may not fall below .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_holm_caps_at_one_and_counts_ties_as_comparisons() -> None:
    """Sorted .2, .2, .9 times 3, 2, 1: .6, .4 -> .6, .9; and .6, .7 times 2, 1: 1.2 -> 1, .7 -> 1."""
    assert holm([0.9, 0.2, 0.2]) == pytest.approx((0.9, 0.6, 0.6))
    assert holm([0.6, 0.7]) == (1.0, 1.0)


def test_an_undefined_comparison_is_passed_through_and_not_counted() -> None:
    assert holm([None, 0.02, None, 0.03]) == (None, 0.04, None, 0.04)
    assert holm([None]) == (None,)
    assert holm([]) == ()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="p values"):
        holm([0.5, value])


def test_holm_never_rejects_what_bonferroni_keeps_back_in_error() -> None:
    """Any true null is rejected in at most the level's share of families of ten."""
    drawn = np.random.default_rng(0).random((2000, 10))
    wrong = np.mean([min(value for value in holm(row.tolist()) if value is not None) < 0.05 for row in drawn])
    assert 0.03 < wrong < 0.065


def policies(
    seed: int, *, models: int = 1, patients: int = 60, difference: float = 0.0, training: float = 0.0
) -> tuple[npt.NDArray[np.int64], Models, Models, list[str]]:
    """Two policies' probabilities of two images a patient; the models of the first are shifted towards the truth."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % 2, 2)
    sign = 2 * labels - 1
    shared = np.repeat(rng.normal(size=patients), 2) + 0.8 * sign

    def trained(shift: float) -> Models:
        own = shift + training * rng.normal(size=(models, 1))
        probability = 1 / (1 + np.exp(-(shared + own * sign + 0.4 * rng.normal(size=(models, len(labels))))))
        return np.stack([1 - probability, probability], axis=-1)

    return labels, trained(difference), trained(0), [f"p{number}" for number in np.repeat(np.arange(patients), 2)]


Case = tuple[npt.NDArray[np.int64], Models, Models, list[str]]


def compared(case: Case, seed: int = 0, resamples: int = 300) -> list[PairedDifference]:
    found = paired_difference_by_patient(*case, positive=1, seed=seed, resamples=resamples)
    assert list(found) == ["balanced_accuracy", "auroc"]
    defined = [each for each in found.values() if each is not None]
    assert len(defined) == 2
    return defined


@pytest.mark.parametrize("models", [1, 3])
def test_identical_predictions_have_no_difference(models: int) -> None:
    labels, first, _, names = policies(0, models=models)
    for found in compared((labels, first, first, names)):
        assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("models", [1, 4])
def test_exchanging_two_policies_on_one_test_set_changes_the_sign_alone(models: int) -> None:
    labels, first, second, names = policies(1, models=models, difference=0.5, training=0.5)
    pairs = zip(compared((labels, first, second, names)), compared((labels, second, first, names)), strict=True)
    for one, other in pairs:
        assert one.p_value == other.p_value
        assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))


@pytest.mark.parametrize("models", [1, 3])
def test_the_difference_is_that_of_scikit_learns_scores_averaged_over_the_models(models: int) -> None:
    labels, first, second, names = policies(2, models=models, difference=0.5)
    balanced, area = compared((labels, first, second, names))
    expected = [
        np.mean([balanced_accuracy_score(labels, each.argmax(axis=1)) for each in policy]) for policy in (first, second)
    ]
    areas = [np.mean([roc_auc_score(labels, each[:, 1]) for each in policy]) for policy in (first, second)]
    assert balanced.difference == pytest.approx(expected[0] - expected[1])
    assert area.difference == pytest.approx(areas[0] - areas[1])


def test_with_one_model_the_ends_are_percentiles_over_the_same_resamples_of_both_policies() -> None:
    """The same resamples by loops and scikit-learn."""
    labels, first, second, names = policies(3, patients=12, difference=0.5)
    _, index = np.unique(names, return_inverse=True)
    values = []
    for draw in np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=80):
        rows = np.repeat(np.arange(len(labels)), draw[index])
        if len(set(labels[rows])) == 2:
            one, other = (roc_auc_score(labels[rows], each[0, rows, 1]) for each in (first, second))
            values.append(one - other)
    found = compared((labels, first, second, names), seed=5, resamples=80)[1]
    assert found.resamples == len(values)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_the_interval_leaves_out_zero_where_p_is_small() -> None:
    for seed in range(30):
        for found in compared(policies(seed, models=2, difference=0.4), seed=seed, resamples=500):
            assert found.p_value > 0.04 or found.low > 0 or found.high < 0
            assert found.p_value < 0.06 or found.low <= 0 <= found.high


@pytest.mark.parametrize(("models", "training"), [(1, 0.0), (4, 0.5)])
def test_policies_alike_but_for_patients_and_seeds_are_rarely_called_different(models: int, training: float) -> None:
    """200 test sets; at a level of .05, 20 or more are seen in one of 1,000 runs."""
    found = [
        compared(policies(seed, models=models, training=training, patients=40), seed=seed, resamples=150)
        for seed in range(200)
    ]
    for score in (0, 1):
        assert sum(each[score].p_value < 0.05 for each in found) < 20


def test_what_training_seeds_do_to_the_score_widens_the_interval() -> None:
    """Patients enough to say all about these models; the models differ by their seeds alone."""
    widths = []
    for training in (0.0, 0.8):
        found = [
            compared(policies(seed, models=5, patients=300, training=training), resamples=100)[0] for seed in (0, 1)
        ]
        widths.append(np.mean([each.high - each.low for each in found]))
    assert widths[1] > 2 * widths[0]


def test_many_images_of_few_patients_do_not_narrow_the_interval_of_the_difference() -> None:
    labels, first, second, names = policies(4, difference=0.5)
    once = compared((labels, first, second, names))
    tiled = compared((np.tile(labels, 5), np.tile(first, (1, 5, 1)), np.tile(second, (1, 5, 1)), names * 5))
    for one, other in zip(once, tiled, strict=True):
        assert (other.low, other.high) == pytest.approx((one.low, one.high))


def test_scores_of_patients_are_compared_by_their_means() -> None:
    labels, first, second, names = policies(5, difference=0.5)
    one, other = (patient_means(labels, each[0], names) for each in (first, second))
    found = compared((one.labels_U, one.probabilities_UK[None], other.probabilities_UK[None], list(one.patients)))[1]
    areas = [roc_auc_score(each.labels_U, each.probabilities_UK[:, 1]) for each in (one, other)]
    assert found.difference == pytest.approx(areas[0] - areas[1])


def test_a_single_class_leaves_the_difference_of_areas_undefined() -> None:
    half = np.full((1, 3, 2), 0.5)
    found = paired_difference_by_patient([1, 1, 1], half, half, ["p", "q", "r"], positive=1, seed=0)
    assert found["auroc"] is None
    assert found["balanced_accuracy"] is not None


def test_policies_with_different_numbers_of_models_cannot_be_compared() -> None:
    labels, first, second, names = policies(0, models=2)
    with pytest.raises(ValueError, match=r"\(2, 120, 2\) and \(1, 120, 2\)"):
        paired_difference_by_patient(labels, first, second[:1], names, positive=1, seed=0)
    with pytest.raises(ValueError, match="models, N, K"):
        paired_difference_by_patient(labels, first[0], second[0], names, positive=1, seed=0)
    with pytest.raises(ValueError, match="120 images and 1 patients"):
        paired_difference_by_patient(labels, first, second, names[:1], positive=1, seed=0)
