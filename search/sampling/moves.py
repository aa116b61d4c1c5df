"""Configurations made of others: near one, or new downstream settings over a generator that exists."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import TypeAlias

from search.sampling.columns import ascending, unit
from spaces.generators import sampling_names
from spaces.parameter import Choice, Float, Parameter, Value
from spaces.space import GENERATOR_NAME, Assignment, Dimension, Space

_Choose: TypeAlias = Callable[[Dimension], Value]
_STEP = 0.2
"""Standard deviation of a number's change, as a share of its bounds."""
_CHANGED = 0.3
_STEPS = "generator.steps"


class Moves:
    """Makes configurations of a space out of others; all randomness is the caller's."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._leading_to_generator = _needed(space)

    def near(self, config: Mapping[str, Value], rng: random.Random) -> Assignment:
        """A configuration that differs from ``config`` in a few dimensions, at least one."""
        existing = [each.name for each in self._space.dimensions if each.exists(config)]
        certain = rng.choice(existing)

        def choose(dimension: Dimension) -> Value:
            value = config.get(dimension.name)
            if value is None or not dimension.parameter.contains(value):
                return dimension.parameter.sample(rng)
            if dimension.name == certain or rng.random() < _CHANGED / 2:
                return _moved(dimension.parameter, value, rng)
            return value

        return self._walk(choose)

    def over(
        self, generator: Mapping[str, Value], rng: random.Random, *, like: Mapping[str, Value] | None = None
    ) -> Assignment:
        """New downstream settings over the generator of a configuration.

        Args:
            generator: a configuration that has one.
            rng: draws what is new.
            like: a configuration whose downstream settings are taken, some of them changed; None: all are drawn.
        """
        kept = self._fixed(generator)
        model = {**generator, **like} if like is not None else {}
        if _STEPS in generator:
            model[_STEPS] = generator[_STEPS]

        def choose(dimension: Dimension) -> Value:
            parameter, name = dimension.parameter, dimension.name
            if name in kept and parameter.contains(kept[name]):
                return kept[name]
            allowed = self._leading_to_generator.get(name)
            if allowed is not None and isinstance(parameter, Choice):
                parameter = parameter.only(allowed)
            value = model.get(name, kept.get(name))
            if value is None or not parameter.contains(value):
                return parameter.sample(rng)
            return _moved(parameter, value, rng) if rng.random() < _CHANGED else value

        return self._walk(choose)

    def _fixed(self, config: Mapping[str, Value]) -> Assignment:
        """The values on which the training of a configuration's generator depends, except how long it is."""
        free = {f"generator.{name}" for name in sampling_names(str(config.get(GENERATOR_NAME)))}
        return {
            name: value
            for name, value in config.items()
            if name.startswith(("generator.", "preprocess.")) and name not in free | {_STEPS}
        }

    def _walk(self, choose: _Choose) -> Assignment:
        chosen: Assignment = {}
        for dimension in self._space.dimensions:
            if dimension.exists(chosen):
                chosen[dimension.name] = choose(dimension)
        return chosen


def _needed(space: Space) -> dict[str, tuple[Value, ...]]:
    """The values of other dimensions under which a generator exists."""
    needed: dict[str, tuple[Value, ...]] = {}
    named = [each for each in space.dimensions if each.name == GENERATOR_NAME]
    when = named[0].when if len(named) == 1 else None
    while when is not None:
        needed[when.parent] = when.values
        when = space.dimension(when.parent).when
    return needed


def _moved(parameter: Parameter, value: Value, rng: random.Random) -> Value:
    """Another value of a parameter: a near one of a number, any of a choice; the same where there is only one."""
    if isinstance(parameter, Choice):
        options = ascending(parameter)
        if options is None:
            others = [option for option in parameter.options if option != value]
            return rng.choice(others) if others else value
        index = options.index(value)
        return rng.choice([options[at] for at in (index - 1, index + 1) if 0 <= at < len(options)] or [value])
    place = (unit(parameter, value) or 0.0) + rng.gauss(0, _STEP)
    place = min(max(place, 0.0), 1.0)
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        number = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
    else:
        number = low + place * (high - low)
    number = min(max(number, low), high)
    return number if isinstance(parameter, Float) else round(number)
