"""What configurations scored: parallel coordinates, turned so that a phone shows every row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search.report.charts import Axis, Chart, Figure, Marks, Words, short
from search.report.facts import Facts
from search.sampling.columns import ascending, unit
from spaces.parameter import Choice, Value, format_value
from spaces.space import Dimension
from trainables.metrics.catalogue import maximizes
from trainables.results import TrialResult

MOST_ROWS = 14
_OFTEN = 0.3
"""Share of the trials that have a setting, for it to have a row."""
MOST_LINES = 200
_UNUSED = -0.13
"""Where a line runs in the row of a setting that its trial does not have."""
_BELOW, _ABOVE = 0.32, -0.28
"""How far from its row what a place means is written; many options stand above and below in turn."""
_SHADES = ("#7b5ea7", "#4a7fb0", "#2a9d8f", "#7cc463", "#e0a800")
"""From the worst to the best fifth: viridis, its ends moved so that they are seen on white and on black."""


def parallel(facts: Facts) -> Figure:
    """A line for each trial through its settings, a row each, down to its score."""
    figure = Figure(name="parallel_coordinates", heading="Settings and scores", caption="")
    trials = [trial for trial in facts.completed if facts.record.space.contains(trial.config)]
    rows = _rows(facts, trials)
    if len(trials) < 2 or not rows:
        return replace(figure, caption="Fewer than two completed trials differ in a setting; there is no line to draw.")
    ordered = sorted(trials, key=lambda each: facts.value(each) or 0.0, reverse=not maximizes(facts.record.metric))
    shown = ordered if len(ordered) <= MOST_LINES else _thinned(ordered)
    values = [facts.value(trial) or 0.0 for trial in shown]
    low, high = min(values), max(values)
    groups = np.array_split(np.arange(len(shown)), min(len(_SHADES), len(shown)))
    shades = _SHADES[-len(groups) :]
    last = len(rows)
    lines = [
        _lines(facts, [shown[index] for index in group], rows, (low, high), shade, _name(place, len(groups)))
        for place, (group, shade) in enumerate(zip(groups, shades, strict=True))
    ]
    chart = Chart(
        x=Axis(label="", ticks=(), low=-0.24, high=1.18, grid=False),
        y=Axis(
            label="",
            ticks=(
                *((float(index), _label(name)) for index, name in enumerate(rows)),
                (float(last), short(facts.metric)),
            ),
            low=-0.45,
            high=last + 0.5,
            reversed=True,
        ),
        items=(*lines, _scale(facts, rows, (low, high))),
        height=110 + 52 * (last + 1),
    )
    left_out = len(facts.completed) - len(trials)
    caption = (
        "Each line is a trial; where the bright lines gather in a row, that setting helped, and where they spread over "
        "the whole row it hardly mattered. At the left edge of a row: the setting does not exist for that trial."
    )
    if left_out:
        caption += f" {left_out} trials outside the space, such as references, are left out."
    if len(shown) < len(trials):
        caption += f" {len(shown)} of {len(trials)} trials, evenly from the best to the worst."
    return replace(figure, caption=caption, charts=(chart,))


def _thinned(ordered: Sequence[TrialResult]) -> list[TrialResult]:
    places = np.linspace(0, len(ordered) - 1, MOST_LINES).round().astype(int)
    return [ordered[place] for place in places]


def _rows(facts: Facts, trials: Sequence[TrialResult]) -> list[str]:
    """The settings that differ between trials; those that most trials have, in the order of the space."""
    counts = {}
    for name in facts.record.space.names:
        found = [trial.config[name] for trial in trials if name in trial.config]
        if len(set(map(repr, found))) > 1 and len(found) >= _OFTEN * len(trials):
            counts[name] = len(found)
    kept = sorted(counts, key=lambda name: -counts[name])[:MOST_ROWS]
    return [name for name in counts if name in kept]


def _label(name: str) -> str:
    """A setting's name on two lines: its part of the configuration, and itself."""
    part, _, own = name.rpartition(".")
    return f"{part}\n{short(own, 16)}" if part else short(own, 16)


def _name(place: int, groups: int) -> str:
    whole = " fifth" if groups == len(_SHADES) else ""
    return f"best{whole}" if place == groups - 1 else f"worst{whole}" if place == 0 else ""


def _dimension(facts: Facts, name: str, trial: TrialResult) -> Dimension | None:
    return next((each for each in facts.record.space.variants(name) if each.exists(trial.config)), None)


def _place(dimension: Dimension, value: Value) -> float:
    """Where a value stands in its row, 0 to 1."""
    parameter = dimension.parameter
    place = unit(parameter, value)
    if place is None and isinstance(parameter, Choice):
        return parameter.options.index(value) / max(1, len(parameter.options) - 1)
    return place or 0.0


def _lines(
    facts: Facts,
    trials: Sequence[TrialResult],
    rows: Sequence[str],
    scores: tuple[float, float],
    shade: str,
    label: str,
) -> Marks:
    """The lines of several trials as one, with gaps between them."""
    x: list[float] = []
    y: list[float | None] = []
    hover: list[str] = []
    span = max(1e-12, scores[1] - scores[0])
    for number, trial in enumerate(trials):
        wobble = 0.03 * math.sin(2.4 * number)
        for row, name in enumerate(rows):
            dimension = _dimension(facts, name, trial)
            value = trial.config.get(name)
            known = dimension is not None and value is not None
            spread = wobble if known and isinstance(dimension.parameter, Choice) else 0.0  # type: ignore[union-attr]
            x.append(_place(dimension, value) + spread if dimension is not None and value is not None else _UNUSED)
            y.append(float(row))
            said = format_value(value) if value is not None else "does not exist"
            hover.append(f"{name}: {said}\n{facts.about(trial)}")
        x.append(((facts.value(trial) or 0.0) - scores[0]) / span)
        y.append(float(len(rows)))
        hover.append(facts.about(trial))
        x.append(0.0)
        y.append(None)
        hover.append("")
    return Marks(
        label=label, x=tuple(x), y=tuple(y), hover=tuple(hover), colour=shade, style="straight", size=4, width=1.2
    )


def _scale(facts: Facts, rows: Sequence[str], scores: tuple[float, float]) -> Words:
    """What the places of each row mean: its options, or its bounds."""
    x: list[float] = []
    y: list[float] = []
    texts: list[str] = []
    for row, name in enumerate(rows):
        meanings = _meanings(facts.record.space.variants(name))
        for index, (place, text) in enumerate(meanings):
            x.append(place)
            y.append(row + (_ABOVE if len(meanings) > 3 and index % 2 else _BELOW))
            texts.append(text)
    for place, value in zip((0.0, 1.0), scores, strict=True):
        x.append(place)
        y.append(len(rows) + _BELOW)
        texts.append(f"{value:.3f}")
    return Words(x=tuple(x), y=tuple(y), texts=tuple(texts))


def _meanings(variants: Sequence[Dimension]) -> list[tuple[float, str]]:
    if len({each.parameter.domain() for each in variants}) > 1:
        return [(0.0, "lowest"), (1.0, "highest")]
    parameter = variants[0].parameter
    if not isinstance(parameter, Choice):
        log = " (log)" if parameter.log else ""
        return [(0.0, format_value(parameter.low)), (1.0, f"{format_value(parameter.high)}{log}")]
    options = ascending(parameter) or parameter.options
    letters = 12 if len(options) < 4 else 9 if len(options) < 7 else 7
    names = [format_value(option).rstrip("/").rpartition("/")[2] or format_value(option) for option in options]
    return [(index / max(1, len(options) - 1), short(name, letters)) for index, name in enumerate(names)]
