"""Where configurations come from: each proposal is a function of the seed, its number and the ledger, nothing else.

So a resumed search proposes what the undisturbed one would have, and no state of a sampler needs to be saved.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from spaces.parameter import Choice, Float, Parameter
from spaces.space import Assignment, Space
from trainables.results import TrialResult, summarise
from trainables.seeding import stream

STARTUP_TRIALS = 8
"""Told trials, reference policies included, before TPE models anything."""
TOLD_TRIALS = 500
_REDRAWS = 10
GRID_LIMIT = 100_000
GRID_POINTS = 3
"""Values per number on a grid: both bounds and the middle of the parameter's own scale."""


class Proposer(Protocol):
    """Suggests what to try next."""

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """The configuration of proposal ``number`` (from 0, reference policies counted), or None if none is left.

        Args:
            number: how many trials have been proposed before.
            trials: all of them, as the ledger has them now.
        """


class RandomProposer:
    """Independent draws from the space."""

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        return _untried(self._draw, number, trials)

    def _draw(self, name: str) -> Assignment:
        return self._space.sample(random.Random(stream(self._seed, name)))  # noqa: S311 - no secret


def _untried(draw: Callable[[str], Assignment], number: int, trials: Sequence[TrialResult]) -> Assignment:
    """A draw that is no trial yet, or one that is after a few attempts, as in a space with few configurations."""
    tried = [trial.config for trial in trials]
    names = [f"proposal{number}", *(f"proposal{number}/again{attempt}" for attempt in range(_REDRAWS))]
    drawn: Assignment = {}
    for name in names:
        drawn = draw(name)
        if drawn not in tried:
            break
    return drawn


class GridProposer:
    """Every configuration of a grid, each once, in an order shuffled by the seed so that a part of it is fair.

    Of a grid with more than ``GRID_LIMIT`` configurations only the first so many are tried.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._grid = list(itertools.islice(space.grid(GRID_POINTS), GRID_LIMIT))
        random.Random(stream(seed, "grid")).shuffle(self._grid)  # noqa: S311 - no secret

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        tried = [trial.config for trial in trials]
        return next((config for config in self._grid if config not in tried), None)


class TpeProposer:
    """Optuna's multivariate, grouped Tree-structured Parzen Estimator over the trials of the ledger.

    Args:
        space: what is searched.
        seed: the search's seed.
        metric: the score to improve.
        maximize: whether more is better.
    """

    def __init__(self, space: Space, *, seed: int, metric: str, maximize: bool) -> None:
        self._space = space
        self._seed = seed
        self._metric = metric
        self._maximize = maximize
        self._distributions = {each.name: _distribution(each.parameter) for each in space.dimensions}

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        told = self._told(trials)
        return _untried(lambda name: self._ask(name, told), number, trials)

    def _ask(self, name: str, told: Sequence[FrozenTrial]) -> Assignment:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=STARTUP_TRIALS,
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=stream(self._seed, name) % 2**32,
            )
        study = optuna.create_study(direction="maximize" if self._maximize else "minimize", sampler=sampler)
        study.add_trials(told)
        return self._suggest(study.ask())

    def _told(self, trials: Sequence[TrialResult]) -> list[FrozenTrial]:
        """What TPE hears of: trials within the space, the best and the latest of them where they are many."""
        frozen = [self._frozen(trial) for trial in trials if self._space.contains(trial.config)]
        if len(frozen) <= TOLD_TRIALS:
            return frozen
        half = TOLD_TRIALS // 2
        early, late = frozen[:-half], frozen[-half:]
        valued = [trial for trial in early if trial.value is not None]
        return sorted(valued, key=lambda trial: trial.value or 0.0, reverse=self._maximize)[:half] + late

    def _frozen(self, trial: TrialResult) -> FrozenTrial:
        running = {
            index: mean
            for index in range(len(trial.folds))
            if (mean := summarise(trial.folds[: index + 1])[self._metric].mean) is not None
        }
        value = running.get(len(trial.folds) - 1)
        states = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        state = states.get(trial.state, TrialState.RUNNING)
        if state == TrialState.COMPLETE and value is None:
            state = TrialState.FAIL
        return create_trial(
            state=state,
            value=value if state == TrialState.COMPLETE else None,
            params=dict(trial.config),
            distributions={name: self._distributions[name] for name in trial.config},
            intermediate_values=running,
        )

    def _suggest(self, trial: optuna.trial.Trial) -> Assignment:
        chosen: Assignment = {}
        for dimension in self._space.dimensions:
            if not dimension.exists(chosen):
                continue
            parameter = dimension.parameter
            if isinstance(parameter, Choice):
                chosen[parameter.name] = trial.suggest_categorical(parameter.name, parameter.options)
            elif isinstance(parameter, Float):
                chosen[parameter.name] = trial.suggest_float(
                    parameter.name, parameter.low, parameter.high, log=parameter.log
                )
            else:
                chosen[parameter.name] = trial.suggest_int(
                    parameter.name, parameter.low, parameter.high, log=parameter.log
                )
        return chosen


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if isinstance(parameter, Float):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return IntDistribution(parameter.low, parameter.high, log=parameter.log)


def build_proposer(name: str, space: Space, *, seed: int, metric: str, maximize: bool) -> Proposer:
    """The proposer of that name. Raises: KeyError on names other than tpe, random and grid."""
    builders: dict[str, Callable[[], Proposer]] = {
        "random": lambda: RandomProposer(space, seed=seed),
        "grid": lambda: GridProposer(space, seed=seed),
        "tpe": lambda: TpeProposer(space, seed=seed, metric=metric, maximize=maximize),
    }
    return builders[name]()
