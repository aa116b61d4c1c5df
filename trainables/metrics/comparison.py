"""Whether two policies differ: over resampled splits, on one test set, and over several comparisons at once."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spaces.protocol import Protocol
from trainables.metrics.classification import Floats, Ints, checked
from trainables.metrics.intervals import resampled_patients, weighted_scores

_ROUNDING = 1e-12
"""Differences of scores, which lie in [0, 1], are equal where they differ by no more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """The difference of two policies' scores over evaluations on the same splits; None where it is undefined.

    Args:
        mean: mean difference, first policy minus second.
        low: lower end of the interval of the mean difference.
        high: upper end.
        t: the statistic.
        p_value: two-sided.
        n: number of differences that were tested.
    """

    mean: float | None
    low: float | None
    high: float | None
    t: float | None
    p_value: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """The difference of two policies' scores on one test set.

    Args:
        difference: mean over the models, first policy minus second.
        low: lower end of the interval.
        high: upper end.
        p_value: two-sided.
        resamples: number of resamples in which the difference was defined.
    """

    difference: float
    low: float
    high: float
    p_value: float
    resamples: int


def corrected_resampled_t_test(
    differences_J: Sequence[float], *, n_train: int, n_test: int, level: float = 0.95
) -> PairedComparison:
    """Test whether two policies differ over resampled splits of one data set, such as repeated cross-validation.

    The evaluations share training and test images, so that their spread understates how far the mean would lie from
    another data set's. Their variance s^2 is therefore multiplied by 1/J + n_test / n_train instead of 1/J; the
    degrees of freedom are J - 1.

    With fewer than two evaluations nothing but the mean is defined. Where all differences are equal there is no
    spread to test with: the mean is no different from 0 where they are 0 (p = 1, an interval of no width), and
    otherwise everything but the mean is undefined, as one value seen J times is no certainty.

    Args:
        differences_J: first policy's score minus second's, one per evaluation, on the same split and with fresh seeds.
        n_train: images (or patients) that one evaluation trains on.
        n_test: images (or patients) that it tests on.
        level: of the interval.

    Raises:
        ValueError: a difference is not finite, or a size is less than 1.

    Source: Nadeau & Bengio 2003, the corrected resampled t-test; for repeated cross-validation: Bouckaert & Frank 2004.
    """
    values_J = np.asarray(differences_J, dtype=np.float64)
    if values_J.ndim != 1 or not np.isfinite(values_J).all():
        raise ValueError(f"differences must be a row of finite numbers; got {differences_J}.")
    if n_train < 1 or n_test < 1:
        raise ValueError(f"an evaluation trains on and tests at least 1 image; got {n_train} and {n_test}.")
    count = len(values_J)
    mean = float(values_J.mean()) if count else None
    if mean is None or count < 2:
        return PairedComparison(mean=mean, low=None, high=None, t=None, p_value=None, n=count)
    spread = float(values_J.std(ddof=1))
    if spread <= _ROUNDING and abs(mean) <= _ROUNDING:
        return PairedComparison(mean=0.0, low=0.0, high=0.0, t=0.0, p_value=1.0, n=count)
    if spread <= _ROUNDING:
        return PairedComparison(mean=mean, low=None, high=None, t=None, p_value=None, n=count)
    from scipy import stats

    error = spread * (1 / count + n_test / n_train) ** 0.5
    reach = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    return PairedComparison(
        mean=mean,
        low=mean - reach,
        high=mean + reach,
        t=mean / error,
        p_value=float(2 * stats.t.sf(abs(mean / error), count - 1)),
        n=count,
    )


def compare_evaluations(
    differences: Mapping[int, float], protocol: Protocol, *, evaluations: int, n_train: int, n_test: int
) -> PairedComparison:
    """The corrected resampled t-test over the evaluations of two trials, those of the same test images averaged first.

    Only folds are drawn afresh by each repeat. The repeats of a site or of a fixed validation part share all their test
    images: taken for evaluations of their own they would find differences that are chance of these images. Sites are as
    many differences as there are sites; a fixed part is a single one, of which nothing but the mean is defined.

    Args:
        differences: first policy's score minus second's, by the number of the evaluation.
        protocol: how both trials were judged.
        evaluations: of a complete trial, without those on the locked test set.
        n_train: images that one evaluation trains on.
        n_test: images that it tests on.
    """
    if protocol.kind == "folds":
        return corrected_resampled_t_test(list(differences.values()), n_train=n_train, n_test=n_test)
    alike: dict[int, list[float]] = {}
    for number, difference in differences.items():
        alike.setdefault(number % (evaluations // protocol.repeats), []).append(difference)
    return corrected_resampled_t_test(list(map(statistics.fmean, alike.values())), n_train=n_train, n_test=n_test)


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Adjust p values for the number of comparisons, so that one error in all of them is as rare as the level.

    Args:
        p_values: in [0, 1]; None for a comparison that is undefined, which does not count as one.

    Returns:
        In the order given: max over k <= i of min(1, (m - k + 1) p_(k)) for the i-th smallest of m; None where given.

    Raises:
        ValueError: a p value outside [0, 1].

    Source: Holm 1979.
    """
    defined = [(value, index) for index, value in enumerate(p_values) if value is not None]
    if not all(0 <= value <= 1 for value, _ in defined):
        raise ValueError(f"p values must lie in [0, 1]; got {list(p_values)}.")
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, index) in enumerate(sorted(defined)):
        highest = max(highest, min(1.0, (len(defined) - rank) * value))
        adjusted[index] = highest
    return tuple(adjusted)


def paired_difference_by_patient(
    labels_N: npt.ArrayLike,
    first_RNK: npt.ArrayLike,
    second_RNK: npt.ArrayLike,
    patients: Sequence[str],
    *,
    positive: int,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int,
) -> Mapping[str, PairedDifference | None]:
    """Compare two policies on the same test images, by resampling patients, with R trained models of each.

    The score of a policy is the mean over its models. Both policies are scored on the same resamples of patients.
    Where R > 1 the interval covers the training seed too: that part of the differences' variance over the R pairs of
    models which the choice of patients does not explain (Beiden et al. 2000) is added to every resample as a draw from
    Student's t distribution with R - 1 degrees of freedom, with both signs. Resampling the models as well would count
    three times what chance makes of one model on one patient (Owen 2007), most of what sets two models apart. Where
    R = 1 the interval covers the choice of test patients alone.

    The p value is twice the smaller share of resamples on one side of 0, so that it is below 1 - ``level`` where the
    interval leaves 0 out. A resample in which a class is missing that the data have is left out; where fewer than half
    remain, the difference is None. For scores of patients, give ``patient_means``.

    Args:
        labels_N: class indices.
        first_RNK: the first policy's probabilities, in [0, 1], sums 1 over K; one (N, K) per trained model, R >= 1.
        second_RNK: the second policy's, as many models.
        patients: N patient names.
        positive: index of the positive class; with more than two classes AUROC is the mean of one against the rest.
        resamples: how many.
        level: share of the resamples inside the interval.
        seed: every draw descends from it.

    Returns:
        Differences, first minus second, by the names of the scores, "balanced_accuracy" and "auroc".

    Raises:
        ValueError: on empty, non-finite or misshapen input, or where the policies differ in their number of models.

    Source: Efron & Tibshirani 1993, section 13.3; Beiden, Wagner & Campbell 2000; Owen 2007.
    """
    labels, first = _checked_models(labels_N, first_RNK)
    _, second = _checked_models(labels_N, second_RNK)
    if first.shape != second.shape:
        raise ValueError(
            f"two policies are compared by as many models of each on the same images; got probabilities of shapes "
            f"{first.shape} and {second.shape}."
        )
    weights_BN = resampled_patients(patients, len(labels), resamples=resamples, seed=seed)
    pairs = [
        tuple(weighted_scores(weights_BN, labels, each_NK, positive=positive) for each_NK in pair)
        for pair in zip(first, second, strict=True)
    ]
    # a stream of its own: the seed alone has drawn the patients
    student_B = np.random.default_rng((seed, 1)).standard_t(max(len(first) - 1, 1), size=resamples)
    return {
        name: _difference(np.stack([one[name] - other[name] for one, other in pairs]), student_B, level)
        for name in pairs[0][0]
    }


def _checked_models(labels_N: npt.ArrayLike, probabilities_RNK: npt.ArrayLike) -> tuple[Ints, Floats]:
    probabilities = np.asarray(probabilities_RNK, dtype=np.float64)
    if probabilities.ndim != 3 or not len(probabilities):
        raise ValueError(f"probabilities must have the shape (models, N, K); got {probabilities.shape}.")
    models = [checked(labels_N, model_NK, probabilities.shape[2]) for model_NK in probabilities]
    return models[0][0], probabilities


def _difference(differences_RB: Floats, student_B: Floats, level: float) -> PairedDifference | None:
    """From the differences of R pairs of models, on all images (first column) and on the resamples."""
    observed_R, resampled_RB = differences_RB[:, 0], differences_RB[:, 1:]
    defined_B = np.isfinite(resampled_RB).all(axis=0)
    if np.isnan(observed_R).any() or 2 * int(defined_B.sum()) < resampled_RB.shape[1]:
        return None
    resampled_RB = resampled_RB[:, defined_B]
    shift_B = student_B[defined_B] * (_variance_of_training(observed_R, resampled_RB) / len(observed_R)) ** 0.5
    mean_B = resampled_RB.mean(axis=0)
    # both signs, so that exchanging the policies changes nothing but the sign
    values = np.concatenate([mean_B + shift_B, mean_B - shift_B])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    side = min((values <= 0).mean(), (values >= 0).mean())
    return PairedDifference(
        difference=float(observed_R.mean()),
        low=float(low),
        high=float(high),
        p_value=float(min(1.0, 2 * (len(mean_B) * side + 1) / (len(mean_B) + 1))),
        resamples=len(mean_B),
    )


def _variance_of_training(observed_R: Floats, resampled_RB: Floats) -> float:
    """Variance over pairs of models of the difference that they would have on infinitely many patients."""
    if len(observed_R) < 2:
        return 0.0
    of_patients = (resampled_RB - observed_R[:, None]).var(axis=0, ddof=1).mean()
    return max(0.0, float(observed_R.var(ddof=1) - of_patients))
