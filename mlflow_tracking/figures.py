"""Pictures of a trial: real beside synthetic images, and how a generator's training went."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from trainables.generators.evolution import MUTATIONS

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]
Curve: TypeAlias = NDArray[np.float64]
Lines: TypeAlias = list[tuple[str, str, Curve]]
"""Label, colour and values of each line of a panel."""
History: TypeAlias = Mapping[str, Sequence[float] | Sequence[Sequence[float]]]

COLUMNS = 12
"""Images of a class in a sheet."""
POINTS = 400
"""Points that a curve is thinned to, by means over equal stretches."""
_INK = "#222222"
_COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0")


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
    figure.text(0.012, 1 - 0.1 / height, title, va="top", ha="left", fontsize=10, color=_INK, linespacing=1.4)
    for index, (label, images_NHW) in enumerate(rows):
        bottom = 1 - (head + 0.68 * (index + 1) - 0.03) / height
        axes = figure.add_axes((0.2, bottom, 0.79, 0.62 / height))
        _strip(axes, images_NHW)
        middle = bottom + 0.31 / height
        figure.text(0.19, middle, label, va="center", ha="right", fontsize=8, color=_INK)
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
        axes.text(0, 0.5, "no images", va="center", fontsize=8, color=_INK, transform=axes.transAxes)
        return
    pixels = images_NHW.shape[1]
    gap = max(1, pixels // 16)
    strip = np.full((pixels, COLUMNS * (pixels + gap) - gap), np.nan, dtype=np.float32)
    for column, image_HW in enumerate(images_NHW):
        left = column * (pixels + gap)
        strip[:, left : left + pixels] = image_HW
    axes.imshow(np.ma.masked_invalid(strip), cmap="gray", vmin=-1, vmax=1, interpolation="nearest", aspect="equal")
    axes.set_anchor("W")


def mutation_history(history: History, path: Path) -> bool:
    """Draw how a generator's training went: losses and, for an evolved one, fitness and selected mutations.

    Args:
        history: curves by name as the generators record them; those of a class's own network begin ``classC/`` (the
            first such network is drawn).
        path: the PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    curves = _first_network(history)
    drawable = (
        _losses(curves),
        _by_mutation(curves, "quality", "quality of the children, F_q"),
        _by_mutation(curves, "diversity", "diversity of the children, F_d"),
    )
    panels = [panel for panel in drawable if panel is not None]
    selected = curves.get("selected")
    count = len(panels) + (1 if selected is not None else 0)
    if not count:
        return False
    figure = Figure(figsize=(9, 2.1 * count + 0.5), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes_list = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for axes, (title, lines) in zip(axes_list, panels, strict=False):
        _draw_lines(axes, title, lines)
    if selected is not None:
        _draw_selected(axes_list[-1], selected)
    axes_list[-1].set_xlabel("generation" if selected is not None else "step", fontsize=8, color=_INK)
    figure.savefig(path)
    return True


def _first_network(history: History) -> dict[str, Curve]:
    """The curves of the only network, or of the first class's; a value per survivor becomes its mean."""
    first = next((name.partition("/")[0] for name in sorted(history) if re.match(r"class\d+/", name)), None)
    start = f"{first}/" if first else ""
    return {
        name.removeprefix(start): np.asarray(values, dtype=np.float64)
        for name, values in history.items()
        if name.startswith(start) and len(values)
    }


def _losses(curves: Mapping[str, Curve]) -> tuple[str, Lines] | None:
    named = {name: values for name, values in curves.items() if name.endswith("_loss")}
    colours = dict(zip(named, (_INK, *_COLOURS[3:]), strict=False))
    lines = [(name.replace("_", " "), colours.get(name, _INK), _mean(values)) for name, values in named.items()]
    return ("loss", lines) if lines else None


def _by_mutation(curves: Mapping[str, Curve], quantity: str, title: str) -> tuple[str, Lines] | None:
    """What was measured of each mutation's children."""
    lines = [
        (name.replace("_", " "), colour, _mean(curves[f"{quantity}/{name}"]))
        for name, colour in zip(MUTATIONS, _COLOURS, strict=False)
        if f"{quantity}/{name}" in curves
    ]
    return (title, lines) if lines else None


def _mean(values: Curve) -> Curve:
    """One number per step: the mean over survivors."""
    flat: Curve = values.reshape(len(values), -1).mean(axis=1)
    return flat


def _draw_lines(axes: Axes, title: str, lines: Lines) -> None:
    _plain(axes, title)
    for label, colour, values in lines:
        steps, means = _thinned(values)
        axes.plot(steps, means, label=label, color=colour, linewidth=1.2)
    if lines:
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_selected(axes: Axes, selected: Curve) -> None:
    """How often each mutation was selected, over stretches of generations, as stacked areas."""
    _plain(axes, "selected mutations (share)")
    shares = [_mean((selected == index).astype(np.float64)) for index in range(len(MUTATIONS))]
    thinned = [_thinned(values, points=60) for values in shares]
    axes.stackplot(
        thinned[0][0],
        [means for _, means in thinned],
        labels=[name.replace("_", " ") for name in MUTATIONS],
        colors=_COLOURS[: len(MUTATIONS)],
        linewidth=0,
    )
    axes.set_ylim(0, 1)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _thinned(values: Curve, points: int = POINTS) -> tuple[Curve, Curve]:
    """Positions (from 1) and means of at most ``points`` equal stretches of a curve."""
    parts = np.array_split(values, min(points, len(values)))
    ends = np.cumsum([len(part) for part in parts])
    lengths = np.array([len(part) for part in parts])
    return ends - (lengths - 1) / 2, np.array([part.mean() for part in parts])


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8, loc="left", color=_INK)
    axes.tick_params(labelsize=7, colors=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.margins(x=0)
