"""The surrogate of a search: a Gaussian process over configurations, fold effects removed, and expected improvement."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import ndtr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Hyperparameter, Kernel, Matern, StationaryKernelMixin

from search.sampling.columns import Columns, FloatArray

_ROUNDS = 20
_WEIGHTS = (0.05, 4.0)
"""Between what a part's variance, beside that of all values, is tuned."""
_LEAST_NOISE = 1e-3
"""Variance of a value beside that of all values, whatever the folds say: equal columns do not compute equal scores."""


def without_fold_effects(scores_NF: FloatArray) -> tuple[FloatArray, float]:
    """Compare trials that have not all finished the same folds.

    Args:
        scores_NF: a row for each trial, NaN where it has not finished a fold; at least one value in each row.

    Returns:
        Each trial's mean over its folds of the score less that fold's effect, and the variance that is left of one
        score. Effects are the least-squares fit of score = trial + fold; their mean is zero.
    """
    known_NF = np.isfinite(scores_NF)
    filled_NF = np.where(known_NF, scores_NF, 0.0)
    per_trial_N, per_fold_F = known_NF.sum(1), np.maximum(known_NF.sum(0), 1)
    effect_F = np.zeros(scores_NF.shape[1])
    trial_N = filled_NF.sum(1) / per_trial_N
    for _ in range(_ROUNDS):
        effect_F = (np.where(known_NF, filled_NF - trial_N[:, None], 0.0)).sum(0) / per_fold_F
        effect_F -= effect_F.mean()
        trial_N = np.where(known_NF, filled_NF - effect_F, 0.0).sum(1) / per_trial_N
    left_NF = np.where(known_NF, filled_NF - effect_F - trial_N[:, None], 0.0)
    freedom = known_NF.sum() - len(trial_N) - known_NF.any(0).sum() + 1
    variance = float((left_NF**2).sum() / freedom) if freedom > 0 else float(np.var(trial_N)) / 2
    return trial_N, variance


class _On(Matern):  # type: ignore[misc]
    """Matern's kernel (nu 5/2) on some of the columns."""

    def __init__(
        self,
        columns: tuple[int, ...],
        length_scale: float = 1.0,
        length_scale_bounds: tuple[float, float] = (0.3, 4.0),
        nu: float = 2.5,
    ) -> None:
        super().__init__(length_scale, length_scale_bounds, nu)
        self.columns = columns

    def __call__(self, X: FloatArray, Y: FloatArray | None = None, eval_gradient: bool = False) -> Any:
        """The covariances of rows, as sklearn's kernels compute them."""
        chosen = list(self.columns)
        return super().__call__(X[:, chosen], None if Y is None else Y[:, chosen], eval_gradient)


class _OnEach(StationaryKernelMixin, Kernel):  # type: ignore[misc]
    """A weighted sum of Matern's kernels (nu 5/2), one on each group of columns.

    One kernel in place of a sum of many: scikit-learn looks all parameters of a sum up again for each of its parts.
    """

    def __init__(
        self,
        groups: tuple[tuple[int, ...], ...],
        weights: FloatArray,
        weights_bounds: tuple[float, float] = _WEIGHTS,
        length_scale: float = 0.5,
    ) -> None:
        self.groups = groups
        self.weights = weights
        self.weights_bounds = weights_bounds
        self.length_scale = length_scale

    @property
    def hyperparameter_weights(self) -> Hyperparameter:
        """What is tuned."""
        return Hyperparameter("weights", "numeric", self.weights_bounds, len(self.groups))

    def __call__(self, X: FloatArray, Y: FloatArray | None = None, eval_gradient: bool = False) -> Any:
        """The covariances of rows, as sklearn's kernels compute them."""
        each = Matern(self.length_scale, nu=2.5)
        parts_NMG = np.dstack(
            [
                weight * each(X[:, list(group)], None if Y is None else Y[:, list(group)])
                for group, weight in zip(self.groups, self.weights, strict=True)
            ]
        )
        return (parts_NMG.sum(2), parts_NMG) if eval_gradient else parts_NMG.sum(2)

    def diag(self, X: FloatArray) -> FloatArray:
        """The variances of rows."""
        return np.full(len(X), self.weights.sum())


class _Offset(ConstantKernel):  # type: ignore[misc]
    """What all rows of one source have in common: one in that source's column, an unknown constant in their values."""

    def __init__(
        self,
        columns: tuple[int, ...],
        constant_value: float = 1.0,
        constant_value_bounds: tuple[float, float] = (0.1, 10.0),
    ) -> None:
        super().__init__(constant_value, constant_value_bounds)
        self.columns = columns

    def __call__(self, X: FloatArray, Y: FloatArray | None = None, eval_gradient: bool = False) -> Any:
        """The covariances of rows, as sklearn's kernels compute them."""
        chosen = list(self.columns)
        left, right = X[:, chosen], X[:, chosen] if Y is None else Y[:, chosen]
        K = self.constant_value * left @ right.T
        return (K, K[:, :, None]) if eval_gradient else K

    def diag(self, X: FloatArray) -> FloatArray:
        """The variances of rows."""
        return np.asarray(self.constant_value * (X[:, list(self.columns)] ** 2).sum(1))


def kernel(columns: Columns, sources: int) -> Kernel:
    """What is assumed of scores: a part of the generator, one of all else, one of both, one of each downstream setting.

    The last ones (additive Gaussian processes, Duvenaud et al. 2011) learn from a few trials what a setting does
    whatever the others are, such as a learning rate that is too high. A generator's settings have none: few generators
    are tried.

    Args:
        columns: of the rows; ``sources`` more columns follow, in which a row of another fidelity has a one.
        sources: how many other fidelities there are.
    """

    def part(chosen: Sequence[int]) -> Kernel:
        return ConstantKernel(0.3, _WEIGHTS) * _On(tuple(chosen))

    whole = part(range(columns.width + sources))
    parts = [part(half) for half in (columns.generator, columns.downstream) if half]
    for each in parts if len(parts) > 1 else []:
        whole = whole + each
    settings = columns.downstream_settings
    if len(settings) > 1:
        whole = whole + _OnEach(settings, np.full(len(settings), 0.3))
    return whole + _Offset(tuple(range(columns.width, columns.width + sources))) if sources else whole


class Posterior:
    """What is known of scores, given some.

    What scikit-learn's ``GaussianProcessRegressor`` finds, to the last bit, in a third of its time: it computes the
    covariances anew for the likelihood, for the fit and for the values that are expected where there are some already.

    Args:
        prior: the kernel, of values with mean 0 and variance 1.
        rows_NC: where there are values; at least one.
        values_N: the values; they are standardised here.
        variances_N: of each value's error.
        known_NN: the prior's covariances of the rows, where these are computed already.
    """

    def __init__(
        self,
        prior: Kernel,
        rows_NC: FloatArray,
        values_N: FloatArray,
        variances_N: FloatArray,
        *,
        known_NN: FloatArray | None = None,
    ) -> None:
        self._prior, self._rows_NC, self._values_N, self._variances_N = prior, rows_NC, values_N, variances_N
        self._mean, self._scale = _standard(values_N)
        self._known_NN = prior(rows_NC) if known_NN is None else known_NN
        noisy_NN = self._known_NN.copy()
        noisy_NN[np.diag_indices_from(noisy_NN)] += _noise(variances_N, self._scale)
        self._root_NN = cholesky(noisy_NN, lower=True, check_finite=False)
        standard_N = (values_N - self._mean) / self._scale
        self._weights_N = cho_solve((self._root_NN, True), standard_N, check_finite=False)

    def at(self, rows_MC: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the scores of other rows."""
        shared_MN = self._prior(rows_MC, self._rows_NC)
        explained_NM = solve_triangular(self._root_NN, shared_MN.T, lower=True, check_finite=False)
        left_M = self._prior.diag(rows_MC) - np.einsum("ij,ji->i", explained_NM.T, explained_NM)
        return self._expected(shared_MN), np.sqrt(np.maximum(left_M, 0.0)) * self._scale

    def at_known(self) -> FloatArray:
        """The mean of the scores of its own rows."""
        return self._expected(self._known_NN)

    def believing(self, rows_MC: FloatArray) -> Posterior:
        """The same with the expected values of rows that are being computed taken as found (the kriging believer).

        Source: Ginsbourger et al. 2010, section 4.2.
        """
        shared_MN = self._prior(rows_MC, self._rows_NC)
        typical_M = np.full(len(rows_MC), float(np.median(self._variances_N)))
        return Posterior(
            self._prior,
            np.concatenate([self._rows_NC, rows_MC]),
            np.concatenate([self._values_N, self._expected(shared_MN)]),
            np.concatenate([self._variances_N, typical_M]),
            known_NN=np.block([[self._known_NN, shared_MN.T], [shared_MN, self._prior(rows_MC)]]),
        )

    def _expected(self, shared_MN: FloatArray) -> FloatArray:
        return np.asarray((shared_MN @ self._weights_N) * self._scale + self._mean)


def tuned(prior: Kernel, rows_NC: FloatArray, values_N: FloatArray, variances_N: FloatArray) -> Kernel:
    """The kernel with those parameters under which some values, as ``Posterior`` takes them, are most likely."""
    mean, scale = _standard(values_N)
    process = GaussianProcessRegressor(prior, alpha=_noise(variances_N, scale))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(rows_NC, (values_N - mean) / scale)
    return process.kernel_


def _standard(values_N: FloatArray) -> tuple[float, float]:
    """The mean and the standard deviation by which values are standardised."""
    return float(values_N.mean()), max(float(values_N.std()), 1e-9)


def _noise(variances_N: FloatArray, scale: float) -> FloatArray:
    """Variances of errors beside that of standardised values."""
    return np.clip(variances_N / scale**2, _LEAST_NOISE, 10.0)


def expected_improvement(mean_M: FloatArray, std_M: FloatArray, best: float) -> FloatArray:
    """By how much a score is expected to exceed ``best``, where exceeding is all that counts.

    Source: Jones et al. 1998, equation 15.
    """
    std_M = np.maximum(std_M, 1e-12)
    z_M = (mean_M - best) / std_M
    density_M = np.exp(-(z_M**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(np.maximum(std_M * (z_M * ndtr(z_M) + density_M), 0.0))


def chebyshev(values_NK: FloatArray, weights_K: FloatArray, *, slope: float = 0.05) -> FloatArray:
    """Several objectives, each in [0, 1] and more of it better, as one: the worst weighted one, and a little of all.

    Source: ParEGO, Knowles 2006, equation 2, there for costs.
    """
    weighted_NK = weights_K * (values_NK - 1)
    return np.asarray(weighted_NK.min(1) + slope * weighted_NK.sum(1))


def share_fine(rows_NC: FloatArray, fine_N: FloatArray, at_MC: FloatArray, *, reach: float = 0.1) -> FloatArray:
    """How likely configurations are to hold what they must: the share of those that do among the ones nearby.

    Args:
        rows_NC: configurations that have been tried; at least one.
        fine_N: 1 where one held, 0 where it did not.
        at_MC: those asked about.
        reach: how far "nearby" goes, the standard deviation of a Gaussian weight.
    """
    squared_MN = ((at_MC[:, None, :] - rows_NC[None, :, :]) ** 2).sum(2)
    near_MN = np.exp(-squared_MN / (2 * reach**2))
    overall = (fine_N.sum() + 1) / (len(fine_N) + 1)
    return np.asarray((near_MN @ fine_N + overall / 2) / (near_MN.sum(1) + 1 / 2))
