"""What a simulated search computes: the stages of every fold of a configuration, what they cost, and its scores."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from search.durations import Durations, classifier_variant, generator_variant
from search.simulation.work import RelativeWork
from spaces.budget import Budget
from spaces.config import TrialConfig, as_dict, trial_config
from spaces.generators import TrainedConfig, training_part
from spaces.parameter import Choice, Parameter, Value
from spaces.space import Space, digest_of
from trainables.results import Scores

GENERATOR = "generator"
BEFORE_THE_CLASSIFIER = ("preprocess", GENERATOR, "extractor")
"""The stages by whose state a trial chooses which of its folds comes next, as ``FoldKeys.before_the_classifier``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """A stage that a fold needs: its name, the key under which it is shared, the seconds that computing it takes."""

    name: str
    key: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One fold of a configuration: its stages in order, then its scores.

    ``error`` is what ends the trial after the last of the stages, in place of scores; None: nothing does.
    """

    stages: tuple[PlannedStage, ...]
    scores: Scores
    fidelity: Scores = field(default_factory=dict)
    error: str | None = None

    @property
    def before_the_classifier(self) -> tuple[PlannedStage, ...]:
        """The stages that trials share and wait for."""
        return tuple(stage for stage in self.stages if stage.name in BEFORE_THE_CLASSIFIER)


class Workload(Protocol):
    """What configurations cost and score; the same answer to the same question."""

    @property
    def folds(self) -> int:
        """Folds of a trial."""

    def evaluation(self, config: Mapping[str, Value], fold: int) -> Evaluation:
        """What fold ``fold`` (from 0) of a configuration computes and ends in."""


Identity: TypeAlias = tuple[tuple[str, str], ...]
"""What makes two configurations the same one, whatever the order of their settings."""


def identity(config: Mapping[str, Value]) -> Identity:
    """A configuration as something that can be looked up; True and 1 differ in it, and so do 1 and 1.0."""
    return tuple(sorted((name, repr(value)) for name, value in config.items()))


class TableWorkload:
    """Recorded evaluations, given back as they were recorded.

    Args:
        recorded: evaluations by configuration and fold number.
        folds: the fold numbers of the record that stand for the trial's folds, in order.
    """

    def __init__(self, recorded: Mapping[tuple[Identity, int], Evaluation], *, folds: Sequence[int]) -> None:
        self._recorded = recorded
        self._numbers = tuple(folds)

    @property
    def folds(self) -> int:
        """See ``Workload``."""
        return len(self._numbers)

    def evaluation(self, config: Mapping[str, Value], fold: int) -> Evaluation:
        """See ``Workload``. Raises: KeyError if the configuration was not recorded."""
        return self._recorded[identity(config), self._numbers[fold]]


class DrawnWorkload:
    """Seconds drawn for each stage from how long such stages took, scores from a smooth function of the configuration.

    A score is 0.7, plus up to 0.08 either way by the configuration, plus what a fold is like, which is the same for all
    configurations, plus noise. Equal stages of different configurations have one key and one duration.

    Args:
        space: what is searched; scores depend on its dimensions.
        budget: under which it is searched.
        durations: how long stages take.
        folds: of a trial.
        metric: the name of the score.
        noise: standard deviation of a fold's score for one configuration; that of the folds is as large.
        work: how many times as long as that a stage of a configuration takes; None: all take the same.
        seed: of all draws.
    """

    def __init__(
        self,
        space: Space,
        budget: Budget,
        durations: Durations,
        *,
        folds: int,
        metric: str = "balanced_accuracy",
        noise: float = 0.03,
        work: RelativeWork | None = None,
        seed: int,
    ) -> None:
        self._space = space
        self._budget = budget
        self._durations = durations
        self._folds = folds
        self._metric = metric
        self._noise = noise
        self._work = work
        self._seed = seed
        self._usual = trial_config({}, budget).preprocess
        self._drawn: dict[str, float] = {}
        self._effects: dict[str, float] = {}
        self._parsed: dict[Identity, tuple[TrialConfig, str]] = {}

    @property
    def folds(self) -> int:
        """See ``Workload``."""
        return self._folds

    def evaluation(self, config: Mapping[str, Value], fold: int) -> Evaluation:
        """See ``Workload``."""
        parsed, digest = self._parse(config)
        score = self.true_score(config) + self._normal(f"fold {fold}") + self._normal(f"{digest} in fold {fold}")
        copies = {} if parsed.synthetic is None else {"copy_rate": 0.0}
        return Evaluation(
            stages=tuple(self._stages(parsed, digest, fold)),
            scores={self._metric: min(max(score, 0.0), 1.0)},
            fidelity=copies,
        )

    def true_score(self, config: Mapping[str, Value]) -> float:
        """What a configuration would score in infinitely many folds."""
        names = self._space.names
        total = sum(self._effect(name, config[name]) for name in names if name in config)
        return 0.7 + 0.08 * math.tanh(total / max(1.0, math.sqrt(len(names))))

    def _parse(self, config: Mapping[str, Value]) -> tuple[TrialConfig, str]:
        name = identity(config)
        if name not in self._parsed:
            parsed = trial_config(config, self._budget)
            self._parsed[name] = parsed, parsed.digest
        return self._parsed[name]

    def _stages(self, config: TrialConfig, digest: str, fold: int) -> list[PlannedStage]:
        images = f"{fold}"
        if config.preprocess != self._usual:
            images = f"{digest_of(as_dict(config.preprocess))}-{fold}"
        found = [self._stage(config, "preprocess", images)]
        if isinstance(config.generator, TrainedConfig):
            trained = digest_of(as_dict(training_part(config.generator)))
            pooled = digest_of(as_dict(config.generator))
            name = generator_variant(config.generator)
            found += [
                self._stage(config, GENERATOR, f"{trained}-{images}", name),
                self._stage(config, "pool", f"{pooled}-{images}", name),
                self._stage(config, "extractor", images),
                self._stage(config, "fidelity", f"{pooled}-{images}"),
            ]
        return [*found, self._stage(config, "classifier", f"{digest}-{fold}", classifier_variant(config))]

    def _stage(self, config: TrialConfig, name: str, key: str, variant: str = "") -> PlannedStage:
        """A stage whose duration is that of its key, whoever asks first."""
        full = f"{name}-{key}"
        if full not in self._drawn:
            spread = self._durations.spread(name, variant)
            seconds = spread.median * math.exp(spread.sigma * self._rng(f"seconds of {full}").gauss(0, 1))
            self._drawn[full] = seconds * (1.0 if self._work is None else self._work(name, config))
        return PlannedStage(name=name, key=key, seconds=self._drawn[full])

    def _effect(self, name: str, value: Value) -> float:
        parameter = next(each.parameter for each in self._space.variants(name))
        if isinstance(parameter, Choice) or isinstance(value, str | bool):
            return self._remembered(f"{name} is {value!r}", lambda rng: rng.gauss(0, 1))
        peak = self._remembered(f"peak of {name}", lambda rng: rng.random())
        weight = self._remembered(f"weight of {name}", lambda rng: rng.uniform(0, 4))
        return -weight * (_position(parameter, value) - peak) ** 2

    def _normal(self, name: str) -> float:
        return self._noise * self._rng(name).gauss(0, 1)

    def _remembered(self, name: str, draw: Callable[[random.Random], float]) -> float:
        if name not in self._effects:
            self._effects[name] = draw(self._rng(name))
        return self._effects[name]

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{name}")  # noqa: S311 - no secret


def _position(parameter: Parameter, value: float) -> float:
    """Where a number lies between its bounds on its own scale, 0 to 1."""
    if isinstance(parameter, Choice) or parameter.low == parameter.high:
        return 0.5
    low, high = parameter.low, parameter.high
    if not parameter.log:
        return (value - low) / (high - low)
    return math.log(value / low) / math.log(high / low)
