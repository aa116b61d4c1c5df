"""Interpolation of two image batches and the laws of its weight (Zhang et al. 2018; Lee et al. 2024)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mix(left_N: Tensor, right_N: Tensor, weight_N: Tensor) -> Tensor:
    """Interpolate two batches, one weight per sample; images and labels are mixed alike.

    Args:
        left_N: float32 images NCHW in [-1, 1] or targets NK in [0, 1]; weighted by ``weight_N``.
        right_N: same shape and range; weighted by ``1 - weight_N``.
        weight_N: float32 in [0, 1].

    Returns:
        Samples of the same shape and range.

    Source: GenMix, equation 1; mixup, section 2.
    """
    weight = weight_N.reshape(-1, *(1,) * (left_N.ndim - 1))
    return weight * left_N + (1 - weight) * right_N


def beta_one(alpha: float, count: int, *, rng: torch.Generator) -> Tensor:
    """Draw from Beta(alpha, 1), exactly, by its inverse distribution function u ** (1 / alpha).

    Args:
        alpha: more than 0; the mean is alpha / (alpha + 1), .231 at .3.
        count: how many.
        rng: CPU generator.

    Returns:
        float32 (count,) in [0, 1], rounded from float64 draws.

    Source: GenMix, below equation 1.
    """
    uniform_N = torch.rand(count, generator=rng, dtype=torch.float64)
    return (uniform_N ** (1 / alpha)).float()


def beta_symmetric(alpha: float, count: int, *, rng: torch.Generator) -> Tensor:
    """Draw from Beta(alpha, alpha).

    PyTorch's Beta takes no generator, so NumPy draws, from a seed that is itself drawn from ``rng``.

    Args:
        alpha: more than 0; the mean is 1/2, the variance 1 / (4 (2 alpha + 1)).
        count: how many.
        rng: CPU generator.

    Returns:
        float32 (count,) in [0, 1], rounded from float64 draws.

    Source: mixup, section 2.
    """
    seed = int(torch.randint(2**62, (), generator=rng))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count)).float()
