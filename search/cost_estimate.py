"""What a search will cost before it has begun: it is simulated with the durations of stages that are known."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from search.durations import Durations, measured_durations, reference_durations
from search.objectives import Objective
from search.simulation.course import Cluster, Proposes
from search.simulation.driver import Plan
from search.simulation.workload import DrawnWorkload
from search.simulator import simulate
from spaces.budget import Budget
from spaces.config import SYNTHETIC_MIXERS
from spaces.reference import reference_policies
from spaces.space import GENERATOR_NAME, Assignment, Space
from trainables.results import TrialResult

_MOST_SIMULATED = 400
"""Trials; what more of them cost is taken in proportion, which is too much rather than too little."""
_STARTUP = 8
_NEW_WITHIN = 5
_OBJECTIVE = Objective(name="balanced_accuracy", maximize=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """What a search will cost, if no trial is stopped early.

    Args:
        trials: how many.
        folds: of each.
        slots: trials at once.
        compute_seconds: of all slots together.
        unshared_seconds: the same if no trial found another's stages.
        wall_seconds: from the first trial's start to the last one's end.
        durations: from which it was made.
    """

    trials: int
    folds: int
    slots: int
    compute_seconds: float
    unshared_seconds: float
    wall_seconds: float
    durations: Durations

    def in_words(self) -> str:
        """One sentence for the terminal."""
        compute, unshared, wall = map(_time, (self.compute_seconds, self.unshared_seconds, self.wall_seconds))
        source = f"from reference durations of one CPU core and {self.durations.images} training images"
        if self.durations.measured:
            source = f"from {self.durations.measured} stages measured in this storage"
        return (
            f"About {self.trials} trials x {self.folds} folds: {compute} of compute ({unshared} if no stage were "
            f"shared), {wall} on {self.slots} {'slot' if self.slots == 1 else 'slots'}, if no trial is stopped early; "
            f"{source}."
        )


def known_durations(storage: Path, budget: Budget, *, images: int | None = None) -> Durations | None:
    """How long stages of a budget take: measured ones first, then reference durations; None if too little is known.

    Args:
        storage: in whose stages they were measured.
        budget: the search's.
        images: training images of a fold, if that is known.
    """
    measured, reference = measured_durations(storage, budget), reference_durations(budget, images=images)
    if reference is not None:
        return measured.over(reference)
    names = {stage for stage, _ in measured.spreads}
    if not {"generator", "classifier"} <= names:
        return None
    return _with_middles(measured)


def estimate(
    space: Space,
    budget: Budget,
    *,
    trials: int,
    folds: int,
    concurrency: int,
    sampler: str,
    durations: Durations,
    sharing: bool = True,
    seed: int = 0,
) -> CostEstimate:
    """Simulate a search and add up what it computes.

    Configurations are draws from the space; for the sampler "reuse" all but one in five of them (at first one in two)
    have a generator that an earlier one had. Trials run all their folds: what a scheduler saves comes off.

    Args:
        space: what is searched.
        budget: its budget.
        trials: how many, reference policies included.
        folds: trainings and tests of a trial.
        concurrency: trials at once.
        sampler: its name.
        durations: how long stages take.
        sharing: whether trials find each other's stages.
        seed: of the draws.
    """
    simulated = min(trials, _MOST_SIMULATED)
    proposer: Proposes = _OverGenerators(space, seed=seed) if sampler == "reuse" else _Draws(space, seed=seed)
    plan = Plan(
        workload=DrawnWorkload(space, budget, durations, folds=folds, seed=seed),
        proposer=proposer,
        objectives=(_OBJECTIVE,),
        wanted=simulated,
        references=reference_policies(space),
        sharing=sharing,
    )
    found = simulate(plan, Cluster(slots=concurrency), seed=seed)
    more = trials / simulated
    stages = (stage for trial in found.trials for fold in trial.folds for stage in fold.stages)
    return CostEstimate(
        trials=trials,
        folds=folds,
        slots=concurrency,
        compute_seconds=more * found.compute_seconds,
        unshared_seconds=more * sum(stage.seconds for stage in stages),
        wall_seconds=more * found.wall_seconds,
        durations=durations,
    )


class _Draws:
    """Stands in for samplers that take no account of what exists."""

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment:
        """See ``Proposer``."""
        return self._space.sample(self._rng(number))

    def _rng(self, number: int) -> random.Random:
        return random.Random(f"{self._seed}/proposal {number}")  # noqa: S311 - no secret


class _OverGenerators(_Draws):
    """Stands in for the sampler that reuses generators."""

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment:
        """See ``Proposer``."""
        rng = self._rng(number)
        drawn = self._space.sample(rng)
        generators = [trial.config for trial in trials if GENERATOR_NAME in trial.config]
        new = number % (2 if number < _STARTUP else _NEW_WITHIN) == 0
        if new or not generators or drawn.get("mixer.name") not in SYNTHETIC_MIXERS:
            return drawn
        used = {name: value for name, value in rng.choice(generators).items() if name.startswith("generator.")}
        return self._space.complete({**drawn, **used})


def _with_middles(durations: Durations) -> Durations:
    """The same, with the longest of a stage's kinds for kinds that are not known, and nothing for other stages."""
    spreads = dict(durations.spreads)
    for stage in ("preprocess", "generator", "pool", "extractor", "fidelity", "classifier"):
        own = [spread for (name, _), spread in durations.spreads.items() if name == stage]
        longest = max(own, key=lambda spread: spread.median, default=None)
        if (stage, "") not in spreads and longest is not None:
            spreads[stage, ""] = longest
    return Durations(spreads=spreads, measured=durations.measured)


def _time(seconds: float) -> str:
    return str(timedelta(seconds=max(1, math.ceil(seconds))))
