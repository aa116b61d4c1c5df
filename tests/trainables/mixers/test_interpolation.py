from __future__ import annotations

import pytest
import torch

from trainables.mixers.interpolation import beta_one, beta_symmetric, mix
from trainables.seeding import generator

DRAWS = 100_000


def test_mixing_equals_the_formula_computed_by_hand() -> None:
    left = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    right = torch.tensor([0.5, 0.2]).reshape(2, 1, 1, 1)
    mixed = mix(left, right, torch.tensor([0.25, 0.9]))
    expected = torch.tensor([0.25 * 1.0 + 0.75 * 0.5, 0.9 * -1.0 + 0.1 * 0.2]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(mixed, expected)


def test_the_weight_is_the_left_sides() -> None:
    left, right = torch.ones(3, 2), torch.zeros(3, 2)
    weight = torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(mix(left, right, weight), weight[:, None].expand(3, 2))


def test_mixing_never_leaves_the_range_of_images() -> None:
    rng = generator(0)
    sign = torch.randint(2, (2, DRAWS, 1), generator=rng) * 2.0 - 1
    mixed = mix(sign[0], sign[1], torch.rand(DRAWS, generator=rng))
    assert mixed.abs().max() <= 1


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0, 2.0])
def test_beta_one_has_the_moments_of_its_law(alpha: float) -> None:
    draws = beta_one(alpha, DRAWS, rng=generator(1)).double()
    variance = alpha / ((alpha + 1) ** 2 * (alpha + 2))
    error = (variance / DRAWS) ** 0.5
    assert abs(draws.mean().item() - alpha / (alpha + 1)) < 4 * error
    assert abs(draws.var().item() - variance) < 0.06 * variance
    assert draws.min() >= 0
    assert draws.max() <= 1


def test_at_the_papers_alpha_the_mean_weight_of_a_partner_is_23_percent() -> None:
    assert beta_one(0.3, DRAWS, rng=generator(2)).mean().item() == pytest.approx(0.3 / 1.3, abs=0.004)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 2.0])
def test_beta_symmetric_has_the_moments_of_its_law(alpha: float) -> None:
    draws = beta_symmetric(alpha, DRAWS, rng=generator(3)).double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(draws.mean().item() - 0.5) < 4 * (variance / DRAWS) ** 0.5
    assert abs(draws.var().item() - variance) < 0.02 * variance
    assert draws.min() >= 0
    assert draws.max() <= 1


@pytest.mark.parametrize("draw", [beta_one, beta_symmetric])
def test_the_same_seed_draws_the_same_weights(draw) -> None:  # type: ignore[no-untyped-def]
    first, again, other = (draw(0.4, 50, rng=generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
