"""Crop, resampling and intensity scaling of one image (paper 1, section 4.1), without PyTorch.

What a training fold teaches (``preprocess.fit_scaling``) is applied here, to images of cohorts and of new files alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainables.data.labels import Box
from trainables.data.readers import Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What preprocessing learnt from a training fold.

    Args:
        field_of_view: side of the square crop in millimetres; None where files have no spacing, and the largest
            central square is taken.
        low: intensity that becomes -1.
        high: intensity that becomes 1.

    Raises: ValueError unless the numbers are finite and low < high.
    """

    field_of_view: float | None
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"intensities run from {self.low} to {self.high}; expected finite numbers, low < high.")
        if self.field_of_view is not None and not (math.isfinite(self.field_of_view) and self.field_of_view > 0):
            raise ValueError(f"field_of_view is {self.field_of_view}; expected millimetres or None.")

    def to_dict(self) -> dict[str, float | None]:
        """As plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scaling:
        """The scaling whose ``to_dict`` this is."""
        view = data["field_of_view"]
        return cls(
            field_of_view=None if view is None else float(view), low=float(data["low"]), high=float(data["high"])
        )


class Framed(Protocol):
    """What decides which part of an image is kept: an entry of a cohort, or a ``Frame``."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""

    @property
    def spacing(self) -> tuple[float, float] | None:
        """(sy, sx) millimetres per pixel, or None."""

    @property
    def roi(self) -> Box | None:
        """Region of interest (x, y, w, h) in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """An image's size, spacing and region of interest, apart from any cohort."""

    shape: tuple[int, int]
    spacing: tuple[float, float] | None = None
    roi: Box | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle in continuous pixel coordinates: pixel i covers [i, i + 1); it may reach beyond the image."""

    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How one image is made what a classifier sees.

    Args:
        scaling: fitted on the classifier's training images.
        pixels: P, side of its images.
    """

    scaling: Scaling
    pixels: int

    def apply(self, pixels_HW: Pixels, frame: Framed) -> Pixels:
        """Crop, resample and scale an image as the training images were.

        Args:
            pixels_HW: float32, in the units of its file.
            frame: its size, spacing and region of interest.

        Returns:
            float32 (P, P) in [-1, 1].
        """
        part = window(frame, self.scaling.field_of_view)
        return scaled(resample(pixels_HW, part, self.pixels), self.scaling)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preparation:
        """The preparation whose ``to_dict`` this is."""
        return cls(scaling=Scaling.from_dict(data["scaling"]), pixels=int(data["pixels"]))


def scaled(images: Pixels, scaling: Scaling) -> Pixels:
    """Images of any shape from the units of their files to [-1, 1], clipped."""
    unit = np.asarray(images - np.float32(scaling.low))
    unit *= np.float32(2 / (scaling.high - scaling.low))
    unit -= np.float32(1)
    return np.clip(unit, -1, 1, out=unit)


def window(image: Framed, field_of_view: float | None) -> Window:
    """The part of an image that is kept.

    A region of interest is widened to a square around its centre. Otherwise the window is central: the field of
    view where there is one and the image has a spacing, else the largest square. Squares are meant physically where
    the image has a spacing; they may reach beyond the image, whose border pixels are then repeated.

    Args:
        image: its size, spacing and region of interest.
        field_of_view: side of the window in millimetres, or None.
    """
    spacing_y, spacing_x = image.spacing or (1.0, 1.0)
    height, width = image.shape
    centre_y, centre_x = height / 2, width / 2
    if image.roi is not None:
        x, y, box_width, box_height = image.roi
        centre_y, centre_x = y + box_height / 2, x + box_width / 2
        side = max(box_width * spacing_x, box_height * spacing_y)
    elif field_of_view is not None and image.spacing is not None:
        side = field_of_view
    else:
        side = min(height * spacing_y, width * spacing_x)
    window_height, window_width = side / spacing_y, side / spacing_x
    return Window(
        top=centre_y - window_height / 2,
        left=centre_x - window_width / 2,
        height=window_height,
        width=window_width,
    )


def resample(pixels_HW: Pixels, part: Window, pixels: int) -> Pixels:
    """Crop and resize in one interpolation, so that an image is blurred once.

    Args:
        pixels_HW: float32 of any size.
        part: what to keep; beyond the image, border pixels are repeated.
        pixels: P, side of the result.

    Returns:
        float32 (P, P).

    Source: separable triangle filter as wide as a result pixel, at least as a source pixel; the filter of
    ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``, for fractional windows.
    """
    rows_PW = _filter_first_axis(pixels_HW, *_taps(pixels_HW.shape[0], part.top, part.height, pixels))
    columns_PP = _filter_first_axis(rows_PW.T, *_taps(pixels_HW.shape[1], part.left, part.width, pixels))
    return np.ascontiguousarray(columns_PP.T, dtype=np.float32)


def _filter_first_axis(
    values_HW: NDArray[np.floating[Any]], sources_PT: NDArray[np.intp], weights_PT: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted sums over T source rows for each of P rows: float64 (P, W).

    A loop over taps rather than a matrix product: a triangle is mostly zeros, and the order of additions, hence every
    byte, is the same on every machine and with any number of threads.
    """
    sum_PW = np.zeros((len(sources_PT), values_HW.shape[1]))
    for sources_P, weights_P in zip(sources_PT.T, weights_PT.T, strict=True):
        sum_PW += weights_P[:, None] * values_HW[sources_P]
    return sum_PW


@lru_cache(maxsize=4096)
def _taps(size: int, start: float, length: float, pixels: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """T source pixels and weights for each of P result pixels; border pixels stand for what lies beyond them."""
    scale = length / pixels
    reach = max(scale, 1.0)
    centres_P = start + (np.arange(pixels) + 0.5) * scale
    sources_PT = np.floor(centres_P - reach)[:, None] + np.arange(math.ceil(2 * reach) + 1)
    weights_PT = np.maximum(0.0, 1 - np.abs(sources_PT + 0.5 - centres_P[:, None]) / reach)
    weights_PT /= weights_PT.sum(axis=1, keepdims=True)
    return np.clip(sources_PT, 0, size - 1).astype(np.intp), weights_PT
