"""Sheets that are laid out in pixels: images at whole multiples of their size, with text beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
"""Grey images, 0 black to 255 white."""

INK = "#222222"
ALARM = "#c0262d"
LINE = 17
"""Height of a line of text, in pixels."""
_DPI = 100


class Sheet:
    """A white sheet; positions are pixels from the top left corner.

    Args:
        width: in pixels.
        height: in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(self._figure)

    def write(
        self,
        text: str,
        x: int,
        y: int,
        *,
        across: Literal["left", "center", "right"] = "left",
        down: Literal["top", "center", "bottom"] = "top",
        points: float = 8,
        colour: str = INK,
    ) -> None:
        """Write text, of one or more lines, as it stands: names may hold dollar signs."""
        self._figure.text(
            x / self._width,
            1 - y / self._height,
            text,
            ha=across,
            va=down,
            fontsize=points,
            color=colour,
            linespacing=1.4,
            parse_math=False,
        )

    def place(self, image_HW: Bytes, x: int, y: int) -> None:
        """Put a grey image, its corner at (x, y), one pixel on one pixel of the sheet."""
        bottom = self._height - y - image_HW.shape[0]
        # In colour, as a grey scale of floats would be off by one here and there.
        self._figure.figimage(image_HW[..., None].repeat(3, axis=-1), x, bottom, origin="upper")

    def frame(self, x: int, y: int, width: int, height: int, *, colour: str) -> None:
        """Draw a frame around a rectangle."""
        corner = (x / self._width, 1 - (y + height) / self._height)
        frame = Rectangle(
            corner,
            width / self._width,
            height / self._height,
            transform=self._figure.transFigure,
            fill=False,
            edgecolor=colour,
            linewidth=2,
        )
        self._figure.add_artist(frame)

    def save(self, path: Path) -> None:
        """Write the PNG file."""
        self._figure.savefig(path)


def enlarged(images: Bytes, *, at_least: int) -> Bytes:
    """Images (..., P, P), each pixel repeated so often that a side is ``at_least`` pixels long."""
    times = -(-at_least // images.shape[-1])
    return images.repeat(times, axis=-2).repeat(times, axis=-1)


def written_width(text: str, *, points: float = 8) -> float:
    """How many pixels a line of text takes as it is drawn."""
    properties = FontProperties(size=points)
    width, _, _ = RendererAgg(1, 1, _DPI).get_text_width_height_descent(text, properties, ismath=False)
    return float(width)


def fitted(text: str, width: int, *, points: float = 8, keep_end: bool = False) -> str:
    """A line of text, cut with an ellipsis where it takes more than ``width`` pixels.

    Args:
        text: one line.
        width: pixels.
        points: the size it is written in.
        keep_end: leave out the beginning, as the end of a path says more.
    """
    shorter = text
    while len(shorter) > 1 and written_width(shorter, points=points) > width:
        kept = text[len(text) - len(shorter) + 2 :] if keep_end else text[: len(shorter) - 2]
        shorter = "…" + kept if keep_end else kept + "…"
    return shorter
