"""AugMix against its algorithm, written out image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spaces.config import AugmixConfig
from trainables.data.affine import identity
from trainables.data.image_set import ImageSet
from trainables.mixers import augmix
from trainables.mixers.augmix import augment_and_mix, draw_recipe
from trainables.mixers.augmix_operations import OPERATIONS, operate
from trainables.mixers.registry import build
from trainables.seeding import generator

DRAWS = 20_000


def images(count: int, *, pixels: int = 16, seed: int = 0) -> Tensor:
    return 2 * torch.rand(count, 1, pixels, pixels, generator=generator(seed)) - 1


def image_set(count: int) -> ImageSet:
    return ImageSet(
        images_NCHW=images(count),
        labels_N=torch.arange(count) % 2,
        ids=tuple(str(index) for index in range(count)),
        patients=("p",) * count,
        classes=("a", "b"),
    )


def test_an_image_is_mixed_as_algorithm_1_says() -> None:
    config = AugmixConfig(width=2, severity=8)
    images_N1HW, recipe = images(20, pixels=32), draw_recipe(config, 20, rng=generator(3))
    mixed_N1HW = augment_and_mix(images_N1HW, recipe)
    for n, image_1HW in enumerate(images_N1HW):
        bytes_1HW = ((image_1HW + 1) * 127.5).round().to(torch.uint8)
        mixture_1HW = torch.zeros(1, 32, 32, dtype=torch.float64)
        for chain in range(config.width):
            chain_1HW = bytes_1HW
            for step in range(int(recipe.depth_NW[n, chain])):
                chosen = recipe.operation_NWD[n, chain, step], recipe.level_NWD[n, chain, step]
                chain_1HW = operate(chain_1HW, *(value.reshape(1) for value in chosen))
            mixture_1HW += recipe.chain_weight_NW[n, chain].double() * (chain_1HW.double() / 255 * 2 - 1)
        share = recipe.mixed_weight_N[n].double()
        expected_1HW = (1 - share) * image_1HW.double() + share * mixture_1HW
        torch.testing.assert_close(mixed_N1HW[n].double(), expected_1HW, atol=1e-6, rtol=0)


def test_draws_follow_their_laws() -> None:
    recipe = draw_recipe(AugmixConfig(severity=5), DRAWS, rng=generator(1))
    assert recipe.operation_NWD.shape == (DRAWS, 3, 3)
    shares_9 = torch.bincount(recipe.operation_NWD.flatten(), minlength=len(OPERATIONS)) / recipe.operation_NWD.numel()
    assert (shares_9 - 1 / 9).abs().max() < 0.005
    depths_3 = torch.bincount(recipe.depth_NW.flatten(), minlength=4)[1:] / recipe.depth_NW.numel()
    assert (depths_3 - 1 / 3).abs().max() < 0.01
    strength = recipe.level_NWD.abs()
    assert strength.min() >= 0.1
    assert strength.max() <= 5
    assert strength.mean().item() == pytest.approx(2.55, abs=0.02)
    assert (recipe.level_NWD < 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert recipe.mixed_weight_N.mean().item() == pytest.approx(0.5, abs=0.01)
    assert recipe.mixed_weight_N.var().item() == pytest.approx(1 / 12, abs=0.003)


def test_the_chains_weights_are_uniform_on_the_simplex() -> None:
    weight_NW = draw_recipe(AugmixConfig(), DRAWS, rng=generator(2)).chain_weight_NW
    torch.testing.assert_close(weight_NW.sum(dim=1), torch.ones(DRAWS))
    assert (weight_NW.mean(dim=0) - 1 / 3).abs().max() < 0.01
    assert (weight_NW.var(dim=0) - 1 / 18).abs().max() < 0.003  # of Dirichlet(1, 1, 1): 2 / (9 * 4)


def test_a_fixed_depth_is_every_chains() -> None:
    recipe = draw_recipe(AugmixConfig(depth=2, width=4), 10, rng=generator(0))
    assert recipe.operation_NWD.shape == (10, 4, 2)
    assert (recipe.depth_NW == 2).all()


def test_how_many_images_are_computed_together_changes_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    images_N1HW, recipe = images(23), draw_recipe(AugmixConfig(), 23, rng=generator(4))
    whole_N1HW = augment_and_mix(images_N1HW, recipe)
    monkeypatch.setattr(augmix, "PIXELS_AT_ONCE", 16 * 16 * 3 * 5)
    assert torch.equal(augment_and_mix(images_N1HW, recipe), whole_N1HW)


def test_an_image_does_not_depend_on_the_images_after_it() -> None:
    images_N1HW = images(9)
    whole = augment_and_mix(images_N1HW, draw_recipe(AugmixConfig(), 9, rng=generator(5)))
    first = augment_and_mix(images_N1HW[:4], draw_recipe(AugmixConfig(), 4, rng=generator(5)))
    assert torch.equal(whole[:4], first)


def test_a_batch_holds_the_clean_images_and_two_different_views_of_the_same_ones() -> None:
    real = image_set(11)
    batches = list(build(AugmixConfig(severity=1)).epoch(real, None, batch_size=4, augment=identity, rng=generator(0)))
    clean = {image.numpy().tobytes() for image in real.images_NCHW}
    for batch in batches:
        assert batch.consistency == 12
        assert len(batch.views) == 2
        assert not torch.equal(*batch.views)
        assert {image.numpy().tobytes() for image in batch.images_NCHW} <= clean
        for view_NCHW in batch.views:
            to_own_N = (view_NCHW - batch.images_NCHW).abs().mean(dim=(1, 2, 3))
            to_other_N = (view_NCHW - batch.images_NCHW.roll(1, dims=0)).abs().mean(dim=(1, 2, 3))
            assert to_own_N.mean() < 0.7 * to_other_N.mean()


def test_without_the_consistency_loss_the_batch_is_one_augmented_version() -> None:
    real = image_set(11)
    batches = list(
        build(AugmixConfig(js_weight=0.0)).epoch(real, None, batch_size=4, augment=identity, rng=generator(0))
    )
    clean = {image.numpy().tobytes() for image in real.images_NCHW}
    assert all(batch.views == () and batch.consistency == 0 for batch in batches)
    assert not {image.numpy().tobytes() for batch in batches for image in batch.images_NCHW} & clean
