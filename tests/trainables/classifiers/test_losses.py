from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from trainables.classifiers.losses import jensen_shannon
from trainables.seeding import generator


def logits(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_of_two_versions_it_is_scipys_squared_distance() -> None:
    logits_VNK = logits(2, 50, 4)
    first, second = softmax(logits_VNK.numpy(), axis=2)
    expected = np.mean([jensenshannon(p, q) ** 2 for p, q in zip(first, second, strict=True)])
    assert jensen_shannon(logits_VNK).item() == pytest.approx(expected, rel=1e-10)


def test_of_three_versions_it_is_the_entropy_of_the_mean_less_the_mean_entropy() -> None:
    logits_VNK = logits(3, 50, 5)
    p_VNK = softmax(logits_VNK.numpy(), axis=2)
    expected = (entropy(p_VNK.mean(axis=0), axis=1) - entropy(p_VNK, axis=2).mean(axis=0)).mean()
    assert jensen_shannon(logits_VNK).item() == pytest.approx(expected, rel=1e-10)


def test_it_is_zero_exactly_where_all_versions_agree() -> None:
    same_NK = logits(20, 3)
    assert abs(jensen_shannon(torch.stack([same_NK, same_NK + 5, same_NK - 2])).item()) < 1e-12
    assert jensen_shannon(torch.stack([same_NK, same_NK.flip(1), same_NK])).item() > 0.01


def test_certain_and_opposite_predictions_give_its_maximum_and_finite_gradients() -> None:
    certain_NK = torch.tensor([[1e4, 0.0, 0.0]])
    logits_VNK = torch.stack([certain_NK, certain_NK.roll(1, dims=1), certain_NK.roll(2, dims=1)]).requires_grad_()
    divergence = jensen_shannon(logits_VNK)
    divergence.backward()
    assert divergence.item() == pytest.approx(math.log(3), rel=1e-6)
    assert logits_VNK.grad is not None
    assert torch.isfinite(logits_VNK.grad).all()


def test_its_gradient_equals_finite_differences_in_every_version() -> None:
    assert torch.autograd.gradcheck(jensen_shannon, (logits(3, 4, 3).requires_grad_(),))


def test_half_precision_is_computed_as_float32() -> None:
    logits_VNK = logits(3, 10, 2).bfloat16()
    assert jensen_shannon(logits_VNK).dtype == torch.float32
    assert jensen_shannon(logits_VNK).item() == pytest.approx(jensen_shannon(logits_VNK.double()).item(), rel=1e-5)
