"""The smallest difference in balanced accuracy that an evaluation can detect; cheap to import, for command lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

_MIDPOINTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """How the models of two policies differ in what they get right.

    Args:
        between: share of images that one of two models gets right and the other wrong, one of each policy.
        within: the same of two models of one policy, which differ in their training seed alone.
        training: standard deviation, over pairs of trainings, of the difference in balanced accuracy that a pair would
            have on infinitely many patients.
        correlation: of two images of one patient and class in the difference of what two models get right; 1 if the
            images of a patient are as good as one, 0 if they are as good as those of different patients.
    """

    between: float
    within: float
    training: float
    correlation: float

    def __post_init__(self) -> None:
        if not 0 <= self.within <= self.between <= 1:
            raise ValueError(
                f"shares of images on which models disagree must satisfy 0 <= within <= between <= 1; got within "
                f"{self.within} and between {self.between}."
            )
        if self.training < 0 or not 0 <= self.correlation <= 1:
            raise ValueError(
                f"the deviation between trainings must be at least 0 and the correlation in [0, 1]; got "
                f"{self.training} and {self.correlation}."
            )


TYPICAL = Disagreement(between=0.15, within=0.10, training=0.01, correlation=0.1)
"""What to assume before anything is trained.

Measured with ``small_cnn`` (32 px, 20 epochs; the first of five folds tests; mixers real and mixup, affine expansion).
Two classes of 1,000 chest X-rays, six trainings: between .10 to .15, within .09 to .11, training up to .006,
correlation up to .08. Four classes of 805 cardiac images, of which no model learnt much, four trainings: between .19 to
.28, within .11 to .18, training .01 to .03, correlation up to .12. Policies much alike are nearer to ``within``.
"""


def effective_images(
    labels_N: Sequence[int], patients: Sequence[str], n_classes: int, *, correlation: float
) -> tuple[float, ...]:
    """How many images of different patients the images of each class are worth.

    Args:
        labels_N: class indices.
        patients: the patient of each image.
        n_classes: number of classes K.
        correlation: between two images of one patient, see ``Disagreement``.

    Returns:
        For each class its images over the design effect 1 + (sum_p m_p^2 / sum_p m_p - 1) correlation, with m_p images
        of the class of patient p; 0 where the class has none.

    Source: the design effect of clusters of unequal size: Kish 1965; Donner & Klar 2000.
    """
    sizes: list[list[int]] = [[] for _ in range(n_classes)]
    for (_, label), size in Counter(zip(patients, labels_N, strict=True)).items():
        sizes[label].append(size)
    return tuple(
        sum(each) / (1 + (sum(size**2 for size in each) / sum(each) - 1) * correlation) if each else 0.0
        for each in sizes
    )


def locked_power(
    difference: float,
    images_C: Sequence[float],
    *,
    disagreement: Disagreement,
    models: int = 1,
    level: float = 0.05,
) -> float:
    """Probability that ``paired_difference_by_patient`` finds a difference in balanced accuracy on one test set.

    With one model of each policy the comparison does not cover the training seed, and finds chance of training too.

    Args:
        difference: true difference, the same in each class's sensitivity.
        images_C: test images of each class, as ``effective_images`` counts them, more than 0.
        disagreement: of the two policies.
        models: trained models of each policy, whose scores are averaged.
        level: of the two-sided test.

    Raises:
        ValueError: a class without images, or a difference beyond [-1, 1].

    Source: the power of McNemar's test: Connor 1987; here for R models of each policy.
    """
    of_images = _variance(difference, images_C, disagreement, models)
    threshold = NormalDist().inv_cdf(1 - level / 2) * of_images**0.5
    thresholds = [threshold]
    if models > 1:
        # the test estimates the part of training from so many models, and never below 0
        chance = disagreement.within * sum(1 / images for images in images_C) / len(images_C) ** 2
        observed = disagreement.training**2 + chance
        estimates = [max(0.0, observed * ratio - chance) for ratio in _variance_ratios(models - 1)]
        student = _student(level, models - 1)
        thresholds = [(threshold**2 + student**2 * estimate / models) ** 0.5 for estimate in estimates]
    return _found(difference, of_images + disagreement.training**2 / models, thresholds)


def resampled_power(
    difference: float,
    images_C: Sequence[float],
    *,
    folds: int,
    repeats: int,
    disagreement: Disagreement,
    level: float = 0.05,
) -> float:
    """Probability that the corrected resampled t-test over repeated cross-validation finds a difference.

    The differences' variance within the data set, s^2, is that of one fold; the test multiplies it by 1/J + 1/(K - 1).
    The mean of the J = K * repeats differences is less variable than that: the repeats average the models on the same
    images. The statistic is therefore no noncentral t itself; it is one times the ratio of the two standard errors,
    which is how the power is computed. Not included is how much another set of training patients would change the
    policies' true difference, which the correction is there for: with it, power lies nearer to one half.

    Args:
        difference: true difference, the same in each class's sensitivity.
        images_C: images of each class in the whole data set, as ``effective_images`` counts them, more than 0.
        folds: K, at least 2.
        repeats: cross-validations with fresh splits and seeds.
        disagreement: of the two policies.
        level: of the two-sided test.

    Raises:
        ValueError: a class without images, a difference beyond [-1, 1], or fewer than 2 folds.

    Source: the test: Nadeau & Bengio 2003.
    """
    if folds < 2 or repeats < 1:
        raise ValueError(f"cross-validation needs at least 2 folds and 1 repeat; got {folds} and {repeats}.")
    evaluations = folds * repeats
    of_fold = _variance(difference, [images / folds for images in images_C], disagreement, 1) + disagreement.training**2
    of_mean = _variance(difference, images_C, disagreement, repeats) + disagreement.training**2 / evaluations
    # what the test takes for the variance of the mean
    estimate = of_fold * (1 / evaluations + 1 / (folds - 1))
    student = _student(level, evaluations - 1)
    thresholds = [student * (estimate * ratio) ** 0.5 for ratio in _variance_ratios(evaluations - 1)]
    return _found(difference, of_mean, thresholds)


def detectable_difference(power_of: Callable[[float], float], *, power: float = 0.8) -> float | None:
    """The smallest true difference that is found with the power asked for.

    Args:
        power_of: probability of finding a difference in [0, 1]; must not fall.
        power: in (0, 1).

    Returns:
        In (0, 1], to four digits; None where not even a difference of 1 is found that often.
    """
    if power_of(1.0) < power:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    return round(high, 4)


def _variance(difference: float, images_C: Sequence[float], disagreement: Disagreement, models: int) -> float:
    """Variance of the difference of balanced accuracies over the choice of images, R models of each policy averaged.

    With p and q the probabilities, over trainings, that the two policies get an image right, ``between`` is the mean of
    p(1 - q) + q(1 - p), and ``within`` that of 2p(1 - p). The image's difference has variance within / R from training
    and (p - q)^2, whose mean is between - within, from the image; the squared mean difference is subtracted. A
    difference needs at least as much disagreement as it is large.
    """
    if not images_C or min(images_C) <= 0:
        raise ValueError(f"every class needs test images to detect a difference; got {list(images_C)}.")
    if abs(difference) > 1:
        raise ValueError(f"a difference of balanced accuracies lies in [-1, 1]; got {difference}.")
    within = disagreement.within
    of_images = max(max(disagreement.between, abs(difference)) - within, difference**2) - difference**2
    return sum((within / models + of_images) / images for images in images_C) / len(images_C) ** 2


def _student(level: float, degrees: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(1 - level / 2, degrees))


def _variance_ratios(degrees: int) -> list[float]:
    """An estimated variance over the true one: quantiles that are equally likely, so that a mean is an integral."""
    from scipy import stats

    middles = [(index + 0.5) / _MIDPOINTS for index in range(_MIDPOINTS)]
    return [float(quantile) / degrees for quantile in stats.chi2.ppf(middles, degrees)]


def _found(difference: float, variance: float, thresholds: Sequence[float]) -> float:
    """Probability that an estimate of the difference lies beyond a threshold on either side; mean over thresholds."""
    if variance == 0:
        return sum(abs(difference) > threshold for threshold in thresholds) / len(thresholds)
    normal = NormalDist(difference, variance**0.5)
    return sum(1 - normal.cdf(threshold) + normal.cdf(-threshold) for threshold in thresholds) / len(thresholds)
