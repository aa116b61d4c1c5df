"""What a search will cost before it has begun: it is simulated with the durations of stages that are known."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from search.durations import Durations, Kind, Spread, reference_durations
from search.objectives import Objective
from search.simulation.course import Cluster, Proposes
from search.simulation.driver import Plan
from search.simulation.measured import measured_durations
from search.simulation.work import RelativeWork
from search.simulation.workload import DrawnWorkload
from search.simulator import simulate
from spaces.budget import Budget
from spaces.config import SYNTHETIC_MIXERS
from spaces.parameter import Choice
from spaces.space import GENERATOR_NAME, Assignment, Space
from spaces.wording import counted
from trainables.results import TrialResult

_MOST_SIMULATED = 400
"""Trials; what more of them cost is taken in proportion, which is too much rather than too little."""
CONFIRMATION_SHARE = 0.25
"""``search.confirm.SHARE``, which costs the import of Ray."""
STARTUP, NEW_WITHIN = 8, 5
"""Those of ``search.reuse``, which costs the import of scikit-learn."""
_PLAIN_DRAWS = 50
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
        compute, unshared, wall = map(clock, (self.compute_seconds, self.unshared_seconds, self.wall_seconds))
        return (
            f"About {counted(self.trials, 'trial')} x {counted(self.folds, 'fold')}: {compute} of compute ({unshared} "
            f"if no stage were shared), {wall} on {counted(self.slots, 'slot')}, if no trial is stopped early; "
            f"roughly, from {self._source()}, in proportion to training images ({self.durations.images} here), pixels "
            f"and lengths of training."
        )

    def _source(self) -> str:
        measured = f"{counted(self.durations.measured, 'stage')} measured in this storage"
        known = ([measured] if self.durations.measured else []) + (
            ["reference durations of one CPU core"] if self.durations.reference else []
        )
        return " and, for what they do not tell, ".join(known)


def known_durations(storage: Path, space: Space, budget: Budget, *, images: int) -> Durations:
    """How long stages of a search take: measured ones first, then reference durations.

    Args:
        storage: in whose stages they were measured.
        space: what is searched.
        budget: its budget.
        images: training images of a fold.
    """
    measured = measured_durations(storage, space, budget, images=images)
    reference = reference_durations(budget, images=images)
    return _with_middles(measured if reference is None else measured.over(reference))


def unmeasured(space: Space, budget: Budget, references: Mapping[str, Assignment], durations: Durations) -> str:
    """What a search would train and nothing is known of, in words; "" where there is no such thing."""
    found = []
    for stage, usual in (("classifier", [budget.settings["classifier.name"]]), ("generator", [])):
        name = f"{stage}.name"
        own = [each.parameter for each in space.dimensions if each.name == name]
        options = [value for each in own if isinstance(each, Choice) for value in each.options]
        options = [*(options or usual), *(each[name] for each in references.values() if name in each)]
        missing = [str(each) for each in dict.fromkeys(options) if not durations.knows(stage, str(each))]
        if missing:
            found.append(f"the {stage}{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return " and ".join(found)


def estimate(
    space: Space,
    budget: Budget,
    *,
    trials: int,
    folds: int,
    concurrency: int,
    sampler: str,
    durations: Durations,
    references: Mapping[str, Assignment],
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
        durations: how long stages take; nothing that is trained is unmeasured.
        references: the reference policies, which come first.
        sharing: whether trials find each other's stages.
        seed: of the draws.
    """
    simulated = min(trials, _MOST_SIMULATED)
    proposer: Proposes = _OverGenerators(space, seed=seed) if sampler == "reuse" else _Draws(space, seed=seed)
    plan = Plan(
        workload=DrawnWorkload(space, budget, durations, folds=folds, work=RelativeWork(budget), seed=seed),
        proposer=proposer,
        objectives=(_OBJECTIVE,),
        wanted=simulated,
        references=references,
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
        new = number % NEW_WITHIN == 0
        if number < STARTUP and not new:
            more = (self._space.sample(rng) for _ in range(_PLAIN_DRAWS))
            drawn = next((each for each in more if GENERATOR_NAME not in each), drawn)
        if new or not generators or drawn.get("mixer.name") not in SYNTHETIC_MIXERS:
            return drawn
        used = {name: value for name, value in rng.choice(generators).items() if name.startswith("generator.")}
        return self._space.complete({**drawn, **used})


def _with_middles(durations: Durations) -> Durations:
    """The same, with the longest of a stage's kinds for kinds that are not known, and nothing for unknown stages.

    A classifier under a mixer that was not measured takes what it takes under the dearest one that was.
    """
    longest: dict[Kind, Spread] = {}
    for (stage, variant), spread in durations.spreads.items():
        for kind in ((stage, variant.partition(" ")[0]), (stage, "")):
            if kind not in longest or longest[kind].median < spread.median:
                longest[kind] = spread
    nothing = {(stage, ""): Spread(median=0.0) for stage in ("preprocess", "pool", "extractor", "fidelity")}
    return replace(durations, spreads={**nothing, **longest, **durations.spreads})


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=max(1, math.ceil(seconds))))
