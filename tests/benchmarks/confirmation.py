"""How often the confirmation's tests call two policies different, where they are not and where they are.

Run:
    python -m tests.benchmarks.confirmation --data FOLDER [--small] [--json FILE]

A case is one confirmation from beginning to end: a fifth of the patients is locked; on the others a logistic regression
is refitted over 10 x 5-fold patient-grouped cross-validation for each of two policies, and five times on all of them
for the locked patients. Features are fixed: principal components of the images at 16 px, computed once without labels.

**The policies.** Both are that logistic regression. Each training sees a fresh bootstrap sample of its training
images: that is the irrelevant randomness, in the place of a network's training seed. On top of it:

- *identical*: nothing. The policies are exchangeable, so that their true difference is 0.
- *different*: 7 % of the images are right under one policy and wrong under the other, in every repeat: under the first
  policy 3.5 % + d / 2, under the second 3.5 % - d / 2, so that the true difference is d. It is 0 (policies that are
  equally good, but not on the same images), 3 points, and for either test what it finds with power .8 as printed.

Which images these are is drawn anew in every case, independently for each image, and stays through the case's repeats,
as an image that is easy for one policy stays so.

**All cases share one finite data set**, so that cases are not independent data sets, and what a test does over cases is
not in general what it does over data sets: if two policies differed by a trace on these very images, more cases would
only find that trace more surely. Here they do not. Given the images, identical policies differ by 0 in expectation
whichever images they are, and the images on which the other policies differ are fresh draws for every case, so that the
true difference is d exactly over these draws, whatever images they fall on. What 500 cases share is how hard the
images are for a logistic regression: it sets how often two models disagree, not who is better. What they cannot show is
how a true difference varies with the training patients, as both policies learn from the same ones.

**The power** is computed as a search prints it, from the numbers of images and from how often models disagree. These
are estimated from cases of their own, never those that are counted. The level is .05, two-sided, without Holm's
correction (one comparison per case). The intervals of rates are exact (binomial).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from sklearn.decomposition import PCA

from tests.benchmarks.disagreement import Moments, disagreement, moments
from trainables.data.reading import read_cohort
from trainables.metrics.comparison import corrected_resampled_t_test, paired_difference_by_patient
from trainables.metrics.power import (
    Disagreement,
    detectable_difference,
    effective_images,
    locked_power,
    resampled_power,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DIFFERENCE, APART, LEVEL, POWER = 0.03, 0.07, 0.05, 0.8
FOLDS, REPEATS, MODELS = 5, 10, 5
PIXELS, COMPONENTS, PENALTY, NEWTON_STEPS = 16, 24, 4.0, 5
RESAMPLES = 600
CORRECTED, UNCORRECTED, LOCKED = "corrected t-test", "uncorrected t-test", "locked test"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Fixed features (N, D) with a column of ones, labels 0 or 1, patients by number."""

    features_ND: Floats
    labels_N: Ints
    patients_N: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Probabilities of the positive class of one case, under the two policies before images are changed.

    Args:
        tested_SN: bool, the test images of each evaluation of the cross-validations.
        resampled_2SN: probabilities in each evaluation, meaningful where it tests.
        locked_N: bool, the locked images.
        locked_2RN: probabilities of all images under the models trained on all others than the locked.
    """

    tested_SN: Bools
    resampled_2SN: Floats
    locked_N: Bools
    locked_2RN: Floats


def read(folder: Path) -> Data:
    """Features of a data set with two classes."""
    with tempfile.TemporaryDirectory() as cache:
        cohort = read_cohort(folder, None, cache=Path(cache))
        images = [np.asarray(cohort.pixels(index), dtype=np.float32) for index in range(len(cohort))]
    small_ND = np.stack([_shrunk(image) for image in images])
    components_ND = PCA(COMPONENTS, whiten=True, random_state=0).fit_transform(small_ND)
    _, patients_N = np.unique([entry.group for entry in cohort.entries], return_inverse=True)
    return Data(
        features_ND=np.concatenate([components_ND, np.ones((len(images), 1))], axis=1).astype(np.float64),
        labels_N=np.asarray(cohort.labels),
        patients_N=patients_N,
    )


def _shrunk(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    square_11HW = torch.from_numpy(image.copy()).reshape(1, -1, *image.shape[-2:])[:, :1]
    shrunk = torch.nn.functional.interpolate(square_11HW, size=(PIXELS, PIXELS), mode="area").flatten().numpy()
    normed: npt.NDArray[np.float32] = (shrunk - shrunk.mean()) / shrunk.std()
    return normed


def deal(labels_N: Ints, patients_N: Ints, folds: int, rng: np.random.Generator) -> Ints:
    """The fold of each image: patients at random, as many of each class (a patient's first label) in every fold."""
    patients, first = np.unique(patients_N, return_index=True)
    shuffled = rng.permutation(len(patients))
    by_class = shuffled[np.argsort(labels_N[first][shuffled], kind="stable")]
    fold_of = np.empty(patients_N.max() + 1, dtype=np.int64)
    fold_of[patients[by_class]] = np.arange(len(patients)) % folds
    dealt: Ints = fold_of[patients_N]
    return dealt


def fit(features_ND: Floats, labels_N: Ints, train_N: Bools, rng: np.random.Generator) -> Floats:
    """Probabilities of all images under a logistic regression on a bootstrap sample of the training images.

    Ridge penalty, Newton's method; the features are white, so that five steps are enough.
    """
    chosen = np.flatnonzero(train_N)
    weight_T = np.bincount(rng.integers(len(chosen), size=len(chosen)), minlength=len(chosen)).astype(np.float64)
    used = weight_T > 0
    x_TD, y_T, weight_T = features_ND[chosen[used]], labels_N[chosen[used]], weight_T[used]
    ridge_D = np.full(x_TD.shape[1], PENALTY)
    ridge_D[-1] = 1e-6
    beta_D = np.zeros(x_TD.shape[1])
    for _ in range(NEWTON_STEPS):
        probability_T = 1 / (1 + np.exp(-x_TD @ beta_D))
        gradient_D = x_TD.T @ (weight_T * (probability_T - y_T)) + ridge_D * beta_D
        curvature_DD = (x_TD * (weight_T * probability_T * (1 - probability_T))[:, None]).T @ x_TD + np.diag(ridge_D)
        beta_D -= np.linalg.solve(curvature_DD, gradient_D)
    probability_N: Floats = 1 / (1 + np.exp(-features_ND @ beta_D))
    return probability_N


def make_case(data: Data, rng: np.random.Generator) -> Case:
    """Fit all models of one case."""
    locked_N = deal(data.labels_N, data.patients_N, FOLDS, rng) == 0
    inside = np.flatnonzero(~locked_N)
    tested = []
    for _ in range(REPEATS):
        fold_N = np.full(len(locked_N), -1)
        fold_N[inside] = deal(data.labels_N[inside], data.patients_N[inside], FOLDS, rng)
        tested += [fold_N == fold for fold in range(FOLDS)]
    one = partial(fit, data.features_ND, data.labels_N)
    return Case(
        tested_SN=np.stack(tested),
        resampled_2SN=np.stack([[one(~locked_N & ~test_N, rng) for test_N in tested] for _ in range(2)]),
        locked_N=locked_N,
        locked_2RN=np.stack([[one(~locked_N, rng) for _ in range(MODELS)] for _ in range(2)]),
    )


def changed(probabilities_2SN: Floats, labels_N: Ints, better_N: Bools, worse_N: Bools) -> Floats:
    """The first policy right and the second wrong where it is better, the other way round where it is worse."""
    right_N, wrong_N = labels_N.astype(np.float64), 1.0 - labels_N
    first, second = (
        np.where(better_N, x, np.where(worse_N, y, z))
        for x, y, z in ((right_N, wrong_N, probabilities_2SN[0]), (wrong_N, right_N, probabilities_2SN[1]))
    )
    return np.stack([first, second])


def under(difference: float | None, case: Case, data: Data, draw_N: Floats) -> Case:
    """The case with its images changed, by draws that are uniform in [0, 1); None for identical policies."""
    if difference is None:
        return case
    better_N, worse_N = draw_N < (APART + difference) / 2, draw_N >= 1 - (APART - difference) / 2
    return Case(
        tested_SN=case.tested_SN,
        resampled_2SN=changed(case.resampled_2SN, data.labels_N, better_N, worse_N),
        locked_N=case.locked_N,
        locked_2RN=changed(case.locked_2RN, data.labels_N, better_N, worse_N),
    )


def balanced_accuracy(hits_2SN: Bools, tested_SN: Bools, labels_N: Ints) -> Floats:
    """Mean sensitivity of both classes in each evaluation, (2, S)."""
    sensitivities = [
        (hits_2SN & tested_SN & (labels_N == label)).sum(axis=-1) / (tested_SN & (labels_N == label)).sum(axis=-1)
        for label in (0, 1)
    ]
    mean_2S: Floats = np.mean(sensitivities, axis=0)
    return mean_2S


def judge(case: Case, data: Data, seed: int) -> dict[str, float]:
    """The p value of each test and the differences that they saw."""
    scores_2S = balanced_accuracy((case.resampled_2SN > 0.5) == data.labels_N, case.tested_SN, data.labels_N)
    differences_S = scores_2S[0] - scores_2S[1]
    inside = int((~case.locked_N).sum())
    corrected = corrected_resampled_t_test(
        differences_S.tolist(), n_train=inside * (FOLDS - 1) // FOLDS, n_test=inside // FOLDS
    )
    first_RNK, second_RNK = (
        np.stack([1 - each_RN, each_RN], axis=-1) for each_RN in case.locked_2RN[:, :, case.locked_N]
    )
    found = paired_difference_by_patient(
        data.labels_N[case.locked_N],
        first_RNK,
        second_RNK,
        data.patients_N[case.locked_N].astype(str).tolist(),
        positive=1,
        resamples=RESAMPLES,
        seed=seed,
    )["balanced_accuracy"]
    assert corrected.mean is not None and corrected.p_value is not None and found is not None
    return {
        CORRECTED: corrected.p_value,
        UNCORRECTED: float(stats.ttest_1samp(differences_S, 0).pvalue),
        LOCKED: found.p_value,
        "resampled difference": corrected.mean,
        "locked difference": found.difference,
    }


def run_case(data: Data, differences: Mapping[str, float | None], seed: int) -> dict[str, dict[str, float]]:
    """Judge one case under each pair of policies."""
    rng = np.random.default_rng((seed, 0))
    case, draw_N = make_case(data, rng), rng.random(len(data.labels_N))
    return {
        policies: judge(under(difference, case, data, draw_N), data, seed)
        for policies, difference in differences.items()
    }


def pilot_case(data: Data, seed: int) -> dict[str, tuple[Moments, Moments]]:
    """What a case says about models of one policy and of the two that are compared, of both kinds of test."""
    rng = np.random.default_rng((seed, 1))
    case, draw_N = make_case(data, rng), rng.random(len(data.labels_N))
    different = under(DIFFERENCE, case, data, draw_N)
    locked_RN = np.repeat(case.locked_N[None], MODELS, axis=0)
    of_pair = partial(moments, labels_N=data.labels_N, patients_N=data.patients_N)
    return {
        CORRECTED: (
            of_pair(case.resampled_2SN, case.tested_SN),
            of_pair(different.resampled_2SN, case.tested_SN),
        ),
        LOCKED: (of_pair(case.locked_2RN, locked_RN), of_pair(different.locked_2RN, locked_RN)),
    }


def powers(data: Data, models: Mapping[str, Disagreement]) -> dict[str, Callable[[float], float]]:
    """What a search would print: the power of each test as a function of the true difference."""

    def images(test: str, share: float) -> list[float]:
        names = data.patients_N.astype(str).tolist()
        whole_C = effective_images(data.labels_N.tolist(), names, 2, correlation=models[test].correlation)
        return [count * share for count in whole_C]

    return {
        CORRECTED: partial(
            resampled_power,
            images_C=images(CORRECTED, 1 - 1 / FOLDS),
            folds=FOLDS,
            repeats=REPEATS,
            disagreement=models[CORRECTED],
            level=LEVEL,
        ),
        LOCKED: partial(
            locked_power,
            images_C=images(LOCKED, 1 / FOLDS),
            disagreement=models[LOCKED],
            models=MODELS,
            level=LEVEL,
        ),
    }


def pairs_of_policies(power_of: Mapping[str, Callable[[float], float]]) -> dict[str, float | None]:
    """The true difference of each pair, None for identical policies."""
    found = {"identical": None, "equally good": 0.0, "3 points better": DIFFERENCE}
    for test, power in power_of.items():
        smallest = min(detectable_difference(power, power=POWER) or APART, APART)
        found[f"{100 * smallest:.1f} points better: what the {test} finds with power {POWER}"] = smallest
    return found


def rate(p_values: Sequence[float]) -> tuple[float, float, float]:
    """Share of cases called different, with its interval."""
    test = stats.binomtest(sum(value < LEVEL for value in p_values), len(p_values))
    interval = test.proportion_ci(0.95)
    return float(test.statistic), float(interval.low), float(interval.high)


def report(
    differences: Mapping[str, float | None],
    power_of: Mapping[str, Callable[[float], float]],
    results: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, Any]:
    """Print the rates beside the printed powers. Returns: the same figures."""
    found: dict[str, Any] = {}
    for policies, difference in differences.items():
        print(f"\n{policies}")
        rows: dict[str, Any] = {"difference": difference}
        for test in (CORRECTED, UNCORRECTED, LOCKED):
            share, low, high = rate([result[policies][test] for result in results])
            rows[test] = {"called different": share, "low": low, "high": high}
            line = f"  {test:20} called different {share:.3f} [{low:.3f}, {high:.3f}]"
            if difference and test in power_of:
                rows[test]["printed power"] = power_of[test](difference)
                line += f"   printed power {rows[test]['printed power']:.3f}"
            print(line)
        for kind in ("resampled difference", "locked difference"):
            values = [result[policies][kind] for result in results]
            rows[kind] = {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))}
            print(f"  {kind:20} mean {rows[kind]['mean']:+.4f}, deviation over cases {rows[kind]['deviation']:.4f}")
        found[policies] = rows
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run the cases and print the rates."""
    options = _parser().parse_args(arguments)
    start = time.time()
    data = read(options.data)
    cases, pilots = (16, 12) if options.small else (options.cases, 200)
    with ProcessPoolExecutor(options.jobs) as pool:
        piloted = list(pool.map(partial(pilot_case, data), range(pilots), chunksize=4))
        models = {}
        for test in (CORRECTED, LOCKED):
            alike, apart = zip(*(pilot[test] for pilot in piloted), strict=True)
            models[test] = disagreement(alike, apart, same_images=test == LOCKED)
        power_of = powers(data, models)
        differences = pairs_of_policies(power_of)
        results = list(pool.map(partial(run_case, data, differences), range(cases), chunksize=4))
    found = report(differences, power_of, results)
    print()
    for test, each in models.items():
        print(f"{test}, in {pilots} other cases: {each}")
    print(f"{cases} cases in {time.time() - start:.0f} s")
    if options.json is not None:
        settings = {test: asdict(each) for test, each in models.items()}
        written = {"cases": cases, "disagreement": settings, "policies": found}
        options.json.write_text(json.dumps(written, indent=2), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.confirmation", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="a data set of two classes")
    parser.add_argument("--cases", type=int, default=500, help="how many (default 500)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--small", action="store_true", help="16 cases: shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    return parser


if __name__ == "__main__":
    main()
