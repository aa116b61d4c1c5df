"""The two networks and their initial weights."""

from __future__ import annotations

import math

import pytest
import torch

from trainables.generators.networks.dcgan import DcganDiscriminator, DcganGenerator, channel_plan, create

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generator(*, pixels: int = 32, n_classes: int = 3) -> DcganGenerator:
    return create(
        lambda: DcganGenerator(pixels=pixels, latent_size=8, width=16, n_classes=n_classes),
        rng=rng(),
        device=CPU,
    )


def discriminator(*, batch_norm: bool, n_classes: int = 3) -> DcganDiscriminator:
    return create(
        lambda: DcganDiscriminator(pixels=32, width=16, n_classes=n_classes, batch_norm=batch_norm),
        keep_scale=not batch_norm,
        rng=rng(),
        device=CPU,
    )


@pytest.mark.parametrize(
    ("pixels", "grid", "channels"),
    [
        (32, 4, (8, 16, 32)),
        (64, 4, (8, 16, 32, 64)),
        (80, 5, (8, 16, 32, 64)),
        (128, 4, (8, 16, 32, 64, 64)),
        (48, 6, (8, 16, 32)),
    ],
)
def test_images_are_halved_to_a_small_grid(pixels: int, grid: int, channels: tuple[int, ...]) -> None:
    assert channel_plan(pixels, 8) == (grid, channels)


@pytest.mark.parametrize("pixels", [32, 48, 64, 80, 128])
def test_both_networks_fit_the_image_size(pixels: int) -> None:
    labels_N = torch.tensor([0, 2])
    images_NCHW = generator(pixels=pixels)(torch.randn(2, 8, generator=rng()), labels_N)
    judge = create(
        lambda: DcganDiscriminator(pixels=pixels, width=4, n_classes=3, batch_norm=False), rng=rng(), device=CPU
    )
    assert images_NCHW.shape == (2, 1, pixels, pixels)
    assert judge(images_NCHW, labels_N).shape == (2,)


def test_initial_weights_come_from_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two = generator().state_dict(), generator().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_initial_weights_have_the_published_spread() -> None:
    network = generator().requires_grad_(False)
    assert math.isclose(float(network.project.weight.std()), 0.02, rel_tol=0.05)
    assert math.isclose(float(network.norms[0].gains_KC.mean()), 1.0, rel_tol=0.02)
    assert float(network.norms[0].biases_KC.abs().max()) == 0
    assert float(network.norms[0].norm.running_var.min()) == 1


def test_without_batch_norm_the_signal_keeps_its_scale() -> None:
    images_NCHW = torch.randn(64, 1, 32, 32, generator=rng())
    features_NF = discriminator(batch_norm=False).requires_grad_(False).features(images_NCHW)
    assert 0.3 < float(features_NF.square().mean()) < 3


def test_a_logit_depends_on_its_own_image_only_without_batch_norm() -> None:
    images_NCHW = torch.randn(8, 1, 32, 32, generator=rng())
    others_NCHW = torch.cat([images_NCHW[:4], torch.randn(4, 1, 32, 32, generator=rng(1))])
    labels_N = torch.arange(8) % 3
    alone, coupled = discriminator(batch_norm=False), discriminator(batch_norm=True)
    torch.testing.assert_close(alone(images_NCHW, labels_N)[:4], alone(others_NCHW, labels_N)[:4])
    assert not torch.allclose(coupled(images_NCHW, labels_N)[:4], coupled(others_NCHW, labels_N)[:4])


def test_the_label_changes_the_logit_only_where_there_are_classes() -> None:
    images_NCHW = torch.randn(4, 1, 32, 32, generator=rng())
    zeros_N, ones_N = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    conditional = discriminator(batch_norm=False)
    assert not torch.allclose(conditional(images_NCHW, zeros_N), conditional(images_NCHW, ones_N))
    for unconditional in (discriminator(batch_norm=False, n_classes=1), generator(n_classes=1)):
        assert not [name for name, _ in unconditional.named_parameters() if "class" in name]
