"""How a search went: its scores by trial and by computation, its generators, and the trials that no other beats."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from search.objectives import Objective, front, objectives_of, trial_value
from search.report.charts import AMBER, BLUE, COLOURS, GREY, ORANGE, Axis, Chart, Figure, Marks, Ribbon, Symbol, short
from search.report.facts import Facts, generator
from trainables.metrics.catalogue import SECONDS, WITH_INTERVALS, maximizes
from trainables.results import TrialResult

MOST_INTERVALS = 150
"""Trials beyond which intervals would hide each other."""
_NOTHING = "No trial is complete yet, so there is no score to draw."


def score_by_trial(facts: Facts) -> Figure:
    """Every completed trial's score in the order in which they ended, with the best so far."""
    figure = Figure(name="score_by_trial", heading="Score by trial", caption="")
    if not facts.completed:
        return replace(figure, caption=_NOTHING)
    places = {trial.id: float(place) for place, trial in enumerate(facts.ended, start=1)}
    chart = _course(facts, places, "trials ended")
    return replace(figure, caption=_caption(facts, "after so many trials"), charts=(chart,))


def score_by_compute(facts: Facts) -> Figure:
    """The same against what had been computed by then."""
    figure = Figure(name="score_by_compute", heading="Score by computation", caption="")
    if not facts.completed:
        return replace(figure, caption=_NOTHING)
    spent = spent_after(facts.ended)
    unit, seconds = unit_of(max(spent.values()))
    places = {name: each / seconds for name, each in spent.items()}
    chart = _course(facts, places, f"computed, {unit}")
    return replace(
        figure,
        caption=_caption(facts, "for that much computation")
        + " What a trial found ready, because another had computed it, costs it nothing here.",
        charts=(chart,),
    )


def spent_after(ended: Sequence[TrialResult]) -> dict[str, float]:
    """The seconds that had been computed when each trial ended: its own, without what it reused, and those before."""
    sum_, spent = 0.0, dict[str, float]()
    for trial in ended:
        sum_ += sum(fold.seconds for fold in trial.folds)
        spent[trial.id] = sum_
    return spent


def unit_of(seconds: float) -> tuple[str, float]:
    """The unit that suits a time, and its length in seconds."""
    return ("seconds", 1.0) if seconds < 180 else ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def best_so_far(facts: Facts) -> list[tuple[TrialResult, float]]:
    """After each trial that ended, the best score up to then, of those that can be the best."""
    allowed, better = {trial.id for trial in facts.ranked}, max if maximizes(facts.record.metric) else min
    found: list[tuple[TrialResult, float]] = []
    for trial in facts.ended:
        value = facts.value(trial) if trial.id in allowed else None
        before = found[-1][1] if found else None
        if value is not None or before is not None:
            known = [each for each in (before, value) if each is not None]
            found.append((trial, better(known)))
    return found


def _course(facts: Facts, places: dict[str, float], label: str) -> Chart:
    trials = [trial for trial in facts.completed if trial.id in places]
    references = [trial for trial in trials if trial.reference is not None]
    allowed = {trial.id for trial in facts.ranked}
    others = [trial for trial in trials if trial.reference is None and trial.id in allowed]
    infeasible = [trial for trial in trials if trial.id not in allowed]
    best = best_so_far(facts)
    line = Marks(
        label="best so far",
        x=tuple(places[trial.id] for trial, _ in best),
        y=tuple(value for _, value in best),
        symbol=None,
        style="steps",
        colour=ORANGE,
    )
    groups = [
        _points(facts, others, places, label="trial", colour=BLUE),
        _points(facts, references, places, label="reference policy", colour=AMBER, symbol="diamond"),
        _points(facts, infeasible, places, label="copies too much", colour=GREY, symbol="x"),
    ]
    last = max(places.values())
    low = 0.0 if last > 0 else -1.0
    return Chart(
        x=Axis(label=label, low=low, high=1.03 * last if last > 0 else 1.0),
        y=Axis(label=facts.metric),
        items=(*_baseline(facts, low, last), *(each for each in groups if each.x), line),
    )


def _points(
    facts: Facts,
    trials: Sequence[TrialResult],
    places: dict[str, float],
    *,
    label: str,
    colour: str,
    symbol: Symbol = "circle",
) -> Marks:
    few = len(places) <= MOST_INTERVALS
    return Marks(
        label=label,
        x=tuple(places[trial.id] for trial in trials),
        y=tuple(facts.value(trial) for trial in trials),
        ends=tuple(facts.interval(trial) if few else None for trial in trials),
        hover=tuple(facts.about(trial) for trial in trials),
        colour=colour,
        symbol=symbol,
        size=8 if few else 4,
    )


def _baseline(facts: Facts, low: float, high: float) -> tuple[Ribbon | Marks, ...]:
    """No augmentation as a line across, within the band of its interval."""
    value = None if facts.baseline is None else facts.value(facts.baseline)
    if facts.baseline is None or value is None:
        return ()
    ends, across = facts.interval(facts.baseline), (low, 1.03 * high if high > 0 else 1.0)
    line = Marks(
        label="no augmentation",
        x=across,
        y=(value, value),
        symbol=None,
        style="straight",
        dashed=True,
        colour=GREY,
        hover=(facts.about(facts.baseline),) * 2,
    )
    if ends is None:
        return (line,)
    band = Ribbon(label="", x=across, low=(ends[0],) * 2, high=(ends[1],) * 2, colour=GREY)
    return (band, line)


def _caption(facts: Facts, what: str) -> str:
    kind = "95 % intervals over patients" if facts.record.metric in WITH_INTERVALS else ""
    bars = f"; bars: {kind}" if kind and len(facts.ended) <= MOST_INTERVALS else ""
    direction = "above" if maximizes(facts.record.metric) else "below"
    return (
        f"The orange line is the best score that was known {what}; where it stays within the grey band, nothing is "
        f"clearly {direction} training without augmentation. Points: means over folds{bars}."
    )


def scores_by_generator(facts: Facts) -> Figure:
    """Every completed trial's score by its generator."""
    figure = Figure(name="scores_by_generator", heading="Scores by generator", caption="")
    trials = facts.completed
    if not any(generator(trial) != "none" for trial in trials):
        return replace(figure, caption="No completed trial has a generator, so there is nothing to compare.")
    by_name: dict[str, list[TrialResult]] = {}
    for trial in trials:
        by_name.setdefault(generator(trial), []).append(trial)
    best_of = {name: _best(facts, mine) for name, mine in by_name.items()}
    order = sorted(by_name, key=lambda name: facts.value(best_of[name]) or 0.0, reverse=maximizes(facts.record.metric))
    rows = {name: float(row) for row, name in enumerate(order)}
    every, middle, best = _generator_marks(facts, by_name, best_of, rows)
    ticks = tuple((rows[name], f"{short(name)}\n({len(by_name[name])})") for name in order)
    chart = Chart(
        x=Axis(label=facts.metric),
        y=Axis(label="", ticks=ticks, low=-0.5, high=len(order) - 0.5, reversed=True),
        items=(every, middle, best),
        height=130 + 46 * len(order),
    )
    caption = (
        "Each row is a generator (in brackets: completed trials with it), the one with the best trial first; rows "
        "whose bars overlap cannot be told apart by these trials. Bar: 95 % interval of its best trial, which is "
        "hopeful, as the best of several was picked."
    )
    return replace(figure, caption=caption, charts=(chart,))


def _best(facts: Facts, trials: Sequence[TrialResult]) -> TrialResult:
    pick: Callable[..., TrialResult] = max if maximizes(facts.record.metric) else min
    return pick(trials, key=lambda trial: facts.value(trial) or 0.0)


def _generator_marks(
    facts: Facts, by_name: dict[str, list[TrialResult]], best_of: dict[str, TrialResult], rows: dict[str, float]
) -> tuple[Marks, Marks, Marks]:
    pairs = [(trial, rows[name]) for name, mine in by_name.items() for trial in mine]
    every = Marks(
        label="trial",
        x=tuple(facts.value(trial) or 0.0 for trial, _ in pairs),
        y=tuple(row + 0.28 for _, row in pairs),
        hover=tuple(facts.about(trial) for trial, _ in pairs),
        colour=GREY,
        size=6,
    )
    medians = {name: statistics.median(facts.value(each) or 0.0 for each in mine) for name, mine in by_name.items()}
    middle = Marks(
        label="median",
        x=tuple(medians.values()),
        y=tuple(rows[name] + 0.28 for name in medians),
        hover=tuple(f"{name}: median {value:.3f}" for name, value in medians.items()),
        colour=ORANGE,
        symbol="diamond",
    )
    best = Marks(
        label="best trial",
        x=tuple(facts.value(trial) or 0.0 for trial in best_of.values()),
        y=tuple(rows[name] for name in best_of),
        ends=tuple(facts.interval(trial) for trial in best_of.values()),
        along="x",
        hover=tuple(facts.about(trial) for trial in best_of.values()),
        colour=BLUE,
    )
    return every, middle, best


def pareto(facts: Facts) -> Figure:
    """Several objectives against each other, with the trials that no other beats in all of them."""
    figure = Figure(name="pareto", heading="Pareto front", caption="")
    first, *further = objectives_of(facts.record)
    if not further:
        return replace(figure, caption="The search has one objective, so there is no trade to draw.")
    on_front = {trial.id for trial in front(facts.ranked, (first, *further))}
    if not on_front:
        return replace(figure, caption="No completed trial defines all objectives, so there is no front to draw.")
    charts = tuple(_trade(facts, first, other, on_front) for other in further)
    caption = (
        "No trial beats an orange one in every objective: choose among these by what matters to you; the grey ones "
        "are beaten by one of them."
    )
    return replace(figure, caption=caption, charts=charts)


def _trade(facts: Facts, first: Objective, other: Objective, on_front: set[str]) -> Chart:
    points = [(trial, trial_value(trial, other), trial_value(trial, first)) for trial in facts.ranked]
    groups = (("other trials", False, GREY), ("Pareto front", True, ORANGE))
    items = []
    for label, wanted, colour in groups:
        chosen = [(trial, x, y) for trial, x, y in points if x is not None and (trial.id in on_front) == wanted]
        items.append(
            Marks(
                label=label,
                x=tuple(x for _, x, _ in chosen),
                y=tuple(y for _, _, y in chosen),
                hover=tuple(f"{facts.about(trial)}\n{_axis(other)}: {x:.3g}" for trial, x, _ in chosen),
                colour=colour,
                size=10 if wanted else 7,
            )
        )
    return Chart(x=Axis(label=_axis(other)), y=Axis(label=_axis(first)), items=tuple(items))


def _axis(objective: Objective) -> str:
    name = "seconds a fold costs" if objective.name == SECONDS else objective.name.replace("_", " ")
    return f"{name} ({'more' if objective.maximize else 'less'} is better)"


def compared_courses(searches: Sequence[Facts]) -> Figure:
    """The best score so far of several searches against what they computed."""
    figure = Figure(name="compared", heading="Best score by computation", caption="")
    curves = {facts.record.name: (facts, best_so_far(facts), spent_after(facts.ended)) for facts in searches}
    ends = [max(spent.values()) for _, best, spent in curves.values() if best]
    if not ends:
        return replace(figure, caption=_NOTHING)
    unit, seconds = unit_of(max(ends))
    items = [
        Marks(
            label=short(name),
            x=tuple(spent[trial.id] / seconds for trial, _ in best),
            y=tuple(value for _, value in best),
            hover=tuple(f"{name}\n{facts.about(trial)}\nbest so far {value:.3f}" for trial, value in best),
            colour=COLOURS[index % len(COLOURS)],
            symbol="circle",
            style="steps",
            size=5,
            dashed=index >= len(COLOURS),
        )
        for index, (name, (facts, best, spent)) in enumerate(curves.items())
    ]
    chart = Chart(x=Axis(label=f"computed, {unit}", low=0.0), y=Axis(label=searches[0].metric), items=tuple(items))
    caption = (
        "The curve that is ahead had the better trial for that much computation; the best of many trials is hopeful, "
        "so compare confirmed scores where there are some."
    )
    return replace(figure, caption=caption, charts=(chart,))
