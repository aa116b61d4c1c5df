"""How much each setting decides whether a trial is among the best: PED-ANOVA over the trials of the ledger."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.report.charts import BLUE, GREY, ORANGE, Axis, Bars, Chart, Figure, Marks, short
from search.report.facts import Facts
from search.sampling.columns import told_as, unit
from spaces.parameter import Choice, Value
from spaces.space import Dimension, Space
from trainables.metrics.catalogue import maximizes
from trainables.results import TrialResult

FEWEST = 10
"""Completed trials below which every importance would be chance."""
FEW = 40
"""Trials below which the caption warns."""
MOST = 200
"""Trials that are looked at, the last ones: of more each would tell little."""
SHUFFLES = 30
_TOP = 5
"""The method's authors advise to call at least so many trials the best."""
_ROWS = 15
_NONE = 1e-4


def importance(facts: Facts) -> Figure:
    """Bars of importance, each beside what chance alone would give."""
    figure = Figure(name="importance", heading="Which settings matter", caption="")
    trials = [trial for trial in facts.completed if facts.record.space.contains(trial.config)][-MOST:]
    values = [facts.value(trial) or 0.0 for trial in trials]
    if len(trials) < FEWEST or len(set(values)) < 2:
        return replace(
            figure,
            caption=f"{len(trials)} completed trials of the space are too few to say which settings matter; "
            f"{FEWEST} or more are needed, and differing scores.",
        )
    sign = -1 if maximizes(facts.record.metric) else 1
    costs = [sign * value for value in values]
    anova = PedAnova(facts.record.space, trials)
    found, chance = anova.of(costs), anova.by_chance(costs, seed=facts.record.seed)
    known = (name for name in found if found[name] > _NONE)
    shown = sorted(known, key=lambda name: (found[name] <= chance[name], -found[name]))[:_ROWS]
    if not shown:
        return replace(figure, caption="No setting tells the best trials from the others.")
    caption = _caption(len(trials))
    if len(shown) < len(found):
        caption += f" {len(found) - len(shown)} further settings tell less, or nothing."
    return replace(figure, caption=caption, charts=(_chart(shown, found, chance),))


def _caption(trials: int) -> str:
    few = f" {trials} trials are few: take only long bars for real." if trials < FEW else ""
    return (
        f"How much a setting decides whether a trial is among the best {quantile(trials):.0%} (PED-ANOVA); a bar that "
        f"is grey is no longer than shuffled scores give in one of 20 cases (the mark), and says nothing."
        f"{few}"
    )


def _chart(shown: Sequence[str], found: Mapping[str, float], chance: Mapping[str, float]) -> Chart:
    groups = (
        ("above chance", BLUE, [name for name in shown if found[name] > chance[name]]),
        ("within chance", GREY, [name for name in shown if found[name] <= chance[name]]),
    )
    rows = {name: float(row) for row, name in enumerate(shown)}
    bars = [
        Bars(
            label=label,
            y=tuple(rows[name] for name in names),
            start=(0.0,) * len(names),
            end=tuple(found[name] for name in names),
            hover=tuple(f"{name}: {found[name]:.3g}, by chance up to {chance[name]:.3g}" for name in names),
            colour=colour,
        )
        for label, colour, names in groups
        if names
    ]
    edge = 1.15 * max(found[name] for name in shown)
    mark = Marks(
        label="end of chance (95 %), or beyond the edge",
        x=tuple(min(chance[name], 0.985 * edge) for name in shown),
        y=tuple(rows[name] for name in shown),
        hover=tuple(f"{name}: by chance up to {chance[name]:.3g}" for name in shown),
        colour=ORANGE,
        symbol="diamond",
    )
    return Chart(
        x=Axis(label="importance (no unit)", low=0.0, high=edge),
        y=Axis(
            label="",
            ticks=tuple((row, _label(name)) for name, row in rows.items()),
            low=-0.6,
            high=len(shown) - 0.4,
            reversed=True,
            grid=False,
        ),
        items=(*bars, mark),
        height=130 + 34 * len(shown),
    )


def _label(name: str) -> str:
    part, _, own = name.rpartition(".")
    return f"{part}\n{short(own, 20)}" if part else short(own, 20)


def quantile(trials: int) -> float:
    """The share of trials that count as the best: a tenth, more where that would be fewer than five."""
    return min(0.5, max(0.1, _TOP / trials))


class PedAnova:
    """The importance of every dimension; one that exists under conditions counts with them.

    Args:
        space: every trial's configuration is within it.
        trials: at least two.

    Source: Watanabe, Bansal & Hutter 2023 (PED-ANOVA); conditions as in Optuna's evaluator.
    """

    def __init__(self, space: Space, trials: Sequence[TrialResult]) -> None:
        known = {told_as(each, space): each for each in space.dimensions}
        distributions = {name: _distribution(each) for name, each in known.items()}
        frozen = [_frozen(space, trial, distributions) for trial in trials]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="minimize")
        self._study.add_trials(frozen)
        self._used = sorted({name for trial in frozen for name in trial.params})
        self._count = len(trials)

    def of(self, costs: Sequence[float]) -> dict[str, float]:
        """The importance of each dimension that a trial has, by ``told_as``, for reaching low costs.

        Args:
            costs: of each trial, less is better.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, and few trials, which the caption says
            evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile(self._count))
            found = evaluator.evaluate(self._study, params=self._used, target=lambda trial: costs[trial.number])
        return {name: float(value) if math.isfinite(value) else 0.0 for name, value in found.items()}

    def by_chance(self, costs: Sequence[float], *, seed: int) -> dict[str, float]:
        """The importance that 95 % of shufflings of the costs stay below, of each dimension."""
        rng = np.random.default_rng(seed)
        shuffled = [self.of(rng.permutation(np.asarray(costs)).tolist()) for _ in range(SHUFFLES)]
        return {name: float(np.quantile([each[name] for each in shuffled], 0.95)) for name in self._used}


def _distribution(dimension: Dimension) -> BaseDistribution:
    """Numbers lie on their own scale in [0, 1]."""
    if isinstance(dimension.parameter, Choice) and unit(dimension.parameter, dimension.parameter.options[0]) is None:
        return CategoricalDistribution(dimension.parameter.options)
    return FloatDistribution(0.0, 1.0)


def _frozen(space: Space, trial: TrialResult, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    params: dict[str, Value] = {}
    for dimension in space.dimensions:
        if dimension.exists(trial.config):
            given = trial.config[dimension.name]
            place = unit(dimension.parameter, given)
            params[told_as(dimension, space)] = given if place is None else min(1.0, max(0.0, place))
    return create_trial(
        state=TrialState.COMPLETE,
        value=0.0,
        params=params,
        distributions={name: distributions[name] for name in params},
    )
