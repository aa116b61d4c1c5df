"""Which generators a search has trained: what a configuration shares with others, and what is left to train of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from search.sampling.remembered import Remembered
from search.sampling.tpe import fails_again
from spaces.budget import Budget
from spaces.config import BlendConfig, as_dict, trial_config
from spaces.errors import ConfigError
from spaces.generators import NoGeneratorConfig, TrainedConfig, sampling_names, training_part
from spaces.parameter import Value
from spaces.space import GENERATOR_NAME, Assignment, digest_of
from trainables.results import TrialResult

_DECIDING = ("generator.", "preprocess.")
"""The settings that decide on a generator, and on nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a configuration takes from its generator.

    Args:
        generator: digest of all that its training depends on, except how long it is; equal where it is shared.
        steps: how long it trains: a position on one trajectory.
        sampling: digest of the settings with which images are drawn from it.
    """

    generator: str
    steps: int
    sampling: str


def parts_of(config: Mapping[str, Value], budget: Budget) -> Parts | None:
    """What a configuration takes from its generator; None where it has none, or is none that a trial understands."""
    deciding = {name: value for name, value in config.items() if name.startswith(_DECIDING)}
    if deciding.get(GENERATOR_NAME, NoGeneratorConfig.name) == NoGeneratorConfig.name:
        return None
    try:
        typed = trial_config({**deciding, "mixer.name": BlendConfig.name}, budget)
    except ConfigError:
        return None
    if not isinstance(typed.generator, TrainedConfig):
        return None
    settings = as_dict(training_part(typed.generator))
    steps = int(settings.pop("steps"))
    sampling = {name: getattr(typed.generator, name) for name in typed.generator.SAMPLING}
    return Parts(generator=digest_of([as_dict(typed.preprocess), settings]), steps=steps, sampling=digest_of(sampling))


@dataclass(slots=True, kw_only=True)
class Existing:
    """One generator of a search.

    ``trained`` holds the folds that are finished at each number of steps, ``sampled`` those whose images are drawn, by
    steps and sampling; ``running`` holds the steps of each trial that has not ended, ``rates`` are the trials' copy
    rates; ``failed`` holds the samplings of trials that would fail again.
    """

    config: Assignment
    trained: dict[int, set[int]] = field(default_factory=dict)
    sampled: dict[tuple[int, str], set[int]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    def missing(self, steps: int, folds: AbstractSet[int]) -> float:
        """The share of a training of that length, over all folds, that is left, and that no running trial will do."""
        left = 0.0
        for fold in folds:
            positions = [*(position for position, done in self.trained.items() if fold in done), *self.running]
            left += 1 - max((each for each in positions if each <= steps), default=0) / steps
        return left / len(folds)

    def undrawn(self, parts: Parts, folds: AbstractSet[int]) -> float:
        """The share of the folds whose images are not drawn yet."""
        return 1 - len(self.sampled.get((parts.steps, parts.sampling), set()) & folds) / len(folds)

    def is_busy(self, folds: AbstractSet[int], *, most: int | None) -> bool:
        """Whether as many trials train it as may.

        Args:
            folds: of a whole trial.
            most: how many that is; None: one for each fold that is left, as another one would have to wait.
        """
        left = len(folds) - max((len(done & folds) for done in self.trained.values()), default=0)
        return left > 0 and len(self.running) >= (left if most is None else most)

    def is_fit(self, max_copy_rate: float | None) -> bool:
        """Whether it has neither diverged nor been found to copy too much.

        Where trials sample it each in their own way, one of them may have failed by that alone; two ways may not.
        """
        if not self.trained and len(self.failed) >= (2 if sampling_names(str(self.config.get(GENERATOR_NAME))) else 1):
            return False
        return max_copy_rate is None or not self.rates or sum(self.rates) / len(self.rates) <= max_copy_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """What one trial says about its generator."""

    parts: Parts | None
    folds: frozenset[int]
    rate: float | None
    has_failed: bool


class Catalogue:
    """Reads off trials which generators they have.

    Args:
        budget: the search's.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._parts: dict[tuple[tuple[str, Value], ...], Parts | None] = {}
        self._use = Remembered(self._read)

    def parts(self, config: Mapping[str, Value]) -> Parts | None:
        """As ``parts_of``; what configurations share is computed once."""
        key = tuple(sorted((name, value) for name, value in config.items() if name.startswith(_DECIDING)))
        if key not in self._parts:
            self._parts[key] = parts_of(config, self._budget)
        return self._parts[key]

    def existing(self, trials: Iterable[TrialResult]) -> Existing:
        """What trials with one generator, at least one, say of it; the first introduced it."""
        found: Existing | None = None
        for trial in trials:
            use = self._use(trial)
            found = found or Existing(config=trial.config)
            if use.folds and use.parts is not None:
                found.trained.setdefault(use.parts.steps, set()).update(use.folds)
                found.sampled.setdefault((use.parts.steps, use.parts.sampling), set()).update(use.folds)
            if use.rate is not None:
                found.rates.append(use.rate)
            if trial.state == "unfinished" and use.parts is not None:
                found.running.append(use.parts.steps)
            if use.has_failed:
                found.failed.add(use.parts.sampling if use.parts is not None else "")
        if found is None:
            raise ValueError("a generator exists by a trial that has it; none is given.")
        return found

    def folds(self, trial: TrialResult) -> frozenset[int]:
        """The folds that a trial has finished."""
        return self._use(trial).folds

    def whole(self, finished: frozenset[int]) -> frozenset[int]:
        """The folds of a whole trial: those that completed ones have finished, or the budget's before there is one."""
        return finished or frozenset(range(self._budget.folds))

    def _read(self, trial: TrialResult) -> _Use:
        return _Use(
            parts=self.parts(trial.config),
            folds=frozenset(fold.fold for fold in trial.folds if not fold.locked),
            rate=trial.copy_rate,
            has_failed=fails_again(trial),
        )
