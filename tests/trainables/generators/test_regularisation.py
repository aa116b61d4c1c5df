"""Penalties on derivatives, against closed forms and plain autograd, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from trainables.generators.augmentation import apply_ada, draw_ada
from trainables.generators.regularisation import gradient_penalty, path_lengths, path_penalty, r1


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


class TinyCritic(nn.Module):
    """Curved in its images, so that second derivatives matter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(5, 16, seed=3))
        self.out = nn.Parameter(normal(5, seed=4))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return (images_NCHW.flatten(1) @ self.weight.T).tanh() @ self.out

    def slopes(self, images_NCHW: Tensor) -> Tensor:
        """The gradient by the image, worked out by hand."""
        hidden_NH = (images_NCHW.flatten(1) @ self.weight.T).tanh()
        return ((1 - hidden_NH.square()) * self.out) @ self.weight


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_r1_of_a_linear_discriminator_is_the_squared_length_of_its_weights() -> None:
    images_NCHW, weights_F = normal(3, 1, 4, 4).requires_grad_(), normal(16, seed=1)
    penalty = r1(images_NCHW.flatten(1) @ weights_F, images_NCHW)
    assert math.isclose(float(penalty), float(weights_F.square().sum()), rel_tol=1e-12)


def test_r1_and_its_gradient_agree_with_the_slopes_worked_out_by_hand() -> None:
    critic, images_NCHW = TinyCritic(), normal(3, 1, 4, 4).requires_grad_()
    found = torch.autograd.grad(r1(critic(images_NCHW), images_NCHW), list(critic.parameters()))
    by_hand = critic.slopes(images_NCHW.detach()).square().sum(dim=1).mean()
    expected = torch.autograd.grad(by_hand, list(critic.parameters()))
    assert all(relative_error(one, two) < 1e-12 for one, two in zip(found, expected, strict=True))


def test_r1_passes_through_an_augmentation() -> None:
    critic, images_NCHW = TinyCritic(), normal(3, 1, 4, 4).requires_grad_()
    draws = draw_ada(3, 4, probability=1.0, rng=rng())
    augmented_NCHW = apply_ada(images_NCHW, draws)
    found = torch.autograd.grad(r1(critic(augmented_NCHW), images_NCHW), list(critic.parameters()))

    weights_NFF = torch.stack(  # the augmentation as one matrix per image
        [
            jacobian(lambda flat_NF: apply_ada(flat_NF.view(3, 1, 4, 4), draws).flatten(1), normal(3, 16))[
                image, :, image
            ]
            for image in range(3)
        ]
    )
    slopes_NF = torch.einsum("nf,nfg->ng", critic.slopes(augmented_NCHW.detach()), weights_NFF)
    expected = torch.autograd.grad(slopes_NF.square().sum(dim=1).mean(), list(critic.parameters()))
    assert all(relative_error(one, two) < 1e-9 for one, two in zip(found, expected, strict=True))


def test_the_gradient_penalty_of_a_linear_critic_is_its_slopes_distance_from_one() -> None:
    weights_F = normal(16, seed=1)
    penalty = gradient_penalty(
        lambda images_NCHW: images_NCHW.flatten(1) @ weights_F,
        normal(3, 1, 4, 4),
        normal(3, 1, 4, 4, seed=2),
        mix_N=torch.rand(3, generator=rng()),
    )
    assert math.isclose(float(penalty), (float(weights_F.norm()) - 1) ** 2, rel_tol=1e-12)


def test_slopes_below_one_are_penalised_too() -> None:
    flat = gradient_penalty(
        lambda images_NCHW: 0 * images_NCHW.sum(dim=(1, 2, 3)), *[normal(3, 1, 4, 4)] * 2, mix_N=MIX
    )
    assert float(flat) == 1


MIX = torch.tensor([0.0, 1.0, 0.3], dtype=torch.float64)


def test_the_gradient_penalty_and_its_gradient_agree_with_slopes_worked_out_by_hand() -> None:
    critic, real_NCHW, fake_NCHW = TinyCritic(), normal(3, 1, 4, 4), normal(3, 1, 4, 4, seed=2)
    mixed_NCHW = torch.stack([fake_NCHW[0], real_NCHW[1], 0.3 * real_NCHW[2] + 0.7 * fake_NCHW[2]])
    by_hand = (critic.slopes(mixed_NCHW).norm(dim=1) - 1).square().mean()
    penalty = gradient_penalty(critic, real_NCHW, fake_NCHW, mix_N=MIX)
    assert math.isclose(float(penalty.detach()), float(by_hand.detach()), rel_tol=1e-12)
    found = torch.autograd.grad(penalty, list(critic.parameters()))
    expected = torch.autograd.grad(by_hand, list(critic.parameters()))
    assert all(relative_error(one, two) < 1e-12 for one, two in zip(found, expected, strict=True))


def test_the_gradient_penalty_reaches_the_critic_alone() -> None:
    fake_NCHW = normal(3, 1, 4, 4).requires_grad_()
    torch.autograd.backward(gradient_penalty(TinyCritic(), normal(3, 1, 4, 4, seed=2), fake_NCHW, mix_N=MIX))
    assert fake_NCHW.grad is None


def test_path_lengths_are_those_of_the_jacobian() -> None:
    maps_LFS, styles_NLS = normal(2, 16, 5), normal(3, 2, 5, seed=1).requires_grad_()
    directions_NCHW = normal(3, 1, 4, 4, seed=2)
    images_NCHW = torch.einsum("lfs,nls->nf", maps_LFS, styles_NLS).tanh().view(3, 1, 4, 4)
    slopes_NF = 1 - images_NCHW.flatten(1).square()
    by_hand_NLS = torch.einsum("lfs,nf->nls", maps_LFS, slopes_NF * directions_NCHW.flatten(1) / 4)
    expected_N = by_hand_NLS.square().sum(dim=2).mean(dim=1).sqrt()
    assert torch.allclose(
        path_lengths(images_NCHW, styles_NLS, directions_NCHW=directions_NCHW), expected_N, atol=1e-12
    )


def test_path_lengths_may_differ_from_their_average_at_a_price() -> None:
    lengths_N = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    penalty, average = path_penalty(lengths_N, torch.tensor(0.0, dtype=torch.float64), decay=0.5)
    assert float(average) == 1.0
    assert float(penalty.detach()) == ((1 - 1) ** 2 + (3 - 1) ** 2) / 2
    (slopes_N,) = torch.autograd.grad(penalty, lengths_N)
    assert slopes_N.tolist() == [0.0, 2.0]  # the average itself is held fixed
