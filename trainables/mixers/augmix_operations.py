"""AugMix's nine operations on 8-bit grey images, all images at once (Hendrycks et al. 2020, appendix C).

Each equals what the authors' code computes with Pillow, to the byte: point operations are tables over the 256 grey
levels, geometric ones an affine map with bilinear interpolation whose outside is black. Contrast, colour, brightness
and sharpness are not among them: they overlap with the corruptions that the paper tests on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

POINT_OPERATIONS = ("autocontrast", "equalize", "posterize", "solarize")
GEOMETRIC_OPERATIONS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = POINT_OPERATIONS + GEOMETRIC_OPERATIONS

LEVELS = 256
MAX_LEVEL = 10
MAX_DEGREES = 30
MAX_SHEAR = 0.3
MAX_POSTERIZED_BITS = 4


def operate(images_MHW: Tensor, operation_M: Tensor, level_M: Tensor) -> Tensor:
    """Apply to each image its own operation.

    Args:
        images_MHW: uint8, 0 is black; on any device, the others on the same.
        operation_M: int64 positions in ``OPERATIONS``.
        level_M: float64 in [-10, 10], how strong; the sign is the direction of geometric operations, and no other
            operation's. A level of 10 is a rotation by 30 degrees, a shear by 0.3, a shift by a third of the side;
            posterising to 0 of 4 further bits (at least 1 is kept), solarising everything.

    Returns:
        uint8 of the same shape.

    Source: augmentations.py of the authors' code.
    """
    result_MHW = images_MHW.clone()
    for names, operation in _ALIKE.items():
        position_B = torch.isin(operation_M, _positions(*names).to(operation_M.device)).nonzero().flatten()
        if len(position_B):
            result_MHW[position_B] = operation(images_MHW[position_B], operation_M[position_B], level_M[position_B])
    return result_MHW


def _positions(*names: str) -> Tensor:
    return torch.tensor([OPERATIONS.index(name) for name in names])


def _point(images_MHW: Tensor, operation_M: Tensor, level_M: Tensor) -> Tensor:
    """Look every pixel up in the table of its image's operation."""
    pixels_MP = images_MHW.flatten(1).long()
    strength_M = level_M.abs()
    histogram_ML = pixels_MP.new_zeros(len(images_MHW), LEVELS)
    histogram_ML.scatter_add_(1, pixels_MP, torch.ones_like(pixels_MP))
    tables_4ML = torch.stack(
        [
            autocontrast_table(histogram_ML),
            equalize_table(histogram_ML),
            posterize_table(strength_M),
            solarize_table(strength_M),
        ]
    )
    table_ML = tables_4ML[operation_M, torch.arange(len(operation_M), device=operation_M.device)]
    return table_ML.gather(1, pixels_MP).to(torch.uint8).reshape(images_MHW.shape)


def autocontrast_table(histogram_ML: Tensor) -> Tensor:
    """Stretch an image's grey levels to 0 to 255; an image of one level stays. int64 (M, 256) from int64 (M, 256)."""
    present_ML = (histogram_ML > 0).long()
    low_M1 = present_ML.argmax(dim=1, keepdim=True).double()
    high_M1 = (LEVELS - 1 - present_ML.flip(1).argmax(dim=1, keepdim=True)).double()
    scale_M1 = torch.full_like(low_M1, 255).div((high_M1 - low_M1).clamp(min=1))  # 255 / x would round twice
    level_L = torch.arange(LEVELS, dtype=torch.float64, device=histogram_ML.device)
    stretched_ML = (level_L * scale_M1 + -low_M1 * scale_M1).trunc().clamp(0, 255)
    return torch.where(high_M1 > low_M1, stretched_ML, level_L).long()


def equalize_table(histogram_ML: Tensor) -> Tensor:
    """Equalise an image's histogram; one too small or of one level stays. int64 (M, 256) from int64 (M, 256)."""
    total_M1 = histogram_ML.sum(dim=1, keepdim=True)
    high_M1 = LEVELS - 1 - (histogram_ML > 0).long().flip(1).argmax(dim=1, keepdim=True)
    step_M1 = (total_M1 - histogram_ML.gather(1, high_M1)) // 255
    below_ML = histogram_ML.cumsum(dim=1) - histogram_ML
    equal_ML = ((step_M1 // 2 + below_ML) // step_M1.clamp(min=1)).clamp(max=255)
    return torch.where(step_M1 > 0, equal_ML, torch.arange(LEVELS, device=histogram_ML.device))


def posterize_table(strength_M: Tensor) -> Tensor:
    """Keep the highest 4 - int(4 strength / 10) bits, at least 1. int64 (M, 256) from float64 (M,) in [0, 10]."""
    bits_M = (MAX_POSTERIZED_BITS - (strength_M * MAX_POSTERIZED_BITS / MAX_LEVEL).long()).clamp(min=1)
    return torch.arange(LEVELS, device=strength_M.device) & -(1 << (8 - bits_M))[:, None]


def solarize_table(strength_M: Tensor) -> Tensor:
    """Invert levels from 256 - int(256 strength / 10) on. int64 (M, 256) from float64 (M,) in [0, 10]."""
    threshold_M1 = LEVELS - (strength_M * LEVELS / MAX_LEVEL).long()[:, None]
    level_L = torch.arange(LEVELS, device=strength_M.device)
    return torch.where(level_L < threshold_M1, level_L, 255 - level_L)


def _rotate(images_MHW: Tensor, operation_M: Tensor, level_M: Tensor) -> Tensor:
    degrees_M = (level_M * MAX_DEGREES / MAX_LEVEL).long()
    matrices = rotation_matrices(*images_MHW.shape[1:]).to(level_M.device)
    return warp_bytes(images_MHW, matrices[degrees_M + MAX_DEGREES])


def _move_rows(images_MHW: Tensor, operation_M: Tensor, level_M: Tensor) -> Tensor:
    """Move all rows by the same distance, or each by one that grows from row to row."""
    height, width = images_MHW.shape[1:]
    y_H = torch.arange(height, dtype=torch.float64, device=level_M.device) + 0.5
    sheared_MH = (level_M * MAX_SHEAR / MAX_LEVEL)[:, None] * y_H
    translated_M1 = (level_M * (width / 3) / MAX_LEVEL).trunc()[:, None]
    sheared_M1 = torch.isin(operation_M, _positions("shear_x", "shear_y").to(operation_M.device))[:, None]
    return shift_rows(images_MHW, torch.where(sheared_M1, sheared_MH, translated_M1))


def _move_columns(images_MHW: Tensor, operation_M: Tensor, level_M: Tensor) -> Tensor:
    return _move_rows(images_MHW.transpose(1, 2), operation_M, level_M).transpose(1, 2)


def rotation_matrices(height: int, width: int) -> Tensor:
    """Rotations about the centre by -30, -29, ..., 30 degrees counterclockwise: float64 (61, 6), output to input."""
    rows = []
    for degrees in range(-MAX_DEGREES, MAX_DEGREES + 1):
        angle = -math.radians(degrees % 360)
        cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
        x, y = width / 2, height / 2
        rows.append([cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y])
    return torch.tensor(rows, dtype=torch.float64)


def warp_bytes(images_MHW: Tensor, matrix_M6: Tensor) -> Tensor:
    """Transform each image by its own affine matrix, bilinear, black outside.

    Args:
        images_MHW: uint8.
        matrix_M6: float64 (a, b, c, d, e, f): the pixel centre (x, y) shows what the image has at
            (a x + b y + c, d x + e y + f), in pixels from the upper left corner.

    Returns:
        uint8 of the same shape; values are rounded down.

    Source: Pillow's ``Image.transform`` with ``AFFINE`` and ``BILINEAR``.
    """
    height, width = images_MHW.shape[1:]
    x_1W = torch.arange(width, dtype=torch.float64, device=matrix_M6.device) + 0.5
    y_H1 = torch.arange(height, dtype=torch.float64, device=matrix_M6.device)[:, None] + 0.5
    a, b, c, d, e, f = matrix_M6.T[:, :, None, None].unbind()
    x_MHW, y_MHW = a * x_1W + b * y_H1 + c, d * x_1W + e * y_H1 + f
    outside_MHW = (x_MHW < 0) | (x_MHW >= width) | (y_MHW < 0) | (y_MHW >= height)
    left_MHW, top_MHW = (x_MHW - 0.5).floor(), (y_MHW - 0.5).floor()
    right_share_MHW, lower_share_MHW = x_MHW - 0.5 - left_MHW, y_MHW - 0.5 - top_MHW
    pixels_MP = images_MHW.flatten(1)

    def at(row_MHW: Tensor, column_MHW: Tensor) -> Tensor:
        position_MHW = row_MHW.clamp(0, height - 1) * width + column_MHW.clamp(0, width - 1)
        return pixels_MP.gather(1, position_MHW.long().flatten(1)).double().view_as(x_MHW)

    def across(row_MHW: Tensor) -> Tensor:
        left, right = at(row_MHW, left_MHW), at(row_MHW, left_MHW + 1)
        return left + (right - left) * right_share_MHW  # lerp rounds otherwise than Pillow does

    upper_MHW, lower_MHW = across(top_MHW), across(top_MHW + 1)
    value_MHW = upper_MHW + (lower_MHW - upper_MHW) * lower_share_MHW
    return value_MHW.masked_fill(outside_MHW, 0).to(torch.uint8)


def shift_rows(images_MHW: Tensor, shift_MH: Tensor) -> Tensor:
    """Move each row by its own distance, linear, black outside: what ``warp_bytes`` gives, in a third of its work.

    Args:
        images_MHW: uint8.
        shift_MH: float64, in pixels: at x, a row shows what the image's has at x + shift.

    Returns:
        uint8 of the same shape; values are rounded down.
    """
    width = images_MHW.shape[2]
    x_MHW = torch.arange(width, dtype=torch.float64, device=shift_MH.device) + 0.5 + shift_MH[:, :, None]
    outside_MHW = (x_MHW < 0) | (x_MHW >= width)
    place_MHW = x_MHW - 0.5
    left_MHW = place_MHW.floor()
    share_MHW, column_MHW = place_MHW - left_MHW, left_MHW.long()
    left, right = (images_MHW.gather(2, (column_MHW + next_).clamp_(0, width - 1)).double() for next_ in (0, 1))
    value_MHW = left + (right - left) * share_MHW
    return value_MHW.masked_fill_(outside_MHW, 0).to(torch.uint8)


_ALIKE: Mapping[tuple[str, ...], Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        POINT_OPERATIONS: _point,
        ("rotate",): _rotate,
        ("shear_x", "translate_x"): _move_rows,
        ("shear_y", "translate_y"): _move_columns,
    }
)
"""Operations that one function computes of all images at once."""
