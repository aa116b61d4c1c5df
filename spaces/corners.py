"""What holds for every configuration that a space can propose, seen at its corners and in some draws."""

from __future__ import annotations

import itertools
import math
import random

from spaces.budget import Budget
from spaces.config import TrialConfig, known_names, trial_config
from spaces.errors import ConfigError, SpaceError, nearest
from spaces.parameter import Choice, Float
from spaces.reference import reference_policies
from spaces.space import Assignment, Dimension, Space, When

_DRAWS = 200
"""Configurations that are looked at beside the corners: what two settings exclude together shows in few of them."""
PATIENCE = "classifier.patience"


def stops_early(space: Space, budget: Budget) -> bool:
    """Whether any configuration of a space ends its classifier's training by a validation loss."""
    searched = [each.parameter for each in space.dimensions if each.name == PATIENCE]
    largest = [each.options if isinstance(each, Choice) else (each.high,) for each in searched]
    values = [value for options in largest for value in options] or [budget.settings.get(PATIENCE, 0)]
    return any(value != 0 for value in values)


def check_space(space: Space, budget: Budget) -> None:
    """Check that a space's corners, its reference policies and some draws are configurations that a trial can run.

    Raises: SpaceError, naming the first setting whose name or value no trial understands.
    """
    for name in space.names:
        if name not in known_names():
            raise SpaceError(
                f"space '{space.name}' has the dimension '{name}', which no trial understands; "
                f"{nearest(name, known_names())}."
            )
    for dimension in space.dimensions:
        error = refusal(space, dimension, budget)
        if error is not None:
            raise SpaceError(f"space '{space.name}': {error}")
    for name, policy in reference_policies(space).items():
        try:
            trial_config(policy, budget)
        except ConfigError as error:
            raise SpaceError(
                f"space '{space.name}': its reference policy '{name}' is no configuration: {error}"
            ) from None
    for number in range(_DRAWS):
        flat = space.sample(random.Random(number))  # noqa: S311 - no secret
        try:
            config = trial_config(flat, budget)
        except ConfigError as error:
            raise SpaceError(
                f"space '{space.name}' proposes what is no configuration: {error} Narrow it, or put such values under "
                f"conditions."
            ) from None
        for dimension in space.dimensions:
            _check_otherwise(space, dimension, flat, config)


def refusal(space: Space, dimension: Dimension, budget: Budget) -> ConfigError | None:
    """Why a value of a dimension makes no configuration, in the first corner where that is so."""
    parameter = dimension.parameter
    values = parameter.options if isinstance(parameter, Choice) else (parameter.low, parameter.high)
    if isinstance(parameter, Float) and parameter.low < parameter.high:
        values = (*values, parameter.low + (parameter.high - parameter.low) / math.pi)
    for above, value in itertools.product(_activations(space, dimension.when), values):
        try:
            trial_config(space.complete({**above, dimension.name: value}), budget)
        except ConfigError as error:
            return error
    return None


def _activations(space: Space, when: When | None) -> list[Assignment]:
    """Values of the parents under which a condition holds, one for each value that it names."""
    if when is None:
        return [{}]
    above = _activations(space, space.dimension(when.parent).when)[0]
    return [{**above, when.parent: value} for value in when.values]


def _check_otherwise(space: Space, dimension: Dimension, flat: Assignment, config: TrialConfig) -> None:
    """Check that what is said of a dimension where it does not exist is what a trial then computes with."""
    if dimension.otherwise is None or dimension.name in flat:
        return
    group, _, field = dimension.name.partition(".")
    part = getattr(config, group)
    value = getattr(part, field, None) if field else part
    if value != dimension.otherwise:
        raise SpaceError(
            f"space '{space.name}': 'otherwise' of '{dimension.name}' is {dimension.otherwise!r}, but where the "
            f"dimension does not exist trials take {value!r}; write that, or leave 'otherwise' out."
        )
