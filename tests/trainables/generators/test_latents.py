"""The latents' moments against the mixture's analytic ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainables.generators.latents import MixtureLatents, NormalLatents

DRAWS = 200_000


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(*, learnt: bool = False, components: int = 4, size: int = 3) -> MixtureLatents:
    latents = MixtureLatents(size, components=components, centre_range=2.0, sigma=0.3, learnt=learnt)
    latents.draw(rng=rng(1))
    return latents


def moments(latents_NL: Tensor) -> tuple[Tensor, Tensor]:
    return latents_NL.mean(dim=0), torch.cov(latents_NL.T, correction=0)


@pytest.mark.parametrize("learnt", [False, True])
def test_samples_have_the_mean_and_covariance_of_the_mixture(learnt: bool) -> None:
    latents = mixture(learnt=learnt)
    centres_KL, variances_KL = latents.centres_KL.detach(), torch.full((4, 3), 0.3)
    if learnt:
        scales_KL = torch.linspace(0.2, 1.5, 12).view(4, 3)
        latents.scales_KL.detach().copy_(scales_KL)
        variances_KL = scales_KL.square()
    mean_L = centres_KL.mean(dim=0)
    off_KL = centres_KL - mean_L
    covariance_LL = variances_KL.mean(dim=0).diag() + off_KL.T @ off_KL / 4
    found_L, found_LL = moments(latents(latents.noise(DRAWS, rng=rng())).detach())
    torch.testing.assert_close(found_L, mean_L, rtol=0, atol=0.02)
    torch.testing.assert_close(found_LL, covariance_LL, rtol=0, atol=0.04)


def test_each_component_is_drawn_equally_often_around_its_own_centre() -> None:
    latents = mixture()
    noise_NM = latents.noise(DRAWS, rng=rng())
    chosen_N, latents_NL = noise_NM[:, 0].long(), latents(noise_NM)
    assert torch.equal(chosen_N.unique(), torch.arange(4))
    for component in range(4):
        own_NL = latents_NL[chosen_N == component]
        assert math.isclose(len(own_NL) / DRAWS, 0.25, abs_tol=0.005)
        found_L, found_LL = moments(own_NL)
        torch.testing.assert_close(found_L, latents.centres_KL[component], rtol=0, atol=0.02)
        torch.testing.assert_close(found_LL, 0.3 * torch.eye(3), rtol=0, atol=0.02)


def test_centres_are_drawn_uniformly_in_the_range_and_scales_are_the_root_of_sigma() -> None:
    latents = mixture(components=256, size=100)
    centres_KL = latents.centres_KL
    assert 1.99 < float(centres_KL.abs().max()) <= 2
    assert abs(float(centres_KL.mean())) < 0.02
    assert math.isclose(float(centres_KL.var()), 4 / 3, rel_tol=0.02)
    torch.testing.assert_close(latents.scales_KL, torch.full((256, 100), math.sqrt(0.3)))


def test_learnt_centres_and_scales_get_the_gradient_of_the_sample_path() -> None:
    latents = mixture(learnt=True)
    noise_NM = latents.noise(50, rng=rng())
    weight_NL = torch.randn(50, 3, generator=rng(2))
    by_centre_KL, by_scale_KL = torch.autograd.grad(
        (weight_NL * latents(noise_NM)).sum(), (latents.centres_KL, latents.scales_KL)
    )
    for component in range(4):
        own_N = noise_NM[:, 0] == component
        torch.testing.assert_close(by_centre_KL[component], weight_NL[own_N].sum(dim=0))
        torch.testing.assert_close(by_scale_KL[component], (weight_NL * noise_NM[:, 1:])[own_N].sum(dim=0))


def test_a_static_mixture_has_no_parameters_and_is_saved_all_the_same() -> None:
    static, learnt = mixture(), mixture(learnt=True)
    assert not list(static.parameters())
    assert sorted(static.state_dict()) == sorted(learnt.state_dict()) == ["centres_KL", "scales_KL"]
    assert len(list(learnt.parameters())) == 2


@pytest.mark.parametrize("latents", [NormalLatents(3), mixture()], ids=["normal", "mixture"])
def test_a_latent_depends_on_its_own_row_of_noise_only(latents: NormalLatents | MixtureLatents) -> None:
    noise_NM = latents.noise(10, rng=rng())
    assert latents(noise_NM).shape == (10, latents.size)
    assert torch.equal(latents(noise_NM)[3:5], latents(noise_NM[3:5]))


def test_without_a_mixture_latents_are_standard_normal() -> None:
    latents = NormalLatents(3)
    found_L, found_LL = moments(latents(latents.noise(DRAWS, rng=rng())))
    torch.testing.assert_close(found_L, torch.zeros(3), rtol=0, atol=0.01)
    torch.testing.assert_close(found_LL, torch.eye(3), rtol=0, atol=0.02)
