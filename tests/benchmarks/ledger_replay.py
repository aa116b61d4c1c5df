"""Replays a search from the stage seconds on its record: the same trials, with and without sharing, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.objectives import Objective
from search.simulation.course import Cluster, Simulation
from search.simulation.driver import Plan
from search.simulation.workload import GENERATOR, Evaluation, PlannedStage, identity
from search.simulator import simulate
from spaces.parameter import Value
from spaces.space import Assignment
from trainables.results import TrialResult

_METRIC = Objective(name="balanced_accuracy", maximize=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What a replay took: seconds of training generators, and from the first trial's start to the last one's end."""

    generator: float
    wall: float


class RecordedWorkload:
    """The stages of recorded trials. A fold that failed has none on record: it costs nothing, in every replay.

    Args:
        trials: as a ledger has them.
        folds: of a trial.

    Raises: ValueError where stages are positions on one trajectory, whose seconds depend on what came before.
    """

    def __init__(self, trials: Sequence[TrialResult], *, folds: int) -> None:
        self._trials = {identity(trial.config): trial for trial in trials}
        self._folds = folds
        keys = {(stage.name, stage.key) for trial in trials for fold in trial.folds for stage in fold.stages}
        continued = {(name, key.partition("-")[0]) for name, key in keys}
        if len(continued) < len(keys):
            raise ValueError("some trainings continue shorter ones; a replay needs a space that does not search steps.")

    @property
    def folds(self) -> int:
        """See ``Workload``."""
        return self._folds

    def evaluation(self, config: Mapping[str, Value], fold: int) -> Evaluation:
        """See ``Workload``."""
        found = next((each for each in self._trials[identity(config)].folds if each.fold == fold), None)
        if found is None:
            return Evaluation(stages=(), scores={})
        return Evaluation(
            stages=tuple(PlannedStage(name=each.name, key=each.key, seconds=each.seconds) for each in found.stages),
            scores=found.scores,
            fidelity=found.fidelity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """Proposes given configurations in their order."""

    configs: Sequence[Assignment]

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        return self.configs[number] if number < len(self.configs) else None


def replay(trials: Sequence[TrialResult], *, folds: int, slots: int, sharing: bool) -> Times:
    """Run recorded trials again in virtual time, all their folds, in the order in which they were proposed.

    Args:
        trials: as a ledger has them.
        folds: of a trial.
        slots: trials at once.
        sharing: whether trials find each other's stages.
    """
    plan = Plan(
        workload=RecordedWorkload(trials, folds=folds),
        proposer=_Listed(configs=[trial.config for trial in trials]),
        objectives=(_METRIC,),
        wanted=len(trials),
        sharing=sharing,
    )
    found: Simulation = simulate(plan, Cluster(slots=slots), seed=0)
    return Times(generator=found.computed.get(GENERATOR, 0.0), wall=found.wall_seconds)
