"""The picture of a feature map: how a classifier sees real, synthetic and mixed training images (GenMix, figure 4)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mlflow_tracking.sheets import INK, fitted
from trainables.feature_map import KINDS, FeatureMap

Plane: TypeAlias = NDArray[np.float32]
"""Positions (M, 2)."""

FEWEST = 6
"""Images below which there is nothing to see."""
_PERPLEXITY = 30.0
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222")
"""Told apart by readers of every colour vision (Okabe & Ito)."""
_FADED = "#dddddd"
_LEGEND = 190
"""Pixels for a class's name."""
_CAPTION = 0.86
"""Inches below the map."""


def perplexity(count: int) -> float:
    """The perplexity that fits so many points: 30, less where that is more than a third of them."""
    return min(_PERPLEXITY, (count - 1) / 3)


def plane(points_MC: NDArray[np.float32]) -> Plane:
    """Lay points out in the plane by t-SNE, from their first two principal components; the same every time.

    Args:
        points_MC: at least ``FEWEST`` points of at least two coordinates, not all the same.

    Source: van der Maaten & Hinton 2008; initialised as Kobak & Berens 2019 advise.
    """
    from sklearn.manifold import TSNE  # takes seconds to import
    from threadpoolctl import threadpool_limits

    settings = TSNE(2, perplexity=perplexity(len(points_MC)), init="pca", random_state=0)
    with threadpool_limits(1):  # the trials need the other cores, and sums of several threads differ in their last bits
        found: Plane = settings.fit_transform(points_MC)
    return found


def feature_figure(found: FeatureMap, title: str, path: Path) -> bool:
    """Draw a feature map: all kinds of images together, and each kind before the others.

    Args:
        found: the map.
        title: stands above; may have several lines.
        path: the PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    points_MC = found.points_MC.numpy()
    if len(points_MC) < FEWEST or points_MC.shape[1] < 2 or not float(points_MC.std()):
        return False
    at_M2 = plane(points_MC)
    kind_M = found.kind_M.numpy()
    colours = class_colours(len(found.classes))
    colour_M = np.array(colours)[found.label_M.numpy()]
    kinds = [index for index in range(len(KINDS)) if (kind_M == index).any()]
    page = _Page(title, legend_at=8.45 if len(kinds) > 1 else 6.3)
    large = page.axes(0.15, 0, 6.05, at_M2)
    for kind in reversed(kinds):
        _scatter(large, at_M2, kind_M == kind, KINDS[kind], colour_M, size=1.0)
    for row, kind in enumerate(kinds if len(kinds) > 1 else []):
        small = page.axes(6.35, 2.05 * (2 - row), 1.95, at_M2)
        small.plot(*at_M2[kind_M != kind].T, "o", color=_FADED, markersize=2, markeredgewidth=0)
        _scatter(small, at_M2, kind_M == kind, KINDS[kind], colour_M, size=0.6)
        small.text(0.03, 0.97, f"{KINDS[kind]} only", transform=small.transAxes, va="top", fontsize=8, color=INK)
    page.legend(found.classes, colours, [KINDS[kind] for kind in kinds])
    page.caption(_caption(found))
    page.figure.savefig(path)
    return True


def class_colours(count: int) -> list[str]:
    """A colour for each class; of more than seven, neighbouring ones look alike."""
    if count <= len(_COLOURS):
        return list(_COLOURS[:count])
    return [to_hex(colormaps["viridis"](index / count)) for index in range(count)]


def _marker(kind: str, size: float) -> dict[str, Any]:
    """Dots, triangles and open circles, as in the paper."""
    if kind == "mixed":
        return {"marker": "o", "markersize": 7.5 * size, "markerfacecolor": "none", "markeredgewidth": 1.1}
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
    return {
        "marker": "^" if kind == "synthetic" else "o",
        "markersize": (7 if kind == "synthetic" else 5) * size,
        **edge,
    }


def _scatter(
    axes: Axes, at_M2: Plane, chosen_M: NDArray[np.bool_], kind: str, colour_M: NDArray[np.str_], *, size: float
) -> None:
    for colour in np.unique(colour_M[chosen_M]):
        here_N2 = at_M2[chosen_M & (colour_M == colour)]
        axes.plot(*here_N2.T, linestyle="none", color=str(colour), **_marker(kind, size))


class _Page:
    """The figure that a map is drawn on; places are in inches.

    Args:
        title: stands above.
        legend_at: where the legend begins, from the left.
    """

    def __init__(self, title: str, *, legend_at: float) -> None:
        self._legend_at = legend_at
        self._width, self._height = legend_at + 2.7, 0.24 * (title.count("\n") + 1) + 7.15
        self.figure = Figure(figsize=(self._width, self._height), dpi=120, facecolor="white")
        FigureCanvasAgg(self.figure)
        self._write(title, self._height - 0.1, points=10)

    def _write(self, text: str, top: float, *, points: float) -> None:
        place = 0.15 / self._width, top / self._height
        self.figure.text(*place, text, va="top", fontsize=points, color=INK, linespacing=1.4, parse_math=False)

    def axes(self, left: float, bottom: float, side: float, at_M2: Plane) -> Axes:
        """A square without numbers that holds all points; one unit is as long across as up."""
        bottom += _CAPTION
        place = left / self._width, bottom / self._height, side / self._width, side / self._height
        axes = self.figure.add_axes(place)
        low_2, high_2 = at_M2.min(axis=0), at_M2.max(axis=0)
        middle_2, half = (low_2 + high_2) / 2, 0.53 * float((high_2 - low_2).max())
        axes.set(xlim=(middle_2[0] - half, middle_2[0] + half), ylim=(middle_2[1] - half, middle_2[1] + half))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color("#999999")
        return axes

    def legend(self, classes: Sequence[str], colours: Sequence[str], kinds: Sequence[str]) -> None:
        """Say what markers and colours mean."""
        names = [fitted(name, _LEGEND, points=9) for name in classes]
        of_class = [Line2D([], [], color=colour, marker="s", linestyle="none", markersize=8) for colour in colours]
        of_kind = [Line2D([], [], color=INK, linestyle="none", **_marker(kind, 1.0)) for kind in kinds]
        top = _CAPTION + 6.05
        for heading, handles, labels in (("kind", of_kind, kinds), ("class", of_class, names)):
            legend = self.figure.legend(
                handles,
                labels,
                title=heading,
                loc="upper left",
                bbox_to_anchor=(self._legend_at / self._width, top / self._height),
                frameon=False,
                fontsize=9,
                title_fontsize=9,
                alignment="left",
            )
            for text in legend.get_texts():
                text.set_parse_math(False)
            top -= 0.3 + 0.2 * (len(labels) + 1)

    def caption(self, text: str) -> None:
        """Write below everything."""
        self._write("\n".join(textwrap.wrap(text, round(14 * self._width))), _CAPTION - 0.12, points=8)


def _caption(found: FeatureMap) -> str:
    has_mixed = bool((found.kind_M == KINDS.index("mixed")).any())
    of_mixed = " A mixed image has the colour of the class that weighs most in its label." if has_mixed else ""
    return (
        f"t-SNE (perplexity {perplexity(len(found.kind_M)):.3g}) of what the classifier's last layer reads, "
        f"of {len(found.kind_M)} training images, augmented as in training.{of_mixed} Neighbours look alike to the "
        f"classifier; distances between clusters, their sizes and the two axes mean little."
    )
