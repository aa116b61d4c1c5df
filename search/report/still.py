"""Charts for paper, for readers without scripts and for other programs: PNG pictures, drawn by matplotlib."""

from __future__ import annotations

import io
import warnings

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from mlflow_tracking.sheets import INK
from search.report.charts import Axis, Bars, Cells, Chart, Marks, Ribbon, Words

_WIDTH = 5.2
"""Inches: a phone shows text of ten points in a picture of this width nearly as large."""
_PIXELS_PER_INCH = 82
_DPI = 170
_SYMBOLS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "x": "x"}
_LIGHT = 0.55
"""Brightness of a cell from which text in it is black."""


def png(charts: tuple[Chart, ...]) -> bytes:
    """Draw charts below each other; at least one. Returns a PNG file's content."""
    heights = [chart.height / _PIXELS_PER_INCH + 0.25 * bool(chart.heading) for chart in charts]
    figure = Drawing(figsize=(_WIDTH, sum(heights)), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(charts), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, chart in zip(rows, charts, strict=True):
        _draw(axes, chart)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a class may be named in any script
        figure.savefig(file, format="png")
    return file.getvalue()


def _plain(text: str) -> str:
    """Text as it stands: names may hold dollar signs."""
    return text.replace("$", r"\$")


def _draw(axes: Axes, chart: Chart) -> None:
    for level, item in enumerate(chart.items, start=2):
        if isinstance(item, Marks):
            _draw_marks(axes, item, level)
        elif isinstance(item, Ribbon):
            axes.fill_between(
                item.x, item.low, item.high, color=item.colour, alpha=0.18, linewidth=0, label=_plain(item.label)
            )
        elif isinstance(item, Bars):
            _draw_bars(axes, item, level)
        elif isinstance(item, Words):
            for x, y, text in zip(item.x, item.y, item.texts, strict=True):
                axes.text(x, y, _plain(text), ha="center", va="center", fontsize=7.5, color=INK, zorder=level)
        else:
            _draw_cells(axes, item)
    _set_axis(axes, "x", chart.x)
    _set_axis(axes, "y", chart.y)
    axes.tick_params(labelsize=8.5, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    shown = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True) if label}
    above = 0.0
    if shown:
        legend = axes.legend(
            shown.values(), shown, fontsize=8.5, frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2,
            columnspacing=1.2, handlelength=1.6, borderaxespad=0.2,
        )  # fmt: skip
        legend.set_in_layout(True)
        above = 0.22 * -(-len(shown) // 2)
    if chart.heading:
        axes.set_title(_plain(chart.heading), fontsize=10, loc="left", color=INK, pad=6 + 72 * above)


def _set_axis(axes: Axes, side: str, axis: Axis) -> None:
    own = axes.xaxis if side == "x" else axes.yaxis
    own.set_label_text(_plain(axis.label), fontsize=9.5, color=INK)
    if axis.ticks is not None:
        own.set_ticks([place for place, _ in axis.ticks], [_plain(text) for _, text in axis.ticks])
    else:
        own.set_major_locator(MaxNLocator(6))
    if axis.grid:
        own.grid(True, linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)
    set_limits = axes.set_xlim if side == "x" else axes.set_ylim
    if axis.low is not None or axis.high is not None:
        set_limits(axis.low, axis.high)
    if axis.reversed:
        own.set_inverted(True)


def _draw_marks(axes: Axes, item: Marks, level: int) -> None:
    open_ = item.symbol is not None and item.symbol.endswith("-open")
    marker = _SYMBOLS[item.symbol.removesuffix("-open")] if item.symbol else None
    line = "none" if item.style == "none" else "--" if item.dashed else "-"
    y = [np.nan if value is None else value for value in item.y]
    axes.plot(
        item.x,
        y,
        color=item.colour,
        marker=marker,
        markersize=0.75 * item.size,
        markerfacecolor="none" if open_ else item.colour,
        linestyle=line,
        linewidth=0.75 * item.width,
        drawstyle="steps-post" if item.style == "steps" else "default",
        label=_plain(item.label),
        zorder=level,
    )
    known = [(across, up, ends) for across, up, ends in zip(item.x, y, item.ends, strict=False) if ends is not None]
    if known:
        at = [across if item.along == "y" else up for across, up, _ in known]
        draw = axes.vlines if item.along == "y" else axes.hlines
        lows, highs = [ends[0] for _, _, ends in known], [ends[1] for _, _, ends in known]
        draw(at, lows, highs, colors=item.colour, linewidth=1.0, zorder=level - 0.5)


def _draw_bars(axes: Axes, item: Bars, level: int) -> None:
    half = item.height / 2
    corners = [
        [(start, y - half), (end, y - half), (end, y + half), (start, y + half)]
        for y, start, end in zip(item.y, item.start, item.end, strict=True)
    ]
    axes.add_collection(
        PolyCollection(corners, facecolors=item.colour, label=_plain(item.label), zorder=level), autolim=True
    )
    axes.autoscale_view()


def _draw_cells(axes: Axes, item: Cells) -> None:
    values = np.array([[np.nan if value is None else value for value in row] for row in item.values])
    shown = np.ma.masked_invalid(values)
    rows, columns = values.shape
    edges_x, edges_y = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    mesh = axes.pcolormesh(
        edges_x, edges_y, shown, cmap="cividis", vmin=item.low, vmax=item.high, edgecolor="white", linewidth=1.5
    )
    for row in range(rows):
        for column in range(columns):
            _write_in_cell(axes, item, row, column)
    bar = axes.figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.03)
    bar.set_label(_plain(item.meaning), fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)


def _write_in_cell(axes: Axes, item: Cells, row: int, column: int) -> None:
    value = item.values[row][column]
    text = item.texts[row][column]
    if not text:
        return
    part = 0.0 if value is None else (value - item.low) / max(1e-12, item.high - item.low)
    red, green, blue, _ = colormaps["cividis"](float(np.clip(part, 0, 1)))
    is_light = value is None or 0.3 * red + 0.59 * green + 0.11 * blue > _LIGHT
    axes.text(column, row, _plain(text), ha="center", va="center", fontsize=8, color="black" if is_light else "white")
