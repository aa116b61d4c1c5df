"""The picture of a score against the proportion of synthetic images, a line for each generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlflow_tracking.sheets import INK

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#000000", "#7f7f7f")
"""Okabe and Ito's colours, told apart by colour-blind readers; the yellow is darker, to be seen on white."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SPREAD = 0.03
"""How far apart the intervals of two generators stand at one ratio, so that none hides another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreAtRatio:
    """A score with its interval.

    Args:
        ratio: synthetic images per real one; 0: none.
        score: of all out-of-fold predictions.
        low: lower end of its interval; None where it has none.
        high: upper end.
    """

    ratio: float
    score: float
    low: float | None
    high: float | None


def ratio_figure(
    lines: Mapping[str, Sequence[ScoreAtRatio]],
    baseline: ScoreAtRatio | None,
    *,
    score: str,
    title: str,
    path: Path,
) -> bool:
    """Draw a score against the proportion of synthetic images.

    Args:
        lines: for each generator its points, in the order of their ratios; one without points is left out.
        baseline: real images only, drawn as a band; None where it is not known yet.
        score: what the axis says.
        title: stands above; may have several lines.
        path: the PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    shown = {name: points for name, points in lines.items() if points}
    if not shown:
        return False
    height = 5.0 + 0.22 * title.count("\n")
    figure = Figure(figsize=(10, height), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left", color=INK, linespacing=1.4, parse_math=False)
    if baseline is not None:
        _draw_baseline(axes, baseline)
    for index, (name, points) in enumerate(shown.items()):
        _draw_line(axes, name, points, index=index, shift=_SPREAD * (index - (len(shown) - 1) / 2))
    ratios = sorted({point.ratio for points in shown.values() for point in points})
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axes.set_xlabel("synthetic images per real training image", fontsize=9, color=INK)
    axes.set_ylabel(score, fontsize=9, color=INK, parse_math=False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", linewidth=0.4, alpha=0.5)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), labelspacing=0.8)
    figure.savefig(path)
    return True


def _draw_baseline(axes: Axes, baseline: ScoreAtRatio) -> None:
    """A line across, within the band of its interval, below everything else."""
    axes.axhline(baseline.score, color="#7f7f7f", linewidth=1.2, linestyle="--", label="real images only", zorder=1)
    if baseline.low is not None and baseline.high is not None:
        axes.axhspan(baseline.low, baseline.high, color="#d9d9d9", alpha=0.5, linewidth=0, zorder=0)


def _draw_line(axes: Axes, name: str, points: Sequence[ScoreAtRatio], *, index: int, shift: float) -> None:
    colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
    ratios = [point.ratio + shift for point in points]
    scores = [point.score for point in points]
    axes.plot(ratios, scores, color=colour, marker=marker, markersize=5, linewidth=1.4, label=name, zorder=3)
    for ratio, point in zip(ratios, points, strict=True):
        if point.low is not None and point.high is not None:
            axes.plot([ratio, ratio], [point.low, point.high], color=colour, linewidth=1.1, alpha=0.7, zorder=2)
