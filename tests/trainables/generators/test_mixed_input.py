"""Formula 12 against plain autograd written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trainables.generators.evolution import discriminator_loss
from trainables.generators.mixed_input import mixed_images, mixed_judgement, mixed_loss, real_shares


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shares(alpha: float = 0.4, count: int = 9) -> Tensor:
    return real_shares(alpha, count, rng=torch.Generator().manual_seed(5)).double()


def discriminator() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 4 * 4, 1), nn.Flatten(0))
    network = nn.Sequential(*layers).double()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.copy_(0.3 * normal(*parameter.shape, seed=index))
    return network


def test_the_mixed_loss_and_its_gradients_are_formula_12() -> None:
    network, real_share_N = discriminator(), shares()
    real_NCHW, fake_NCHW = normal(9, 1, 8, 8, seed=20), normal(9, 1, 8, 8, seed=21)
    terms, weights = [], tuple(network.parameters())
    for real_CHW, fake_CHW, share in zip(real_NCHW, fake_NCHW, real_share_N.tolist(), strict=True):
        s = 1 / (1 + torch.exp(-network((share * real_CHW + (1 - share) * fake_CHW)[None])[0]))
        terms.append(-share * torch.log(s) - (1 - share) * torch.log(1 - s))
    expected = sum(terms) / 9
    found = mixed_loss(network(mixed_images(real_NCHW, fake_NCHW, real_share_N)), real_share_N)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_with_shares_of_0_and_1_the_mixed_loss_is_the_unmixed_one() -> None:
    network = discriminator()
    real_NCHW, fake_NCHW = normal(8, 1, 8, 8, seed=20), normal(8, 1, 8, 8, seed=21)
    real_share_N = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(4)
    mixed_NCHW = mixed_images(real_NCHW, fake_NCHW, real_share_N)
    assert torch.equal(mixed_NCHW[::2], real_NCHW[::2])
    assert torch.equal(mixed_NCHW[1::2], fake_NCHW[1::2])
    unmixed = discriminator_loss(network(real_NCHW[::2]), network(fake_NCHW[1::2]))
    # half of a batch is real: the unmixed loss adds two means, the mixed one averages over both
    torch.testing.assert_close(mixed_loss(network(mixed_NCHW), real_share_N), unmixed / 2, rtol=1e-12, atol=0)


def test_the_mixed_loss_is_finite_where_the_discriminator_is_certain() -> None:
    logits_N = torch.tensor([-300.0, 300.0], requires_grad=True)
    loss = mixed_loss(logits_N, torch.tensor([0.7, 0.2]))
    (slope_N,) = torch.autograd.grad(loss, logits_N)
    assert math.isclose(float(loss.detach()), (0.7 * 300 + 0.8 * 300) / 2, rel_tol=1e-6)
    torch.testing.assert_close(slope_N, torch.tensor([-0.35, 0.4]))


def test_the_mixed_loss_is_smallest_where_the_discriminator_says_the_share() -> None:
    real_share_N = shares()
    best = mixed_loss(torch.logit(real_share_N), real_share_N)
    entropy_N = -real_share_N * real_share_N.log() - (1 - real_share_N) * (1 - real_share_N).log()
    torch.testing.assert_close(best, entropy_N.mean(), rtol=1e-9, atol=0)
    assert float(mixed_loss(torch.logit(real_share_N) + 0.1, real_share_N)) > float(best)


def test_mixed_diversity_is_formula_8_with_the_bracket_of_formula_12() -> None:
    network, real_share_N = discriminator(), shares()
    weights = tuple(network.parameters())
    fake_NCHW = normal(9, 1, 8, 8, seed=21)
    mixed_NCHW = mixed_images(normal(9, 1, 8, 8, seed=20), fake_NCHW, real_share_N)
    s_N = torch.sigmoid(network(mixed_NCHW))
    bracket = (-real_share_N * torch.log(s_N) - (1 - real_share_N) * torch.log(1 - s_N)).mean()
    gradients = torch.autograd.grad(bracket, weights)
    squares = sum(float(each.square().sum()) for each in gradients)
    found = mixed_judgement(network(fake_NCHW), network(mixed_NCHW), real_share_N, weights)
    assert math.isclose(float(found.diversity), -math.log(math.sqrt(squares)), rel_tol=1e-10)
    assert math.isclose(float(found.quality), float(torch.sigmoid(network(fake_NCHW)).mean().detach()), rel_tol=1e-12)
    assert math.isclose(float(found.loss), float(bracket.detach()), rel_tol=1e-12)
    for one, other in zip(found.gradients, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
    assert not any(each.requires_grad for each in (found.quality, found.diversity, found.loss, *found.gradients))


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_shares_follow_beta_alpha_alpha_and_the_generator_alone(alpha: float) -> None:
    share_N = shares(alpha, 50_000)
    assert torch.equal(share_N, shares(alpha, 50_000))
    assert 0 <= float(share_N.min()) <= float(share_N.max()) <= 1
    assert math.isclose(float(share_N.mean()), 0.5, abs_tol=0.01)
    assert math.isclose(float(share_N.var()), 1 / (4 * (2 * alpha + 1)), rel_tol=0.03)
