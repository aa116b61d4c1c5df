"""Pictures of how a generator's training went: its losses and, for an evolved one, the children and their selection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mlflow_tracking.sheets import INK, fitted
from trainables.generators.evolution import MUTATIONS

Curve: TypeAlias = NDArray[np.float64]
"""Values (steps, M): M numbers a step, such as one per parent."""
History: TypeAlias = Mapping[str, Sequence[float] | Sequence[Sequence[float]]]

POINTS = 300
"""Points that a curve is thinned to, by means over stretches."""
SELECTED = "selected"
"""The curve that an evolved generator has: the selected mutation of each generation, an index into ``MUTATIONS``."""
_HEADINGS = {
    "fitness": "fitness of each child, F = F_q + gamma F_d",
    "lead": "lead of each child: F less its generation's mean",
    "quality": "quality of each child, F_q",
    "diversity": "diversity of each child, F_d",
}
_SELECTION = "selected mutation"
_COLOURS = ("#4269d0", "#efb118", "#3ca951")
_OTHERS = (INK, "#ff725c", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0")
_STYLES = ("-", "--", ":", "-.")
_ACROSS = 4
"""Networks side by side; more of them go below."""
_PANEL = 1.6
"""Height of a panel, in inches."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Network:
    """What is drawn of one network, in a column: lines by heading and label, and the selection if it was evolved."""

    name: str
    panels: Mapping[str, Mapping[str, Curve]]
    selected: Curve | None


def training_curves(
    history: History, classes: Sequence[str], title: str, path: Path, *, gamma: float | None = None
) -> bool:
    """Draw every curve of a generator's training, a column of panels for each network.

    Args:
        history: curves by name as the generators record them; those of a class's own network begin ``classC/``.
        classes: class names in the order of the indices.
        title: stands above; may have several lines.
        path: the PNG file to write.
        gamma: weight of diversity in the fitness; None where it is not known or the generator does not evolve.

    Returns:
        Whether there was anything to draw.
    """
    networks = [_network(name, curves, gamma) for name, curves in _by_network(history, classes)]
    if any(network.selected is not None and network.selected.shape[1] > 1 for network in networks):
        title += "\nSolid: children of the fittest parent; dashed: of the next one"
    headings = list(dict.fromkeys(heading for network in networks for heading in network.panels))
    if any(network.selected is not None for network in networks):
        headings.append(_SELECTION)
    if not headings:
        return False
    across = min(len(networks), _ACROSS)
    bands = [networks[start : start + across] for start in range(0, len(networks), across)]
    head = 0.2 * (title.count("\n") + 1) + 0.2
    tall = _PANEL * len(headings) + 0.5
    width, height = 1.5 + max(7.5, 3.4 * across), head + tall * len(bands)
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(1 + len(bands), 1, height_ratios=[head, *[tall] * len(bands)], squeeze=False)[:, 0]
    rows[0].text(
        0.1 / width, 1 - 0.1 / head, title, va="top", fontsize=10, color=INK, linespacing=1.4, parse_math=False
    )
    for row, band in zip(rows[1:], bands, strict=True):
        _draw_band(row.subplots(len(headings), across, sharex="col", sharey="row", squeeze=False), band, headings)
    figure.savefig(path)
    return True


def _by_network(history: History, classes: Sequence[str]) -> Iterator[tuple[str, dict[str, Curve]]]:
    """The curves of each network and its name: that of its class, nothing where there is one network for all."""
    networks: dict[int, dict[str, Curve]] = {}
    for key, values in history.items():
        found = re.fullmatch(r"class(\d+)/(.+)", key)
        index, name = (int(found[1]), found[2]) if found else (-1, key)
        if len(values):
            networks.setdefault(index, {})[name] = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    for index, curves in sorted(networks.items()):
        yield ("" if index < 0 else classes[index]), curves


def _network(name: str, curves: Mapping[str, Curve], gamma: float | None) -> _Network:
    selected = curves.get(SELECTED)
    panels: dict[str, dict[str, Curve]] = {}
    evolved = _fitness(curves, gamma) if selected is not None and gamma is not None else {}
    for key, values in {**_parents_first(curves), **evolved}.items():
        heading, label = _placed(key)
        panels.setdefault(heading, {})[label] = values
    order = ["loss", *(each for each in panels if each not in _HEADINGS.values()), *_HEADINGS.values()]
    ordered = {heading: panels[heading] for heading in dict.fromkeys(order) if heading in panels}
    if gamma is not None:
        ordered = {heading.replace("gamma", f"{gamma:g}"): lines for heading, lines in ordered.items()}
    return _Network(name=name, panels=ordered, selected=selected)


def _parents_first(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """The curves but the selection; what belongs to a single child comes last."""
    return {key: curves[key] for key in sorted(curves, key=lambda key: "/" in key) if key != SELECTED}


def _fitness(curves: Mapping[str, Curve], gamma: float) -> dict[str, Curve]:
    """Fitness of each child, and how far it is above the mean of all children of its generation."""
    fitness = {
        name: curves[f"quality/{name}"] + gamma * curves[f"diversity/{name}"]
        for name in MUTATIONS
        if {f"quality/{name}", f"diversity/{name}"} <= set(curves)
    }
    if not fitness:
        return {}
    mean = np.concatenate(list(fitness.values()), axis=1).mean(axis=1, keepdims=True)
    lead = {f"lead/{name}": values - mean for name, values in fitness.items()}
    return {f"fitness/{name}": values for name, values in fitness.items()} | lead


def _placed(key: str) -> tuple[str, str]:
    """The heading of the panel that a curve is drawn in, and its label there."""
    group, slash, child = key.partition("/")
    if slash:
        return _HEADINGS.get(group, group.replace("_", " ")), child.replace("_", " ")
    words = key.split("_")
    if "loss" not in words:
        return " ".join(words), ""
    label = " ".join(word for word in words if word not in ("class", "loss"))
    return "class loss" if "class" in words else "loss", label


def _draw_band(axes_grid: NDArray[np.object_], networks: Sequence[_Network], headings: Sequence[str]) -> None:
    """Draw networks side by side, a panel for each heading; columns that are left over stay empty."""
    for column, axes_column in enumerate(axes_grid.T):
        if column >= len(networks):
            for axes in axes_column:
                axes.set_visible(False)
            continue
        network = networks[column]
        for axes, heading in zip(axes_column, headings, strict=True):
            if heading == _SELECTION:
                _draw_selected(axes, network.selected)
            else:
                _plain(axes, heading)
                _draw_lines(axes, network.panels.get(heading, {}), legend=column == len(networks) - 1)
        if network.name:
            heading = fitted(network.name, 300, points=9)
            axes_column[0].set_title(
                f"{heading}\n", fontsize=9, fontweight="bold", loc="center", color=INK, parse_math=False
            )
        unit = "step" if network.selected is None else "generation"
        axes_column[-1].set_xlabel(unit, fontsize=8, color=INK)


def _draw_lines(axes: Axes, lines: Mapping[str, Curve], *, legend: bool) -> None:
    """Lines by label; where there are several values a step, the first is solid and the others are broken."""
    others = iter(_OTHERS * len(lines))
    children = [name.replace("_", " ") for name in MUTATIONS]
    for label, values in lines.items():
        colour = _COLOURS[children.index(label)] if label in children else next(others)
        for place, column in reversed(list(enumerate(values.T))):
            steps, means = _thinned(column)
            style = _STYLES[place % len(_STYLES)]
            axes.plot(steps, means, label="" if place else label, color=colour, linestyle=style, linewidth=1.1)
    if legend and any(lines):  # a curve that stands alone has no label
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_selected(axes: Axes, selected: Curve | None) -> None:
    """A lane for each mutation, the darker the more often it was selected in a generation or a stretch of them."""
    if selected is None:
        axes.set_visible(False)
        return
    _plain(axes, _SELECTION)
    stretches = _stretches(selected)
    lanes = np.ones((len(MUTATIONS), len(stretches), 3))
    for lane, colour in enumerate(_COLOURS):
        share = np.array([(stretch == lane).mean() for stretch in stretches])
        lanes[lane] -= share[:, None] * (1 - np.array(to_rgb(colour)))
        axes.text(
            1.01,
            lane,
            f"{(selected == lane).mean():.0%}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
        )
    ends = (0.5, len(stretches) * len(stretches[0]) + 0.5)
    axes.imshow(lanes, extent=(*ends, len(MUTATIONS) - 0.5, -0.5), aspect="auto", interpolation="nearest")
    axes.set_xlim(0.5, len(selected) + 0.5)
    axes.set_yticks(range(len(MUTATIONS)), [name.replace("_", " ") for name in MUTATIONS])
    axes.grid(visible=False)


def _thinned(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (from 1) and means of a curve's stretches."""
    parts = _stretches(values)
    lengths = np.array([len(part) for part in parts])
    return np.cumsum(lengths) - (lengths - 1) / 2, np.array([part.mean() for part in parts])


def _stretches(values: Curve) -> list[Curve]:
    """At most ``POINTS`` stretches, all of one length (the last may be shorter): unequal ones would look less noisy."""
    length = -(-len(values) // POINTS)
    return [values[start : start + length] for start in range(0, len(values), length)]


def _plain(axes: Axes, heading: str) -> None:
    axes.set_title(heading, fontsize=8, loc="left", color=INK, parse_math=False)
    axes.tick_params(labelsize=7, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.margins(x=0)
