"""Every operation against Pillow, called as the authors' code calls it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from trainables.mixers.augmix_operations import OPERATIONS, operate
from trainables.seeding import generator

COUNT = 60


def by_pillow(name: str, pixels: NDArray[np.uint8], level: float) -> NDArray[np.uint8]:
    """The operation of augmentations.py, with its parameter drawn already."""
    image = Image.fromarray(pixels)
    height, width = pixels.shape
    sign, strength = (-1 if level < 0 else 1), abs(level)

    def whole(highest: float) -> int:
        return int(strength * highest / 10)

    def moved(*matrix: float) -> Image.Image:
        return image.transform((width, height), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)

    shear = sign * strength * 0.3 / 10
    operations = {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "posterize": lambda: ImageOps.posterize(image, 4 - whole(4)),
        "solarize": lambda: ImageOps.solarize(image, 256 - whole(256)),
        "rotate": lambda: image.rotate(sign * whole(30), resample=Image.Resampling.BILINEAR),
        "shear_x": lambda: moved(1, shear, 0, 0, 1, 0),
        "shear_y": lambda: moved(1, 0, 0, shear, 1, 0),
        "translate_x": lambda: moved(1, 0, sign * whole(width / 3), 0, 1, 0),
        "translate_y": lambda: moved(1, 0, 0, 0, 1, sign * whole(height / 3)),
    }
    return np.asarray(operations[name]())


def noise(height: int, width: int, *, seed: int) -> Tensor:
    """Images of different range and offset, among them one that is constant and one of two levels."""
    rng = generator(seed)
    span, offset = (torch.rand(COUNT, 1, 1, generator=rng) for _ in range(2))
    images_MHW = 255 * (span * torch.rand(COUNT, height, width, generator=rng) + (1 - span) * offset)
    images_MHW[0], images_MHW[1], images_MHW[1, 0] = 77, 200, 30
    return images_MHW.to(torch.uint8)


def levels(*, seed: int) -> Tensor:
    return 9.999 * (2 * torch.rand(COUNT, generator=generator(seed), dtype=torch.float64) - 1)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (80, 80), (24, 40)])
def test_an_operation_equals_pillows_to_the_byte(name: str, height: int, width: int) -> None:
    images_MHW, level_M = noise(height, width, seed=1), levels(seed=2)
    ours_MHW = operate(images_MHW, torch.full((COUNT,), OPERATIONS.index(name)), level_M)
    for ours, pixels, level in zip(ours_MHW, images_MHW, level_M.tolist(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), by_pillow(name, pixels.numpy(), level))


def test_images_of_one_call_each_get_their_own_operation() -> None:
    images_MHW, level_M = noise(32, 32, seed=3), levels(seed=4)
    operation_M = torch.arange(COUNT) % len(OPERATIONS)
    together_MHW = operate(images_MHW, operation_M, level_M)
    alone_MHW = torch.cat([operate(images_MHW[[m]], operation_M[[m]], level_M[[m]]) for m in range(COUNT)])
    assert torch.equal(together_MHW, alone_MHW)
    for ours, pixels, operation, level in zip(together_MHW, images_MHW, operation_M, level_M.tolist(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), by_pillow(OPERATIONS[operation], pixels.numpy(), level))


def test_an_operation_leaves_its_input_as_it_is() -> None:
    images_MHW = noise(16, 16, seed=5)
    before_MHW = images_MHW.clone()
    operate(images_MHW, torch.arange(COUNT) % len(OPERATIONS), levels(seed=6))
    assert torch.equal(images_MHW, before_MHW)


@pytest.mark.parametrize("name", ["posterize", "solarize", "rotate", "translate_x", "translate_y"])
def test_the_highest_level_is_still_defined(name: str) -> None:
    images_MHW = noise(32, 32, seed=7)
    highest_M = torch.tensor([10.0, -10.0]).repeat(COUNT // 2)
    found_MHW = operate(images_MHW, torch.full((COUNT,), OPERATIONS.index(name)), highest_M)
    assert (found_MHW.dtype, found_MHW.shape) == (images_MHW.dtype, images_MHW.shape)
    assert not torch.equal(found_MHW, images_MHW)
