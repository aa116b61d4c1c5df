"""Mutations, fitness and selection against formulas written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainables.generators.evolution import (
    MUTATIONS,
    adversarial_judgement,
    discriminator_loss,
    fittest,
    logit_slopes,
    mutation_gradients,
    real_part,
)

FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "minimax": lambda s_N: 0.5 * torch.log(1 - s_N).mean(),
    "heuristic": lambda s_N: -0.5 * torch.log(s_N).mean(),
    "least_squares": lambda s_N: ((s_N - 1) ** 2).mean(),
}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fill(network: nn.Module, *, seed: int) -> nn.Module:
    with torch.no_grad():
        for index, parameter in enumerate(network.double().parameters()):
            parameter.copy_(0.3 * normal(*parameter.shape, seed=100 * seed + index))
    return network


def image_generator(*, seed: int) -> nn.Module:
    layers = (nn.Linear(3, 4 * 4 * 4), nn.Unflatten(1, (4, 4, 4)), nn.BatchNorm2d(4), nn.ReLU())
    return fill(nn.Sequential(*layers, nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Tanh()), seed=seed)


def image_discriminator(*, batch_norm: bool, seed: int) -> nn.Module:
    norm = [nn.BatchNorm2d(4)] if batch_norm else []
    layers = (nn.Conv2d(1, 4, 4, 2, 1), *norm, nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 4 * 4, 1))
    return fill(nn.Sequential(*layers, nn.Flatten(0)), seed=seed)


def largest_error(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> float:
    """Over parameters, the largest norm of the difference relative to the norm."""
    return max(
        float((one - other).norm() / other.norm())
        for one, other in zip(left, right, strict=True)
        if float(other.norm()) > 1e-12
    )


def test_the_mutations_are_named_in_a_fixed_order() -> None:
    assert list(MUTATIONS) == list(FORMULAS)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_its_formula(name: str) -> None:
    logits_N = 3 * normal(50, seed=1)
    expected = FORMULAS[name](1 / (1 + torch.exp(-logits_N)))
    assert math.isclose(float(MUTATIONS[name](logits_N)), float(expected), rel_tol=1e-12)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_finite_where_the_discriminator_is_certain(name: str) -> None:
    assert math.isfinite(float(MUTATIONS[name](torch.tensor([-200.0, 200.0]))))


def test_slopes_are_the_derivatives_by_each_logit_and_negative() -> None:
    logits_N = (3 * normal(50, seed=2)).requires_grad_()
    for loss, slope_N in zip(FORMULAS.values(), logit_slopes(logits_N.detach()), strict=True):
        (expected_N,) = torch.autograd.grad(loss(torch.sigmoid(logits_N)), logits_N)
        torch.testing.assert_close(slope_N, expected_N, rtol=1e-10, atol=0)
        assert bool((slope_N < 0).all())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shared_forward_equals_three_separate_backward_passes(seed: int) -> None:
    generator, discriminator = image_generator(seed=seed), image_discriminator(batch_norm=False, seed=seed + 10)
    parameters = tuple(generator.parameters())
    latents_NL = normal(7, 3, seed=seed)
    shared, logits_N = mutation_gradients(generator(latents_NL), parameters, discriminator)
    for (name, formula), gradients in zip(FORMULAS.items(), shared, strict=True):
        separate_N = discriminator(generator(latents_NL))
        torch.testing.assert_close(separate_N, logits_N, rtol=1e-12, atol=0)
        expected = torch.autograd.grad(formula(torch.sigmoid(separate_N)), parameters)
        assert largest_error(gradients, expected) < 1e-9, name


def test_shared_forward_is_wrong_with_batch_norm_in_the_discriminator() -> None:
    generator, discriminator = image_generator(seed=1), image_discriminator(batch_norm=True, seed=11)
    parameters = tuple(generator.parameters())
    latents_NL = normal(7, 3, seed=1)
    shared, _ = mutation_gradients(generator(latents_NL), parameters, discriminator)
    errors = []
    for formula, gradients in zip(FORMULAS.values(), shared, strict=True):
        expected = torch.autograd.grad(formula(torch.sigmoid(discriminator(generator(latents_NL)))), parameters)
        errors.append(largest_error(gradients, expected))
    assert max(errors) > 0.01


def test_fitness_is_its_two_formulas() -> None:
    discriminator = image_discriminator(batch_norm=False, seed=1)
    weights = tuple(discriminator.parameters())
    real_NCHW, fake_NCHW = normal(9, 1, 8, 8, seed=2), normal(9, 1, 8, 8, seed=3)
    real_s_N, fake_s_N = (torch.sigmoid(discriminator(images)) for images in (real_NCHW, fake_NCHW))
    bracket = -torch.log(real_s_N).mean() - torch.log(1 - fake_s_N).mean()
    gradients = torch.autograd.grad(bracket, weights)
    expected = -math.log(math.sqrt(sum(float((each**2).sum()) for each in gradients)))

    real = real_part(discriminator(real_NCHW), weights)
    found = adversarial_judgement(discriminator(fake_NCHW), weights, real)
    assert math.isclose(float(found.quality), float(fake_s_N.mean().detach()), rel_tol=1e-12)
    assert math.isclose(float(found.diversity), expected, rel_tol=1e-10)


def test_a_judgement_hands_on_the_discriminators_loss_and_its_gradient() -> None:
    discriminator = image_discriminator(batch_norm=False, seed=1)
    weights = tuple(discriminator.parameters())
    real_NCHW, fake_NCHW = normal(9, 1, 8, 8, seed=2), normal(9, 1, 8, 8, seed=3)
    found = adversarial_judgement(discriminator(fake_NCHW), weights, real_part(discriminator(real_NCHW), weights))
    loss = discriminator_loss(discriminator(real_NCHW), discriminator(fake_NCHW))
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-12, atol=0)
    assert largest_error(found.gradients, torch.autograd.grad(loss, weights)) < 1e-10
    assert not any(each.requires_grad for each in (found.quality, found.diversity, found.loss, *found.gradients))


def test_the_discriminator_loss_is_its_formula() -> None:
    real_N, fake_N = normal(8, seed=1), normal(8, seed=2)
    expected = -torch.log(torch.sigmoid(real_N)).mean() - torch.log(1 - torch.sigmoid(fake_N)).mean()
    assert math.isclose(float(discriminator_loss(real_N, fake_N)), float(expected), rel_tol=1e-12)


def test_the_fittest_children_survive_best_first() -> None:
    fitness_C = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2, 0.7])
    assert fittest(fitness_C, 1).tolist() == [1]
    assert fittest(fitness_C, 3).tolist() == [1, 3, 5]


def test_the_earlier_child_wins_a_tie() -> None:
    assert fittest(torch.tensor([0.5, 0.5, 0.5]), 2).tolist() == [0, 1]
    assert fittest(torch.tensor([0.1] * 40 + [0.5] * 2), 3).tolist() == [40, 41, 0]
