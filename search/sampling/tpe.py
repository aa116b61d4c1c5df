"""Proposals of Optuna's Tree-structured Parzen Estimator over the trials of the ledger."""

from __future__ import annotations

import copy
import heapq
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.objectives import Objective, fold_value, trial_value
from search.sampling.columns import ascending, told_as
from search.sampling.draws import STARTUP_TRIALS, Draws
from search.sampling.earlier import EarlierTrial
from search.sampling.remembered import Remembered
from spaces.errors import ConfigError
from spaces.parameter import Choice, Float, Parameter, Value
from spaces.space import Assignment, Dimension, Space
from trainables.errors import DataError, FinalTrialError
from trainables.results import TrialResult
from trainables.seeding import stream

TOLD_TRIALS = 200
"""Of more trials only the best and the latest are told: a proposal takes time in proportion."""
_FAILED = 2.0
"""How much a trial that fails again violates; copy rates, and what they exceed a limit by, are at most 1."""


class TpeProposer:
    """Optuna's multivariate, grouped Tree-structured Parzen Estimator over the trials of the ledger.

    A trial that exceeds the copy rate violates a constraint by the excess. One that would fail again in the same way,
    as a generator that diverges, violates one by more than any copy rate can: it ranks last. A trial that a crash
    ended says nothing about its configuration, and is not told. A trial of another fidelity is told as pruned, so that
    it counts only as long as there are few others.

    Args:
        space: what is searched.
        seed: the search's seed.
        objectives: what is improved, at least one. With several, pruned trials count as worse than all others.
        max_copy_rate: the limit of a trial's copy rate; None: no limit.
        earlier: trials of earlier searches; those outside the space are ignored.
        told: how many trials TPE is told at most.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        objectives: tuple[Objective, ...],
        max_copy_rate: float | None = None,
        earlier: Sequence[EarlierTrial] = (),
        told: int = TOLD_TRIALS,
    ) -> None:
        self._space = space
        self._seed = seed
        self._draws = Draws(space, seed=seed)
        self._objectives = objectives
        self._max_copy_rate = max_copy_rate
        self._most = told
        self._distributions = {told_as(each, space): _distribution(each.parameter) for each in space.dimensions}
        self._frozen = Remembered(self._freeze_own)
        within = (each for each in earlier if space.contains(each.trial.config))
        self._earlier = [self._freeze(each.named, same_fidelity=each.same_fidelity) for each in within]

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        told = self._told(trials)
        return self._draws.untried(number, trials, lambda name: self.ask(name, told))

    def suggestion(self, name: str, trials: Sequence[TrialResult]) -> Assignment:
        """What TPE would try next, tried before or not; ``name`` is that of the random stream."""
        return self.ask(name, self._told(trials))

    def ask(self, name: str, told: Sequence[FrozenTrial]) -> Assignment:
        """The suggestion of one random stream after the trials ``told``."""
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
        directions = ["maximize" if each.maximize else "minimize" for each in self._objectives]
        study = optuna.create_study(directions=directions, sampler=sampler)
        study.add_trials(told)
        return self._suggest(study.ask())

    def _told(self, trials: Sequence[TrialResult]) -> list[_Told]:
        """What TPE hears of: trials within the space, the best and the latest of them where they are many."""
        frozen = self._earlier + [told for trial in trials if (told := self._frozen(trial)) is not None]
        if len(frozen) <= self._most:
            return frozen
        half = self._most // 2
        early, late = frozen[:-half], frozen[-half:]
        valued = [trial for trial in early if trial.is_sound]
        return self._best(valued, half) + late

    def _best(self, valued: Sequence[_Told], many: int) -> list[_Told]:
        """The best trials, by one objective after the other in turn."""
        orders = [
            (heapq.nlargest if objective.maximize else heapq.nsmallest)(many, valued, key=_valued(index))
            for index, objective in enumerate(self._objectives)
        ]
        best = {id(trial): trial for ranked in zip(*orders, strict=True) for trial in ranked}
        return list(best.values())[:many]

    def _freeze_own(self, trial: TrialResult) -> _Told | None:
        """A trial of the search as Optuna knows it, None where it lies outside the space."""
        return self._freeze(trial, same_fidelity=True) if self._space.contains(trial.config) else None

    def _freeze(self, trial: TrialResult, *, same_fidelity: bool) -> _Told:
        values = [trial_value(trial, each) for each in self._objectives]
        state, violations = self._verdict(trial, [value for value in values if value is not None])
        if not same_fidelity and state == TrialState.COMPLETE:
            state = TrialState.PRUNED
        elif not same_fidelity and state == TrialState.RUNNING:
            state = TrialState.FAIL
        existing = [each for each in self._space.dimensions if each.exists(trial.config)]
        params = {told_as(each, self._space): _told_value(each.parameter, trial.config[each.name]) for each in existing}
        return _Told.of(
            create_trial(
                state=state,
                values=values if state == TrialState.COMPLETE else None,
                params=params,
                distributions={name: self._distributions[name] for name in params},
                intermediate_values=self._running_means(trial),
                constraints=violations,
            )
        )

    def _running_means(self, trial: TrialResult) -> dict[int, float]:
        """The mean after each fold, of a single objective: Optuna ranks no pruned trials by several."""
        if len(self._objectives) > 1:
            return {}
        means: dict[int, float] = {}
        sum_, many = 0.0, 0
        for index, fold in enumerate(trial.folds):
            value = None if fold.locked else fold_value(fold, self._objectives[0].name)
            if value is not None:
                sum_, many = sum_ + value, many + 1
            if many:
                means[index] = sum_ / many
        return means

    def _verdict(self, trial: TrialResult, values: Sequence[float]) -> tuple[TrialState, dict[str, float]]:
        """A trial's state as Optuna knows it, and by how much it violates what a trial must hold."""
        if fails_again(trial):
            return TrialState.PRUNED, {"failed": _FAILED}
        states = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        state = states.get(trial.state, TrialState.RUNNING)
        if state == TrialState.COMPLETE and len(values) < len(self._objectives):
            state = TrialState.FAIL
        if self._max_copy_rate is None:
            return state, {}
        return state, {"copy_rate": max(0.0, (trial.copy_rate or 0.0) - self._max_copy_rate)}

    def _suggest(self, trial: optuna.trial.Trial) -> Assignment:
        chosen: Assignment = {}
        for dimension in self._space.dimensions:
            if dimension.exists(chosen):
                name = told_as(dimension, self._space)
                chosen[dimension.name] = _suggested(trial, name, dimension)
        return chosen


class _Told(FrozenTrial):  # type: ignore[misc]
    """A trial that a study takes without copying what is in it, which nobody changes.

    ``is_sound`` says whether it has values and violates nothing.
    """

    is_sound: bool

    @classmethod
    def of(cls, trial: FrozenTrial) -> _Told:
        """The same trial."""
        told = cls.__new__(cls)
        told.__dict__.update(trial.__dict__)
        told.is_sound = bool(trial.values) and not any(trial.constraints.values())
        return told

    def __deepcopy__(self, memo: Mapping[int, Any]) -> _Told:
        return copy.copy(self)


def _valued(index: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[index])


def _suggested(trial: optuna.trial.Trial, name: str, dimension: Dimension) -> Value:
    parameter, options = dimension.parameter, ascending(dimension.parameter)
    value: Value
    if options is not None:
        value = options[trial.suggest_int(name, 0, len(options) - 1)]
    elif isinstance(parameter, Choice):
        value = trial.suggest_categorical(name, parameter.options)
    elif isinstance(parameter, Float):
        value = trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
    else:
        value = trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
    return value


def _distribution(parameter: Parameter) -> BaseDistribution:
    options = ascending(parameter)
    if options is not None:
        return IntDistribution(0, len(options) - 1)
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if isinstance(parameter, Float):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return IntDistribution(parameter.low, parameter.high, log=parameter.log)


def _told_value(parameter: Parameter, value: Value) -> Value:
    options = ascending(parameter)
    return value if options is None else options.index(value)


def fails_again(trial: TrialResult) -> bool:
    """Whether a trial failed for a reason that lies in its configuration: its error begins with the error's class."""
    final: list[type[Exception]] = [FinalTrialError, *FinalTrialError.__subclasses__(), DataError, ConfigError]
    named = (trial.error or "").partition(":")[0]
    return trial.state == "failed" and any(named == each.__name__ for each in final)
