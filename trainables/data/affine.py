"""Classical augmentation: flips, rotations, shifts and zooms, drawn anew for each image (DAE GAN, section 4.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

MAX_ROTATION_DEGREES = 20.0
MAX_SHIFT = 0.02
"""Largest shift along each axis, as a share of the image's side."""
MAX_ZOOM = 0.05
"""Largest magnification or reduction; the paper says "small"."""
PIXELS_AT_ONCE = 2**22
"""Pixels that are transformed together; bounds the memory and changes no number."""


def draw_thetas(count: int, *, rng: torch.Generator) -> Tensor:
    """Draw one transformation per image.

    Each is a horizontal and a vertical flip (probability 1/2 each), a rotation by a multiple of 90 degrees
    (uniform over four) plus U(-20, 20) degrees, a shift of U(-2 %, 2 %) along each axis and a zoom of U(.95, 1.05).

    Args:
        count: how many.
        rng: CPU generator.

    Returns:
        float32 (count, 2, 3): the matrices of ``torch.nn.functional.affine_grid``, output to input coordinates.

    Source: DAE GAN, section 4.1; the amount of zoom is this project's.
    """
    uniform_7N = torch.rand(count, 7, generator=rng, dtype=torch.float64).T
    flip_x_N, flip_y_N = 1 - 2 * (uniform_7N[0:2] < 0.5).double()
    degrees_N = 90 * torch.floor(4 * uniform_7N[2]) + MAX_ROTATION_DEGREES * (2 * uniform_7N[3] - 1)
    shift_2N = 2 * MAX_SHIFT * (2 * uniform_7N[4:6] - 1)  # normalised coordinates: the side is 2 long
    scale_N = 1 / (1 + MAX_ZOOM * (2 * uniform_7N[6] - 1))
    angle_N = degrees_N * (math.pi / 180)
    cosine_N, sine_N = scale_N * torch.cos(angle_N), scale_N * torch.sin(angle_N)
    row_x_N3 = torch.stack([flip_x_N * cosine_N, -flip_y_N * sine_N, shift_2N[0]], dim=1)
    row_y_N3 = torch.stack([flip_x_N * sine_N, flip_y_N * cosine_N, shift_2N[1]], dim=1)
    return torch.stack([row_x_N3, row_y_N3], dim=1).float()


def warp(images_NCHW: Tensor, theta_N23: Tensor) -> Tensor:
    """Transform each image by its own matrix, bilinear, borders reflected.

    Args:
        images_NCHW: float32 in [-1, 1], on any device.
        theta_N23: float32 matrices, output to input coordinates, as ``draw_thetas`` returns them.

    Returns:
        Images of the same shape and range, on the same device.
    """
    at_once = max(1, PIXELS_AT_ONCE // max(1, images_NCHW[:1].numel()))
    parts = zip(torch.split(images_NCHW, at_once), torch.split(theta_N23.to(images_NCHW), at_once), strict=True)
    return torch.cat([_warp(part_BCHW, theta_B23) for part_BCHW, theta_B23 in parts])


def _warp(images_NCHW: Tensor, theta_N23: Tensor) -> Tensor:
    grid_NHW2 = sampling_grid(theta_N23, *images_NCHW.shape[2:])
    warped_NCHW = grid_sample(images_NCHW, grid_NHW2, mode="bilinear", padding_mode="reflection", align_corners=False)
    return warped_NCHW.clamp(-1, 1)


def sampling_grid(theta_N23: Tensor, height: int, width: int) -> Tensor:
    """Where each output pixel looks in its input, in coordinates from -1 to 1 over the image's sides.

    ``torch.nn.functional.affine_grid`` to the bit, in a third of its time: that multiplies a matrix of all pixels'
    coordinates for each image, this adds a row's and a column's share. The coordinates do not depend on the device.

    Args:
        theta_N23: matrices, output to input coordinates.
        height: rows of an image.
        width: columns of an image.

    Returns:
        (N, height, width, 2): the column, then the row.
    """
    x_W, y_H = (_centres(size).to(theta_N23) for size in (width, height))
    grid_NHW2 = theta_N23.new_empty(len(theta_N23), height, width, 2)
    for axis, row_N3 in enumerate(theta_N23.unbind(1)):
        across_N1W, down_NH1 = row_N3[:, 0, None, None] * x_W, row_N3[:, 1, None, None] * y_H[:, None]
        torch.add(across_N1W, down_NH1, out=grid_NHW2[..., axis])
    return grid_NHW2.add_(theta_N23[:, None, None, :, 2])


def _centres(size: int) -> Tensor:
    """The pixels' centres along a side from -1 to 1, drawn up on the CPU so that they are the same everywhere."""
    return torch.linspace(-1, 1, size) * (size - 1) / size


def affine(images_NCHW: Tensor, rng: torch.Generator) -> Tensor:
    """Transform each image at random; an ``Augment``."""
    return warp(images_NCHW, draw_thetas(len(images_NCHW), rng=rng))


def identity(images_NCHW: Tensor, rng: torch.Generator) -> Tensor:
    """Leave the images as they are and draw nothing; an ``Augment``."""
    return images_NCHW
