"""The picture of several objectives against each other, with the trials that no other beats in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlflow_tracking.sheets import INK

_FRONT, _OTHER = "#d55e00", "#9a9a9a"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoPoint:
    """A completed trial: its id, its values in the order of the objectives, and whether it is on the front."""

    trial: str
    values: tuple[float, ...]
    on_front: bool


def pareto_figure(points: Sequence[ParetoPoint], names: Sequence[str], *, title: str, path: Path) -> bool:
    """Draw every further objective against the first, a panel each.

    Args:
        points: completed trials.
        names: of the objectives, with the direction that is better, at least two.
        title: stands above; may have several lines.
        path: the PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    if not points:
        return False
    panels = len(names) - 1
    figure = Figure(figsize=(1 + 5.5 * panels, 5.0), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", color=INK, linespacing=1.4, parse_math=False)
    for index, axes in enumerate(figure.subplots(1, panels, squeeze=False)[0], start=1):
        _draw(axes, points, index)
        axes.set_xlabel(names[index], fontsize=9, color=INK, parse_math=False)
        axes.set_ylabel(names[0], fontsize=9, color=INK, parse_math=False)
    figure.savefig(path)
    return True


def _draw(axes: Axes, points: Sequence[ParetoPoint], index: int) -> None:
    for on_front, colour, label in ((False, _OTHER, "other trials"), (True, _FRONT, "Pareto front")):
        chosen = [point for point in points if point.on_front == on_front]
        across, up = [point.values[index] for point in chosen], [point.values[0] for point in chosen]
        axes.scatter(across, up, s=28, color=colour, label=label, zorder=2 + on_front)
        for point in chosen if on_front else ():
            at = (point.values[index], point.values[0])
            axes.annotate(point.trial, at, xytext=(5, 4), textcoords="offset points", fontsize=8, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.margins(0.12)
    axes.legend(fontsize=8, frameon=False)
