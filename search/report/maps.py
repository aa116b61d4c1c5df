"""GenMix's alpha against the proportion of synthetic images: a map of scores for each generator."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search.report.charts import Axis, Cells, Chart, Figure, short
from search.report.facts import Facts, generator
from spaces.wording import counted
from trainables.metrics.classification import Floats, Ints

ALPHA, RATIO = "mixer.genmix_alpha", "synthetic.ratio"
GRID = 4
"""Cells of a map along each axis."""
FEWEST_FOR_A_MODEL = 12
"""Trials of a generator, no two alike in both, from which a model says more than means of cells."""
FEWEST_FOR_A_MAP = 3
"""Trials of a generator below which there is no map of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    alpha: float
    ratio: float
    score: float


def alpha_by_ratio(facts: Facts) -> Figure:
    """GenMix's alpha against the proportion of synthetic images, a map for each generator."""
    figure = Figure(name="alpha_by_ratio", heading="Alpha and ratio, by generator", caption="")
    by_name: dict[str, list[_Point]] = {}
    for trial in facts.completed:
        if ALPHA in trial.config and RATIO in trial.config:
            point = _Point(
                alpha=float(trial.config[ALPHA]), ratio=float(trial.config[RATIO]), score=facts.value(trial) or 0.0
            )
            by_name.setdefault(generator(trial), []).append(point)
    few = sorted(name for name, points in by_name.items() if len(points) < FEWEST_FOR_A_MAP)
    by_name = {name: points for name, points in by_name.items() if name not in few}
    edges = _edges(by_name)
    if edges is None:
        return replace(
            figure,
            caption=f"No generator has {FEWEST_FOR_A_MAP} completed trials that differ in GenMix's alpha and in the "
            "ratio of synthetic images, so there is no map to draw.",
        )
    order = sorted(by_name, key=lambda name: -len(by_name[name]))
    grids = {name: _grid(by_name[name], *edges) for name in order}
    means = [cell.mean for grid in grids.values() for row in grid for cell in row if cell is not None]
    charts = tuple(_map(facts, name, grids[name], edges, (min(means), max(means))) for name in order)
    modelled = [name for name in order if _is_modelled(by_name[name])]
    caption = (
        "Brighter cells scored better; trust a cell as far as its ± and its count n of trials go, and an empty cell "
        "says nothing. A cell is the mean of its trials ± their standard deviation, whatever else differs between them."
    )
    if modelled:
        caption += (
            f" Of {', '.join(modelled)}, with {FEWEST_FOR_A_MODEL} different trials or more, it is the mean of a "
            f"Gaussian process ± its standard deviation, and n the trials in it."
        )
    if few:
        caption += f" Too few trials for a map: {', '.join(few)}."
    return replace(figure, caption=caption, charts=charts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    mean: float
    std: float | None
    trials: int


def _edges(by_name: dict[str, list[_Point]]) -> tuple[Floats, Floats] | None:
    """The borders of cells: alpha on a log scale, ratio on a plain one; None where trials do not differ in both."""
    points = [point for mine in by_name.values() for point in mine]
    if not points:
        return None
    alphas, ratios = [point.alpha for point in points], [point.ratio for point in points]
    if min(alphas) == max(alphas) or min(ratios) == max(ratios) or min(alphas) <= 0:
        return None
    return np.geomspace(min(alphas), max(alphas), GRID + 1), np.linspace(min(ratios), max(ratios), GRID + 1)


def _grid(points: Sequence[_Point], alpha_E: Floats, ratio_E: Floats) -> list[list[_Cell | None]]:
    """Rows of cells by ratio; columns by alpha."""
    column = np.clip(np.searchsorted(alpha_E, [point.alpha for point in points], side="right") - 1, 0, GRID - 1)
    row = np.clip(np.searchsorted(ratio_E, [point.ratio for point in points], side="right") - 1, 0, GRID - 1)
    scores = np.array([point.score for point in points])
    counts = np.zeros((GRID, GRID), dtype=int)
    np.add.at(counts, (row, column), 1)
    if _is_modelled(points) and len(set(scores.tolist())) > 1:
        return _modelled(points, alpha_E, ratio_E, counts)
    found: list[list[_Cell | None]] = []
    for up in range(GRID):
        found.append([])
        for across in range(GRID):
            mine = scores[(row == up) & (column == across)]
            std = float(mine.std(ddof=1)) if len(mine) > 1 else None
            found[-1].append(_Cell(mean=float(mine.mean()), std=std, trials=len(mine)) if len(mine) else None)
    return found


def _is_modelled(points: Sequence[_Point]) -> bool:
    return len({(point.alpha, point.ratio) for point in points}) >= FEWEST_FOR_A_MODEL


def _near(counts: Ints, row: int, column: int) -> bool:
    """Whether a cell or one beside it holds a trial: a model says nothing far from all of them."""
    return bool(counts[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].any())


def _modelled(points: Sequence[_Point], alpha_E: Floats, ratio_E: Floats, counts: Ints) -> list[list[_Cell | None]]:
    """A Gaussian process at the cells' middles; a cell whose deviation is nearly that of not knowing stays empty."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    points = points[-200:]

    def place(alpha: Floats, ratio: Floats) -> Floats:
        logs = np.log(alpha / alpha_E[0]) / np.log(alpha_E[-1] / alpha_E[0])
        return np.stack([logs, (ratio - ratio_E[0]) / (ratio_E[-1] - ratio_E[0])], axis=1)

    rows = place(np.array([each.alpha for each in points]), np.array([each.ratio for each in points]))
    scores = np.array([each.score for each in points])
    kernel = ConstantKernel(1.0, (0.05, 4.0)) * Matern(0.7, (0.3, 4.0), nu=2.5) + WhiteKernel(0.5, (1e-2, 4.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(rows, scores)
    alphas, ratios = np.sqrt(alpha_E[1:] * alpha_E[:-1]), (ratio_E[1:] + ratio_E[:-1]) / 2
    grid_A, grid_R = np.meshgrid(alphas, ratios)
    at = place(grid_A.ravel(), grid_R.ravel())
    mean, total = process.predict(at, return_std=True)
    spread = float(scores.std())
    noise = process.kernel_.k2.noise_level * spread**2
    std = np.sqrt(np.maximum(total**2 - noise, 0.0))
    unknown = math.sqrt(process.kernel_.k1.k1.constant_value) * spread
    return [
        [
            None
            if not counts[row, column] and (std[cell] > 0.95 * unknown or not _near(counts, row, column))
            else _Cell(mean=float(mean[cell]), std=float(std[cell]), trials=int(counts[row, column]))
            for column in range(GRID)
            for cell in [row * GRID + column]
        ]
        for row in range(GRID)
    ]


def _map(
    facts: Facts,
    name: str,
    grid: Sequence[Sequence[_Cell | None]],
    edges: tuple[Floats, Floats],
    ends: tuple[float, float],
) -> Chart:
    alpha_E, ratio_E = edges
    cells = Cells(
        values=tuple(tuple(None if cell is None else cell.mean for cell in row) for row in grid),
        texts=tuple(tuple("" if cell is None else _in_cell(cell) for cell in row) for row in grid),
        hover=tuple(
            tuple(
                f"alpha {alpha_E[column]:.2g} to {alpha_E[column + 1]:.2g}, ratio {ratio_E[row]:.2g} to "
                f"{ratio_E[row + 1]:.2g}\n{'nothing known' if cell is None else _in_cell(cell)}"
                for column, cell in enumerate(cells)
            )
            for row, cells in enumerate(grid)
        ),
        meaning=facts.metric,
        low=ends[0] if ends[0] < ends[1] else ends[0] - 0.01,
        high=ends[1] if ends[0] < ends[1] else ends[1] + 0.01,
    )
    count = sum(cell.trials for row in grid for cell in row if cell is not None)
    return Chart(
        x=Axis(label="GenMix alpha (log scale)", ticks=_borders(alpha_E), low=-0.5, high=GRID - 0.5, grid=False),
        y=Axis(label="synthetic per real image", ticks=_borders(ratio_E), low=-0.5, high=GRID - 0.5, grid=False),
        items=(cells,),
        heading=f"{short(name)}, {counted(count, 'trial')}",
        height=330,
    )


def _in_cell(cell: _Cell) -> str:
    spread = "" if cell.std is None else f"\n± {cell.std:.3f}"
    return f"{cell.mean:.3f}{spread}\nn = {cell.trials}"


def _borders(edges: Floats) -> tuple[tuple[float, str], ...]:
    return tuple((index - 0.5, f"{edge:.2g}") for index, edge in enumerate(edges))
