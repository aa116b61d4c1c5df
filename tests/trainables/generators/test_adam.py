"""The pure Adam step against PyTorch's."""

from __future__ import annotations

import torch

from trainables.generators.adam import adam_step, no_moments


def test_steps_equal_those_of_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, dtype=torch.float64, generator=rng) for shape in ((3, 4), (5,), (2, 2, 3))]
    theirs = [each.clone().requires_grad_() for each in start]
    optimizer = torch.optim.Adam(theirs, lr=1e-2, betas=(0.5, 0.999))
    ours, moments = tuple(start), no_moments(tuple(start))
    for _ in range(20):
        gradients = tuple(torch.randn(each.shape, dtype=torch.float64, generator=rng) for each in start)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        ours, moments = adam_step(ours, gradients, moments, learning_rate=1e-2, betas=(0.5, 0.999))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-14)


def test_a_step_leaves_the_parent_as_it_was() -> None:
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
