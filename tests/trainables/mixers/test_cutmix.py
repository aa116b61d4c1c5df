from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spaces.config import CutmixConfig
from trainables.data.affine import identity
from trainables.data.image_set import ImageSet
from trainables.mixers.cutmix import boxes
from trainables.mixers.registry import build
from trainables.seeding import generator

COUNT, SIDE = 40, 16


def authors_box(weight: float, row: int, column: int, height: int, width: int) -> Tensor:
    """``rand_bbox`` of the authors' code, with its draws made already."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    ratio = math.sqrt(1 - weight)
    half_height, half_width = int(height * ratio) // 2, int(width * ratio) // 2
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    mask[top:bottom, left:right] = True
    return mask


def test_a_box_equals_the_authors_one() -> None:
    rng = generator(0)
    weight_N = torch.cat([torch.tensor([0.0, 1.0]), torch.rand(200, generator=rng)])
    centre_2N = torch.stack([torch.randint(size, (202,), generator=rng) for size in (24, 40)])
    box_NHW = boxes(weight_N, centre_2N, height=24, width=40)
    for box, weight, (row, column) in zip(box_NHW, weight_N.tolist(), centre_2N.T.tolist(), strict=True):
        assert torch.equal(box, authors_box(weight, row, column, 24, 40))


def test_without_clipping_its_area_is_one_minus_lambda_up_to_a_pixel_a_side() -> None:
    weight_N = torch.linspace(0, 1, 50)
    share_N = boxes(weight_N, torch.full((2, 50), 128), height=256, width=256).double().mean(dim=(1, 2))
    assert ((1 - weight_N) - share_N).abs().max() < 2 * 2 / 256 + 1e-3


def cut_epoch(alpha: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Constant images, image i of grey level i; classes are the images themselves."""
    real = ImageSet(
        images_NCHW=(torch.arange(COUNT) / COUNT).reshape(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE).contiguous(),
        labels_N=torch.arange(COUNT),
        ids=tuple(str(index) for index in range(COUNT)),
        patients=("p",) * COUNT,
        classes=tuple(f"c{index}" for index in range(COUNT)),
    )
    mixer = build(CutmixConfig(cutmix_alpha=alpha))
    batches = list(mixer.epoch(real, None, batch_size=8, augment=identity, rng=generator(seed)))
    images_NCHW = torch.cat([batch.images_NCHW for batch in batches])
    return (images_NCHW * COUNT).round().long().flatten(1), torch.cat([batch.targets_NK for batch in batches])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_the_label_is_the_share_of_pixels_that_each_image_has(alpha: float) -> None:
    source_NP, targets_NK = cut_epoch(alpha)
    shares_NK = torch.stack([torch.bincount(row, minlength=COUNT) for row in source_NP]) / SIDE**2
    torch.testing.assert_close(targets_NK, shares_NK)
    assert ((shares_NK > 0).sum(dim=1) <= 2).all()
    assert ((shares_NK > 0).sum(dim=1) == 2).sum() > COUNT / 3


def test_boxes_and_weights_differ_from_image_to_image() -> None:
    source_NP, targets_NK = cut_epoch(1.0)
    mixed_N = (source_NP != source_NP[:, :1]).any(dim=1)
    assert len(set(targets_NK.max(dim=1).values[mixed_N].tolist())) > COUNT / 3


def test_each_real_image_is_visited_once_an_epoch_and_keeps_lambda_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(alpha: float, count: int, *, rng: torch.Generator) -> Tensor:
        return torch.full((count,), 0.75)

    monkeypatch.setattr("trainables.mixers.cutmix.beta_symmetric", constant)
    _, targets_NK = cut_epoch(1.0)
    largest_N, image_N = targets_NK.max(dim=1)
    assert sorted(image_N.tolist()) == list(range(COUNT))
    assert largest_N.min() == 0.75  # a box of 8 x 8 pixels of 16 x 16, where the border does not cut it off


def test_each_image_gives_its_weight_once_as_itself_and_once_as_a_partner() -> None:
    totals_K = torch.stack([cut_epoch(1.0, seed=seed)[1].sum(dim=0) for seed in range(300)]).mean(dim=0)
    torch.testing.assert_close(totals_K, torch.ones(COUNT), atol=0.12, rtol=0)


def test_the_weights_of_this_version_are_unchanged() -> None:
    """Where this fails on purpose, raise MIXER_VERSION and write the new numbers here."""
    largest_N = cut_epoch(1.0, seed=7)[1].max(dim=1).values
    assert largest_N[:6].tolist() == pytest.approx([0.6719, 0.9375, 0.5625, 0.9375, 0.6875, 0.6875], abs=1e-4)
