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
from spaces.space import Assignment, Dimension, Space
from trainables.errors import DataError, FinalTrialError
from trainables.results import TrialResult, summarise
from trainables.seeding import stream

STARTUP_TRIALS = 8
"""Told trials, reference policies included, before TPE models anything."""
TOLD_TRIALS = 500
_REDRAWS = 10
_FAILED = 2.0
"""How much a trial that fails again violates; copy rates, and what they exceed a limit by, are at most 1."""
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

    Of a grid with more than ``GRID_LIMIT`` configurations as many are drawn as trials are wanted: branch by branch, so
    that a generator with many settings is not tried more often than one with few.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._grid = list(itertools.islice(space.grid(GRID_POINTS), GRID_LIMIT + 1))
        self._is_whole = len(self._grid) <= GRID_LIMIT
        random.Random(stream(seed, "grid")).shuffle(self._grid)  # noqa: S311 - no secret

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        if not self._is_whole:
            return _untried(self._draw, number, trials)
        tried = [trial.config for trial in trials]
        return next((config for config in self._grid if config not in tried), None)

    def _draw(self, name: str) -> Assignment:
        rng = random.Random(stream(self._seed, name))  # noqa: S311 - no secret
        drawn: Assignment = {}
        for dimension in self._space.dimensions:
            if dimension.exists(drawn):
                drawn[dimension.name] = rng.choice(dimension.parameter.grid(GRID_POINTS))
        return drawn


class TpeProposer:
    """Optuna's multivariate, grouped Tree-structured Parzen Estimator over the trials of the ledger.

    A trial that exceeds the copy rate violates a constraint by the excess. One that would fail again in the same way,
    as a generator that diverges, violates one by more than any copy rate can: it ranks last. A trial that a crash
    ended says nothing about its configuration, and is not told.

    Args:
        space: what is searched.
        seed: the search's seed.
        metric: the score to improve.
        maximize: whether more is better.
        max_copy_rate: the limit of a trial's copy rate; None: no limit.
    """

    def __init__(
        self, space: Space, *, seed: int, metric: str, maximize: bool, max_copy_rate: float | None = None
    ) -> None:
        self._space = space
        self._seed = seed
        self._metric = metric
        self._maximize = maximize
        self._max_copy_rate = max_copy_rate
        self._distributions = {_told_as(each, space): _distribution(each.parameter) for each in space.dimensions}

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
        valued = [trial for trial in early if trial.value is not None and not any(trial.constraints.values())]
        return sorted(valued, key=lambda trial: trial.value or 0.0, reverse=self._maximize)[:half] + late

    def _frozen(self, trial: TrialResult) -> FrozenTrial:
        running = {
            index: mean
            for index in range(len(trial.folds))
            if (mean := summarise(trial.folds[: index + 1])[self._metric].mean) is not None
        }
        state, violations = self._verdict(trial, running.get(len(trial.folds) - 1))
        params = {
            _told_as(each, self._space): trial.config[each.name]
            for each in self._space.dimensions
            if each.exists(trial.config)
        }
        return create_trial(
            state=state,
            value=running[len(trial.folds) - 1] if state == TrialState.COMPLETE else None,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            intermediate_values=running,
            constraints=violations,
        )

    def _verdict(self, trial: TrialResult, value: float | None) -> tuple[TrialState, dict[str, float]]:
        """A trial's state as Optuna knows it, and by how much it violates what a trial must hold."""
        if _fails_again(trial):
            return TrialState.PRUNED, {"failed": _FAILED}
        states = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        state = states.get(trial.state, TrialState.RUNNING)
        if state == TrialState.COMPLETE and value is None:
            state = TrialState.FAIL
        if self._max_copy_rate is None:
            return state, {}
        return state, {"copy_rate": max(0.0, (trial.copy_rate or 0.0) - self._max_copy_rate)}

    def _suggest(self, trial: optuna.trial.Trial) -> Assignment:
        chosen: Assignment = {}
        for dimension in self._space.dimensions:
            if not dimension.exists(chosen):
                continue
            parameter, name = dimension.parameter, _told_as(dimension, self._space)
            if isinstance(parameter, Choice):
                chosen[parameter.name] = trial.suggest_categorical(name, parameter.options)
            elif isinstance(parameter, Float):
                chosen[parameter.name] = trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
            else:
                chosen[parameter.name] = trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
        return chosen


def _told_as(dimension: Dimension, space: Space) -> str:
    """The name under which Optuna knows a dimension, where bounds belong to a name for good."""
    if len(space.variants(dimension.name)) == 1 or dimension.when is None:
        return dimension.name
    return f"{dimension.name} ({', '.join(map(str, dimension.when.values))})"


def _fails_again(trial: TrialResult) -> bool:
    """Whether a trial failed for a reason that lies in its configuration: its error begins with the error's class."""
    final: list[type[Exception]] = [FinalTrialError, *FinalTrialError.__subclasses__(), DataError]
    named = (trial.error or "").partition(":")[0]
    return trial.state == "failed" and any(named == each.__name__ for each in final)


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if isinstance(parameter, Float):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return IntDistribution(parameter.low, parameter.high, log=parameter.log)


def build_proposer(
    name: str, space: Space, *, seed: int, metric: str, maximize: bool, max_copy_rate: float | None = None
) -> Proposer:
    """The proposer of that name. Raises: KeyError on names other than tpe, random and grid."""
    builders: dict[str, Callable[[], Proposer]] = {
        "random": lambda: RandomProposer(space, seed=seed),
        "grid": lambda: GridProposer(space, seed=seed),
        "tpe": lambda: TpeProposer(space, seed=seed, metric=metric, maximize=maximize, max_copy_rate=max_copy_rate),
    }
    return builders[name]()
