"""The sheet of a trial's images: real beside synthetic ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlflow_tracking.sheets import INK

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]

COLUMNS = 12
"""Images of a class in a sheet."""


def image_sheet(
    real_NCHW: Images,
    real_labels: Labels,
    synthetic_NCHW: Images | None,
    synthetic_labels: Labels | None,
    classes: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draw real and synthetic images, for each class a row of real ones above a row of synthetic ones.

    Args:
        real_NCHW: float32 images in [-1, 1], C = 1.
        real_labels: int64 class indices (N,).
        synthetic_NCHW: the same for synthetic images; None where the trial uses none.
        synthetic_labels: their class indices; None where there are none.
        classes: class names in the order of the indices.
        title: stands above the sheet; may have several lines.
        path: the PNG file to write.
    """
    rows = list(_rows(real_NCHW, real_labels, synthetic_NCHW, synthetic_labels, classes))
    lines = title.count("\n") + 1
    head = 0.24 * lines + 0.15
    height = head + 0.68 * len(rows) + 0.1
    figure = Figure(figsize=(10, height), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        0.012, 1 - 0.1 / height, title, va="top", ha="left", fontsize=10, color=INK, linespacing=1.4, parse_math=False
    )
    for index, (label, images_NHW) in enumerate(rows):
        bottom = 1 - (head + 0.68 * (index + 1) - 0.03) / height
        axes = figure.add_axes((0.2, bottom, 0.79, 0.62 / height))
        _strip(axes, images_NHW)
        middle = bottom + 0.31 / height
        figure.text(0.19, middle, label, va="center", ha="right", fontsize=8, color=INK, parse_math=False)
    figure.savefig(path)


def _rows(
    real_NCHW: Images,
    real_labels: Labels,
    synthetic_NCHW: Images | None,
    synthetic_labels: Labels | None,
    classes: Sequence[str],
) -> Iterator[tuple[str, Images]]:
    for index, name in enumerate(classes):
        short = name if len(name) <= 18 else name[:17] + "…"
        real = real_NCHW[real_labels == index, 0]
        yield f"{short}\nreal, {len(real)} in all", real[:COLUMNS]
        if synthetic_NCHW is not None and synthetic_labels is not None:
            synthetic = synthetic_NCHW[synthetic_labels == index, 0]
            yield f"{short}\nsynthetic", synthetic[:COLUMNS]


def _strip(axes: Axes, images_NHW: Images) -> None:
    """One row of images, left to right, on the grey scale from -1 (black) to 1 (white)."""
    axes.set_axis_off()
    if len(images_NHW) == 0:
        axes.text(0, 0.5, "no images", va="center", fontsize=8, color=INK, transform=axes.transAxes)
        return
    pixels = images_NHW.shape[1]
    gap = max(1, pixels // 16)
    strip = np.full((pixels, COLUMNS * (pixels + gap) - gap), np.nan, dtype=np.float32)
    for column, image_HW in enumerate(images_NHW):
        left = column * (pixels + gap)
        strip[:, left : left + pixels] = image_HW
    axes.imshow(np.ma.masked_invalid(strip), cmap="gray", vmin=-1, vmax=1, interpolation="nearest", aspect="equal")
    axes.set_anchor("W")
