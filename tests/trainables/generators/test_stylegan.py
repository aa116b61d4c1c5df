"""StyleGAN2's layers and networks against plain computations, and its training's penalties and state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.generators import StyleganConfig
from trainables.data.image_set import ImageSet
from trainables.generators.networks.dcgan import create
from trainables.generators.networks.spectral import normalised
from trainables.generators.networks.stylegan2 import (
    Mapping,
    StyleganDiscriminator,
    StyleganGenerator,
    level_plan,
    minibatch_spread,
)
from trainables.generators.networks.stylegan_layers import (
    EPSILON,
    EqualConv,
    EqualLinear,
    HalvingConv,
    ModulatedConv,
    blurred,
    doubled,
    equalised,
)
from trainables.generators.stylegan import R1_EVERY, Stylegan, StyleganTraining, draw_crossovers, lazy_adam
from trainables.generators.training import TrainingImages

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def generator(*, pixels: int = 32, width: int = 4, n_classes: int = 2, seed: int = 0) -> StyleganGenerator:
    return create(
        lambda: StyleganGenerator(pixels=pixels, latent_size=8, width=width, mapping_layers=2, n_classes=n_classes),
        rng=rng(seed),
        device=CPU,
    )


def discriminator(*, pixels: int = 32, width: int = 4, n_classes: int = 2) -> StyleganDiscriminator:
    return create(lambda: StyleganDiscriminator(pixels=pixels, width=width, n_classes=n_classes), rng=rng(), device=CPU)


def filled(make: Any) -> Any:
    return create(make, rng=rng(), device=CPU).double().requires_grad_(False)


def slowly_filtered(image_HW: Tensor, *, first: int, outputs: int, stride: int, gain: float) -> Tensor:
    """The filter 1, 3, 3, 1 along both axes, zero outside, tap by tap."""
    taps = [gain * tap / 8 for tap in (1.0, 3.0, 3.0, 1.0)]
    out_HW = torch.zeros(outputs, outputs, dtype=image_HW.dtype)
    for row in range(outputs):
        for column in range(outputs):
            for down, down_tap in enumerate(taps):
                for right, right_tap in enumerate(taps):
                    y, x = stride * row + down + first, stride * column + right + first
                    if 0 <= y < len(image_HW) and 0 <= x < len(image_HW):
                        out_HW[row, column] += down_tap * right_tap * image_HW[y, x]
    return out_HW


@pytest.mark.parametrize(
    ("pixels", "sides", "channels"),
    [
        (32, (4, 8, 16, 32), (32, 16, 8, 4)),
        (48, (6, 12, 24, 48), (32, 16, 8, 4)),
        (80, (5, 10, 20, 40, 80), (32, 32, 16, 8, 4)),
        (128, (4, 8, 16, 32, 64, 128), (32, 32, 32, 16, 8, 4)),
    ],
)
def test_maps_double_in_size_and_halve_in_channels(
    pixels: int, sides: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    assert level_plan(pixels, 4) == (sides, channels)


@pytest.mark.parametrize("pixels", [32, 48, 64, 80, 128])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_both_networks_fit_the_image_size(pixels: int, n_classes: int) -> None:
    network, labels_N = generator(pixels=pixels, n_classes=n_classes), torch.tensor([0, n_classes - 1])
    images_NCHW = network(network.noise(2, rng=rng()), labels_N)
    assert images_NCHW.shape == (2, 1, pixels, pixels)
    assert discriminator(pixels=pixels, n_classes=n_classes)(images_NCHW, labels_N).shape == (2,)


def test_initial_weights_come_from_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two = generator().state_dict(), generator().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["constant_CHW"], generator(seed=1).state_dict()["constant_CHW"])


def test_equalised_layers_keep_the_scale_of_their_input() -> None:
    for layer, inputs in (
        (filled(lambda: EqualLinear(400, 50)), normal(100, 400)),
        (filled(lambda: EqualLinear(400, 50, rate=0.01)), normal(100, 400)),
        (filled(lambda: EqualConv(40, 40, 3)), normal(4, 40, 12, 12)),
    ):
        assert math.isclose(float(layer(inputs).std()), 1.0, rel_tol=0.1)
        assert math.isclose(float(layer.weight.std()), 1 / getattr(layer, "_rate", 1.0), rel_tol=0.1)


def test_a_spectrally_normalised_layer_computes_with_a_weight_of_norm_one() -> None:
    layer = create(lambda: EqualConv(8, 8, 3), rng=rng(), device=CPU)
    normalised(nn.Sequential(layer), rng=rng())
    layer.eval()
    assert math.isclose(float(torch.linalg.matrix_norm(equalised(layer).detach().flatten(1), ord=2)), 1, rel_tol=0.05)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulation_equals_a_convolution_of_each_images_own(double: bool, demodulate: bool) -> None:
    conv = filled(lambda: ModulatedConv(3, 5, 3, style_size=4, demodulate=demodulate, double=double))
    features_NCHW, styles_NS = normal(2, 3, 6, 6), normal(2, 4, seed=1)
    expected = []
    for features_CHW, style_S in zip(features_NCHW, styles_NS, strict=True):
        scales_I = conv.affine.weight @ style_S / math.sqrt(4) + conv.affine.bias
        weight = conv.weight / math.sqrt(27) * scales_I[:, None, None]
        if demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + EPSILON).sqrt()
        if double:
            raw_CHW = functional.conv_transpose2d(features_CHW[None], weight.transpose(0, 1), stride=2)[0]
            maps = [slowly_filtered(each, first=-1, outputs=12, stride=1, gain=2.0) for each in raw_CHW]
            expected.append(torch.stack(maps))
        else:
            expected.append(functional.conv2d(features_CHW[None], weight, padding=1)[0])
    assert torch.allclose(conv(features_NCHW, styles_NS), torch.stack(expected), atol=1e-10)


def test_demodulated_outputs_have_unit_scale_whatever_the_style() -> None:
    conv = filled(lambda: ModulatedConv(30, 20, 3, style_size=4, demodulate=True))
    for scale in (0.1, 10.0):
        out_NCHW = conv(normal(4, 30, 16, 16), scale * normal(4, 4, seed=1))
        assert math.isclose(float(out_NCHW[..., 1:-1, 1:-1].std()), 1.0, rel_tol=0.1)


def test_doubling_is_bilinear_away_from_the_border() -> None:
    images_NCHW = normal(2, 1, 6, 6)
    expected_NCHW = functional.interpolate(images_NCHW, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(doubled(images_NCHW)[..., 1:-1, 1:-1], expected_NCHW[..., 1:-1, 1:-1], atol=1e-12)


def test_blurring_filters_every_map_alike() -> None:
    features_NCHW = normal(1, 2, 8, 8)
    expected_CHW = torch.stack(
        [slowly_filtered(each, first=-1, outputs=4, stride=2, gain=1.0) for each in features_NCHW[0]]
    )
    assert torch.allclose(blurred(features_NCHW, padding=1, stride=2)[0], expected_CHW, atol=1e-12)


def test_halving_convolutions_see_blurred_maps() -> None:
    conv = filled(lambda: HalvingConv(1, 1, 3))
    image_HW = normal(8, 8)
    blurred_HW = slowly_filtered(image_HW, first=-2, outputs=9, stride=1, gain=1.0)
    expected_HW = functional.conv2d(blurred_HW[None, None], conv.weight / 3, stride=2)[0, 0]
    assert torch.allclose(conv(image_HW[None, None])[0, 0], expected_HW, atol=1e-12)


def test_the_spread_is_that_of_groups_of_four() -> None:
    features_NCHW = normal(12, 3, 4, 4)
    grouped = features_NCHW.view(4, 3, 3, 4, 4)  # as in the authors' code: group of image i is i mod 3
    expected_M = (grouped.var(dim=0, correction=0) + EPSILON).sqrt().mean(dim=(1, 2, 3))
    assert torch.allclose(minibatch_spread(features_NCHW), expected_M.repeat(4), atol=1e-12)


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (3, 1), (7, 1), (10, 2), (31, 7)])
def test_images_left_over_join_a_group(count: int, groups: int) -> None:
    features_NCHW = normal(count, 2, 2, 2)
    expected_N = torch.empty(count, dtype=torch.float64)
    for index in range(count):
        group_MCHW = features_NCHW[[other for other in range(count) if other % groups == index % groups]]
        expected_N[index] = (group_MCHW.var(dim=0, correction=0) + EPSILON).sqrt().mean()
    assert torch.allclose(minibatch_spread(features_NCHW), expected_N, atol=1e-12)


def test_the_discriminator_sees_that_images_are_all_alike() -> None:
    judge, labels_N = discriminator(), torch.zeros(4, dtype=torch.int64)
    images_NCHW = normal(4, 1, 32, 32).float()
    alone, amidst = judge(images_NCHW[[0] * 4], labels_N)[0], judge(images_NCHW, labels_N)[0]
    assert not torch.isclose(alone, amidst)


def test_the_length_of_a_latent_does_not_matter() -> None:
    mapping = filled(lambda: Mapping(latent_size=8, layers=2, n_classes=2))
    latents_NL, labels_N = normal(3, 8), torch.tensor([0, 1, 0])
    assert torch.allclose(mapping(latents_NL, labels_N), mapping(3 * latents_NL, labels_N), atol=1e-7)
    assert not torch.allclose(mapping(latents_NL, labels_N), mapping(latents_NL, 1 - labels_N))


def test_an_image_depends_on_its_own_noise_and_label_alone() -> None:
    network = generator().eval()
    noise_NM, labels_N = network.noise(5, rng=rng()), torch.tensor([0, 1, 0, 1, 1])
    together_NCHW = network(noise_NM, labels_N)
    alone_NCHW = torch.cat([network(noise_NM[i : i + 1], labels_N[i : i + 1]) for i in range(5)])
    assert torch.allclose(together_NCHW, alone_NCHW, atol=1e-5)
    assert not torch.allclose(together_NCHW, network(noise_NM, 1 - labels_N), atol=1e-2)


def test_images_are_clamped_in_evaluation_only() -> None:
    network = generator().requires_grad_(False)
    for to_image in network.to_image:
        to_image.bias.fill_(1.0)
    noise_NM, labels_N = network.noise(3, rng=rng()), torch.zeros(3, dtype=torch.int64)
    raw_NCHW = network(noise_NM, labels_N)
    assert float(raw_NCHW.max()) > 1
    assert torch.equal(network.eval()(noise_NM, labels_N), raw_NCHW.clamp(-1, 1))


def test_noise_at_every_pixel_acts_with_a_learnt_strength() -> None:
    network, labels_N = generator().requires_grad_(False), torch.zeros(2, dtype=torch.int64)
    noise_NM = network.noise(2, rng=rng())
    other_NM = torch.cat(
        [noise_NM[:, : network.latent_size], network.noise(2, rng=rng(1))[:, network.latent_size :]], 1
    )
    assert torch.equal(network(noise_NM, labels_N), network(other_NM, labels_N))
    for layer in network.layers:
        plain_NCHW = network(noise_NM, labels_N)
        layer.strength.fill_(0.5)
        assert not torch.allclose(network(noise_NM, labels_N), plain_NCHW, atol=1e-4)


def test_equal_styles_of_all_layers_are_the_unmixed_image() -> None:
    network, labels_N = generator(), torch.tensor([0, 1])
    noise_NM = network.noise(2, rng=rng())
    styles_NLS = network.styles(noise_NM, labels_N)[:, None].repeat(1, network.style_count, 1)
    unmixed_NCHW = network.synthesize(styles_NLS, noise_NM)
    assert torch.equal(unmixed_NCHW, network(noise_NM, labels_N))
    for layer in range(network.style_count):  # every layer's style matters
        changed_NLS = styles_NLS.clone()
        changed_NLS[:, layer] += 1
        assert not torch.allclose(network.synthesize(changed_NLS, noise_NM), unmixed_NCHW, atol=1e-4)


def test_lazy_regularisation_slows_the_optimiser_by_its_extra_steps() -> None:
    adam = lazy_adam(nn.Linear(1, 1), rate=2.5e-3, every=16)
    assert adam.defaults["lr"] == 2.5e-3 * 16 / 17
    assert adam.defaults["betas"] == (0.0, 0.99 ** (16 / 17))
    assert lazy_adam(nn.Linear(1, 1), rate=2.5e-3, every=None).defaults["betas"] == (0.0, 0.99)


def test_some_images_take_a_second_style_from_one_layer_on() -> None:
    later_NL = draw_crossovers(4000, 6, probability=0.25, rng=rng())
    assert not bool(later_NL[:, 0].any())
    assert bool((later_NL[:, 1:] >= later_NL[:, :-1]).all())
    mixed_N = later_NL.any(dim=1)
    assert math.isclose(float(mixed_N.double().mean()), 0.25, abs_tol=0.02)
    assert torch.bincount(later_NL[mixed_N].sum(dim=1), minlength=6)[1:].min() > 100


def training_images(count: int = 12) -> TrainingImages:
    images_NCHW = (0.4 * torch.randn(count, 1, 32, 32, generator=rng(9))).clamp(-1, 1)
    return TrainingImages(images_NCHW=images_NCHW, labels_N=torch.arange(count) % 2, n_classes=2)


def training(**settings: Any) -> StyleganTraining:
    config = StyleganConfig(**{"width": 4, "latent_size": 8, "batch_size": 6, **settings})
    return Stylegan(config).train_one(training_images(), seed=3, device=CPU)


def test_r1_counts_for_all_the_steps_that_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = training(augmentation="none", r1_weight=2e-4)
    losses: list[Tensor] = []
    monkeypatch.setattr(trained, "_update_discriminator", losses.append)
    for _ in range(R1_EVERY + 1):
        trained.step()
    assert len(losses) == R1_EVERY + 1 + 2  # after the first step and after the seventeenth

    trained = training(augmentation="none", r1_weight=2e-4)
    monkeypatch.setattr(trained, "_update_discriminator", losses.append)
    drawn = trained._draw()
    trained._penalise_slopes(drawn)
    real_NCHW, labels_N = trained._real(drawn)
    real_NCHW = real_NCHW.clone().requires_grad_()
    (slopes_NCHW,) = torch.autograd.grad(trained._discriminator(real_NCHW, labels_N).sum(), real_NCHW)
    gamma = 2e-4 * 32**2 / 6
    expected = gamma / 2 * slopes_NCHW.square().sum(dim=(1, 2, 3)).mean() * 16
    assert torch.isclose(losses[-1], expected, rtol=1e-5)


def test_without_weight_there_is_no_r1(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = training(r1_weight=0.0)
    monkeypatch.setattr(trained, "_penalise_slopes", lambda *_: pytest.fail("R1 was computed"))
    trained.step()
    assert trained.curves.lists()["r1"] == [0.0]


def test_the_curves_show_what_the_controller_does() -> None:
    trained = training(ada_target=-0.9, ada_ramp=10)
    for _ in range(9):
        trained.step()
    curves = trained.curves.lists()
    assert set(curves) == {"discriminator_loss", "generator_loss", "ada_probability", "r1"}
    assert curves["ada_probability"] == pytest.approx([0.0] * 4 + [0.4] * 4 + [0.8])


@pytest.mark.parametrize("augmentation", ["none", "diffaugment"])
def test_the_probability_stays_zero_where_augmentation_is_not_adaptive(augmentation: str) -> None:
    trained = training(augmentation=augmentation, ada_target=-0.9, ada_ramp=10)
    for _ in range(5):
        trained.step()
    assert trained.curves.lists()["ada_probability"] == [0.0] * 5


def fold() -> ImageSet:
    images = training_images()
    names = tuple(f"image{index}" for index in range(len(images)))
    return ImageSet(
        images_NCHW=images.images_NCHW, labels_N=images.labels_N, ids=names, patients=names, classes=("liver", "mass")
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"ada_target": -0.9, "ada_ramp": 10, "style_mixing": 0.5, "path_length": 2.0},
        {"augmentation": "diffaugment", "spectral_norm": True, "ema": 0.0},
    ],
)
def test_a_stopped_training_goes_on_to_the_same_bytes(settings: dict[str, Any]) -> None:
    owner = Stylegan(StyleganConfig(width=4, latent_size=8, batch_size=6, **settings))
    whole = owner.begin(fold(), seed=3, device=CPU)
    for _ in range(7):
        whole.step()
    saved = {name: tensor.clone() for name, tensor in whole.state().items()}
    resumed = owner.begin(fold(), seed=3, device=CPU)
    resumed.restore(saved)
    for _ in range(12):
        whole.step()
        resumed.step()
    one, two = whole.state(), resumed.state()
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one), [n for n in one if not torch.equal(one[n], two[n])]
    assert any(not torch.equal(one[name], saved[name]) for name in saved)


def test_path_length_and_style_mixing_change_what_is_learnt() -> None:
    weights = []
    for settings in ({}, {"path_length": 2.0}, {"style_mixing": 1.0}):
        trained = training(augmentation="none", **settings)
        trained.step()
        trained.step()
        weights.append(torch.cat([weight.detach().flatten() for weight in trained.sampler().parameters()]))
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
