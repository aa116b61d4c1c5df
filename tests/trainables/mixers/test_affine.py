from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import affine_grid

from trainables.data import affine as affine_module
from trainables.data.affine import MAX_ZOOM, affine, draw_thetas, identity, sampling_grid, warp
from trainables.seeding import generator


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 33, 33, generator=generator(1)) * 2 - 1


def theta(rows: list[list[float]], count: int) -> Tensor:
    return torch.tensor(rows).expand(count, 2, 3)


def test_the_identity_matrix_changes_nothing(images: Tensor) -> None:
    torch.testing.assert_close(warp(images, theta([[1, 0, 0], [0, 1, 0]], 6)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 40), (64, 64), (80, 80), (1, 7), (255, 31)])
def test_the_sampling_grid_is_pytorchs_to_the_last_bit(height: int, width: int) -> None:
    thetas = draw_thetas(40, rng=generator(height))
    expected = affine_grid(thetas, [40, 1, height, width], align_corners=False)
    assert torch.equal(sampling_grid(thetas, height, width), expected)


def test_how_many_images_are_transformed_at_once_changes_no_number(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = affine(images, generator(2))
    monkeypatch.setattr(affine_module, "PIXELS_AT_ONCE", 2 * 33 * 33 + 1)
    assert torch.equal(affine(images, generator(2)), together)
    monkeypatch.setattr(affine_module, "PIXELS_AT_ONCE", 1)
    assert torch.equal(affine(images, generator(2)), together)


@pytest.mark.parametrize(
    ("rows", "axes"),
    [([[-1.0, 0, 0], [0, 1, 0]], (3,)), ([[1.0, 0, 0], [0, -1, 0]], (2,)), ([[-1.0, 0, 0], [0, -1, 0]], (2, 3))],
)
def test_flips_move_pixels_exactly(images: Tensor, rows: list[list[float]], axes: tuple[int, ...]) -> None:
    torch.testing.assert_close(warp(images, theta(rows, 6)), images.flip(axes), atol=1e-5, rtol=0)


def test_a_quarter_turn_moves_pixels_exactly(images: Tensor) -> None:
    torch.testing.assert_close(
        warp(images, theta([[0, -1.0, 0], [1, 0, 0]], 6)), torch.rot90(images, k=1, dims=(2, 3)), atol=1e-5, rtol=0
    )


def test_a_shift_beyond_the_border_shows_the_reflection(images: Tensor) -> None:
    one_pixel = 2 / 33
    shifted = warp(images, theta([[1, 0, one_pixel], [0, 1, 0]], 6))
    torch.testing.assert_close(shifted[..., :-1], images[..., 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(shifted[..., -1], images[..., -1], atol=1e-5, rtol=0)


def test_images_stay_float32_in_their_range_and_shape(images: Tensor) -> None:
    warped = affine(images, generator(2))
    assert warped.dtype == torch.float32
    assert warped.shape == images.shape
    white = affine(torch.ones(1280, 1, 33, 33), generator(2))  # bilinear weights sum to 1 + 1e-7 in places
    assert 0.999 < white.min() <= white.max() <= 1


def test_each_image_gets_its_own_transformation() -> None:
    one = torch.rand(1, 1, 32, 32, generator=generator(3)).expand(8, 1, 32, 32)
    warped = affine(one, generator(4))
    assert len({warped[index].numpy().tobytes() for index in range(8)}) == 8


def test_transformations_have_the_stated_ranges_and_frequencies() -> None:
    thetas = draw_thetas(4000, rng=generator(5)).double()
    linear, shift = thetas[:, :, :2], thetas[:, :, 2]
    determinant = torch.linalg.det(linear)
    scale = determinant.abs().sqrt()
    assert 1 / (1 + MAX_ZOOM) - 1e-6 <= scale.min() < 0.96
    assert 1.04 < scale.max() <= 1 / (1 - MAX_ZOOM) + 1e-6
    assert 0.039 < shift.abs().max() <= 0.04  # 2 % of a side that is 2 long
    assert abs((determinant < 0).double().mean().item() - 0.5) < 0.04
    # the second column is (-sin, cos) times the vertical flip: its direction modulo 90 degrees is the small rotation
    angle = torch.atan2(linear[:, 1, 1], -linear[:, 0, 1]) * 180 / math.pi
    small = (angle + 45) % 90 - 45
    assert 19 < small.abs().max() <= 20 + 1e-4
    assert small.min() < -19
    assert small.max() > 19
    quarters = torch.bincount(((angle - small) / 90).round().long() % 4, minlength=4) / 4000
    assert (quarters - 0.25).abs().max() < 0.04


def test_the_same_seed_gives_the_same_bytes_and_the_global_state_stays(images: Tensor) -> None:
    before = torch.get_rng_state()
    first, again, other = (affine(images, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_an_images_transformation_does_not_depend_on_the_images_after_it(images: Tensor) -> None:
    assert torch.equal(affine(images, generator(1))[:2], affine(images[:2], generator(1)))


def test_identity_draws_nothing(images: Tensor) -> None:
    rng = generator(1)
    before = rng.get_state()
    assert identity(images, rng) is images
    assert torch.equal(before, rng.get_state())
