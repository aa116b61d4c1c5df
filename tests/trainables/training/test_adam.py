"""The optimiser of every generator, and the toys' Adam without a state, against PyTorch's plainest."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.benchmarks.functional_adam import adam_step, no_moments
from trainables.training.adam import adam, set_rate

SHAPES = ((3, 4), (5,), (2, 2, 3))


def normal(rng: torch.Generator) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, generator=rng) for shape in SHAPES]


def plain(parameters: list[Tensor], *, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=rate, betas=(0.5, 0.999), foreach=False, fused=False)


def step(optimizer: torch.optim.Adam, parameters: list[Tensor], gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-12, atol=1e-14)


def test_the_optimiser_is_adam_also_after_its_rate_was_changed() -> None:
    rng = torch.Generator().manual_seed(0)
    start = normal(rng)
    ours, theirs = ([each.clone().requires_grad_() for each in start] for _ in range(2))
    our_adam, their_adam = adam(iter(ours), rate=1e-2, betas=(0.5, 0.999)), plain(theirs, rate=1e-2)
    for index in range(20):
        gradients = normal(rng)
        if index == 10:
            set_rate(our_adam, 3e-3)
            their_adam.param_groups[0]["lr"] = 3e-3
        step(our_adam, ours, gradients)
        step(their_adam, theirs, gradients)
        assert_equal(ours, theirs)


def test_functional_steps_equal_those_of_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    start = normal(rng)
    theirs = [each.clone().requires_grad_() for each in start]
    optimizer = plain(theirs, rate=1e-2)
    ours, moments = tuple(start), no_moments(tuple(start))
    for _ in range(20):
        gradients = normal(rng)
        step(optimizer, theirs, gradients)
        ours, moments = adam_step(ours, tuple(gradients), moments, learning_rate=1e-2, betas=(0.5, 0.999))
        assert_equal(list(ours), theirs)


def test_a_functional_step_leaves_the_parent_as_it_was() -> None:
    parameters, gradients = (torch.ones(3),), (torch.full((3,), 2.0),)
    _, parent = adam_step(parameters, gradients, no_moments(parameters), learning_rate=0.1, betas=(0.5, 0.999))
    first, second = parent.first[0].clone(), parent.second[0].clone()
    children = [
        adam_step(parameters, (gradients[0] * factor,), parent, learning_rate=0.1, betas=(0.5, 0.999))
        for factor in (1, -1)
    ]
    assert torch.equal(parameters[0], torch.ones(3))
    assert torch.equal(gradients[0], torch.full((3,), 2.0))
    assert torch.equal(parent.first[0], first)
    assert torch.equal(parent.second[0], second)
    assert [moments.steps for _, moments in children] == [2, 2]
    assert not torch.equal(children[0][0][0], children[1][0][0])
