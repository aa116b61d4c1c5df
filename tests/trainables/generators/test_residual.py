"""Self-attention against an explicit softmax, and the two networks of DAE GAN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trainables.generators.latents import Latents, MixtureLatents, NormalLatents
from trainables.generators.networks.dcgan import DcganDiscriminator, DcganGenerator, create
from trainables.generators.networks.residual import (
    DaeDiscriminator,
    DaeGenerator,
    ResidualDoubling,
    ResidualHalving,
    SelfAttention,
    attend,
    create_dae,
    without_attention,
)

CPU = torch.device("cpu")
PARTS = [(True, True), (True, False), (False, True), (False, False)]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=rng(seed))


def generator(
    *, pixels: int = 32, residual: bool = True, attention: bool = True, latents: Latents | None = None, width: int = 8
) -> DaeGenerator:
    return create_dae(
        lambda: DaeGenerator(
            pixels=pixels,
            latents=latents or NormalLatents(8),
            width=width,
            n_classes=3,
            residual=residual,
            attention=attention,
        ),
        rng=rng(),
        device=CPU,
    )


def discriminator(
    *, pixels: int = 32, residual: bool = True, attention: bool = True, width: int = 8
) -> DaeDiscriminator:
    return without_attention(
        create(
            lambda: DaeDiscriminator(pixels=pixels, width=width, n_classes=3, residual=residual, attention=attention),
            keep_scale=True,
            rng=rng(),
            device=CPU,
        )
    )


def explicit(queries_NTC: Tensor, keys_NTC: Tensor, values_NTC: Tensor) -> Tensor:
    """Every output written out: the mean of the values, weighted by exp(query . key)."""
    outputs = []
    for query_TC, key_TC, value_TC in zip(queries_NTC, keys_NTC, values_NTC, strict=True):
        for query_C in query_TC:
            weight_T = torch.exp((query_C * key_TC).sum(dim=1))
            outputs.append((weight_T[:, None] * value_TC).sum(dim=0) / weight_T.sum())
    return torch.stack(outputs).view(values_NTC.shape)


def test_attention_is_the_explicit_softmax_with_its_first_and_second_derivatives() -> None:
    inputs = [normal(2, 7, 3, seed=seed).requires_grad_() for seed in (1, 2, 3)]
    outer_NTC, found = normal(2, 7, 3, seed=4), []
    for function in (attend, explicit):
        output_NTC = function(*inputs)
        first = torch.autograd.grad((outer_NTC * output_NTC).sum(), inputs, create_graph=True)
        length = sum((each**2).sum() for each in first)
        found.append((output_NTC, *first, *torch.autograd.grad(length, inputs)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_attention_module_is_gamma_times_attention_over_pixels_plus_its_input() -> None:
    module = SelfAttention(16).double()
    module.draw(rng=rng())
    module.gamma.detach().fill_(0.7)
    features_NCHW = normal(2, 16, 3, 5, seed=1)
    pixels_NTC = features_NCHW.reshape(2, 16, 15).transpose(1, 2)
    weights = [each.weight[:, :, 0, 0] for each in (module.query, module.key, module.value, module.back)]
    assert [tuple(each.shape) for each in weights] == [(2, 16), (2, 16), (2, 16), (16, 2)]
    attended_NTC = explicit(*(pixels_NTC @ each.T for each in weights[:3])) @ weights[3].T
    expected_NCHW = 0.7 * attended_NTC.transpose(1, 2).reshape(2, 16, 3, 5) + features_NCHW
    torch.testing.assert_close(module(features_NCHW), expected_NCHW, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("channels", [4, 8, 24])
def test_attention_begins_as_the_identity_and_has_at_least_one_channel(channels: int) -> None:
    module = SelfAttention(channels)
    module.draw(rng=rng())
    features_NCHW = torch.randn(2, channels, 4, 4, generator=rng())
    assert module.query.out_channels == max(channels // 8, 1)
    assert torch.equal(module(features_NCHW), features_NCHW)


@pytest.mark.parametrize("pixels", [32, 48, 64, 80, 96, 128])
@pytest.mark.parametrize(("residual", "attention"), PARTS)
def test_both_networks_fit_the_image_size_with_any_of_their_parts(pixels: int, residual: bool, attention: bool) -> None:
    labels_N = torch.tensor([0, 2])
    network = generator(pixels=pixels, residual=residual, attention=attention, width=4)
    judge = discriminator(pixels=pixels, residual=residual, attention=attention, width=4)
    images_NCHW = network(network.noise(2, rng=rng()), labels_N)
    assert images_NCHW.shape == (2, 1, pixels, pixels)
    assert float(images_NCHW.detach().abs().max()) < 1
    assert judge(images_NCHW, labels_N).shape == (2,)
    for part in (network, judge):
        kinds = {type(module) for module in part.modules()}
        assert bool(kinds & {ResidualDoubling, ResidualHalving}) is residual
        assert (SelfAttention in kinds) is attention


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
    ("pixels", "blocks_before", "blocks"), [(32, 1, 3), (48, 1, 3), (64, 2, 4), (80, 2, 4), (96, 2, 4), (128, 3, 5)]
)
def test_both_networks_attend_at_a_quarter_of_the_side(
    pixels: int, blocks_before: int, blocks: int, residual: bool
) -> None:
    network, judge = generator(pixels=pixels, residual=residual), discriminator(pixels=pixels, residual=residual)
    passed: list[tuple[str, tuple[int, ...]]] = []
    for part in (network, judge):
        for module in part.modules():
            if type(module).__name__ in ("SelfAttention", "ResidualDoubling", "DcganDoubling", "ResidualHalving"):
                module.register_forward_hook(
                    lambda module, _, output: passed.append((type(module).__name__, output.shape[2:]))
                )
    labels_N = torch.tensor([0, 2])
    images_NCHW = network(network.noise(2, rng=rng()), labels_N)
    names, attended = [name for name, _ in passed], ("SelfAttention", (pixels // 4, pixels // 4))
    assert len(names) == blocks + 1
    assert passed[blocks_before] == attended
    passed.clear()
    judge(images_NCHW, labels_N)
    assert passed.index(attended) == int(residual)
    assert len(passed) == (blocks + 1 if residual else 1)


@pytest.mark.parametrize("pixels", [32, 80])
def test_without_residual_blocks_and_attention_the_networks_are_those_of_dcgan(pixels: int) -> None:
    network = generator(pixels=pixels, residual=False, attention=False)
    judge = discriminator(pixels=pixels, residual=False, attention=False)
    plain = DcganGenerator(pixels=pixels, latent_size=8, width=8, n_classes=3)
    plain_judge = DcganDiscriminator(pixels=pixels, width=8, n_classes=3, batch_norm=False)
    with torch.no_grad():
        plain.project.weight.copy_(network.project.weight)
        for norm, double, layer in zip(plain.norms, plain.doublings, network.doublings, strict=True):
            norm.load_state_dict(layer.norm.state_dict())
            double.load_state_dict(layer.convolution.state_dict())
    plain_judge.load_state_dict(judge.state_dict())
    latents_NL, labels_N = torch.randn(4, 8, generator=rng()), torch.tensor([0, 1, 2, 1])
    images_NCHW = network(latents_NL, labels_N)
    torch.testing.assert_close(images_NCHW, plain(latents_NL, labels_N))
    torch.testing.assert_close(judge(images_NCHW, labels_N), plain_judge(images_NCHW, labels_N))


@pytest.mark.parametrize(("residual", "attention"), PARTS)
def test_a_logit_depends_on_its_own_image_only(residual: bool, attention: bool) -> None:
    judge = discriminator(residual=residual, attention=attention).double()
    for module in judge.modules():
        if isinstance(module, SelfAttention):
            module.gamma.detach().fill_(1.0)
    images_NCHW, labels_N = normal(6, 1, 32, 32, seed=1), torch.arange(6) % 3
    others_NCHW = torch.cat([images_NCHW[:3], normal(3, 1, 32, 32, seed=2)])
    torch.testing.assert_close(
        judge(images_NCHW, labels_N)[:3], judge(others_NCHW, labels_N)[:3], rtol=1e-12, atol=1e-12
    )
    assert not any(isinstance(module, nn.BatchNorm2d) for module in judge.modules())


@pytest.mark.parametrize("pixels", [32, 128])
def test_the_discriminators_signal_keeps_its_scale_through_any_depth(pixels: int) -> None:
    judge = discriminator(pixels=pixels, width=16).requires_grad_(False)
    images_NCHW = torch.nn.functional.interpolate(torch.randn(16, 1, 8, 8, generator=rng()), size=pixels)
    assert 0.1 < float(judge.features(images_NCHW).square().mean()) < 3


def test_the_label_changes_image_and_logit() -> None:
    network, judge = generator(), discriminator()
    noise_NM = network.noise(4, rng=rng())
    zeros_N, ones_N = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    images_NCHW = network(noise_NM, zeros_N)
    assert not torch.allclose(images_NCHW, network(noise_NM, ones_N))
    assert not torch.allclose(judge(images_NCHW, zeros_N), judge(images_NCHW, ones_N))


@pytest.mark.parametrize("learnt", [False, True])
def test_the_mixture_belongs_to_the_generator(learnt: bool) -> None:
    network = generator(
        latents=MixtureLatents(8, components=5, centre_range=1.0, sigma=0.25, learnt=learnt), attention=False
    )
    kept = dict(network.named_parameters()) if learnt else dict(network.named_buffers())
    assert tuple(kept["latents.centres_KL"].shape) == (5, 8)
    assert 0.9 < float(kept["latents.centres_KL"].detach().abs().max()) <= 1
    torch.testing.assert_close(kept["latents.scales_KL"].detach(), torch.full((5, 8), 0.5))


def test_initial_weights_come_from_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two = generator().state_dict(), generator().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert float(one["attention.gamma"]) == 0
    assert math.isclose(float(one["attention.query.weight"].std()), 1 / math.sqrt(16), rel_tol=0.3)
    assert math.isclose(float(one["doublings.0.first.weight"].std()), 0.02, rel_tol=0.05)
