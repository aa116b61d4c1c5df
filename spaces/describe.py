"""Spaces in words, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spaces.budget import Budget
from spaces.parameter import format_value
from spaces.reference import reference_policies
from spaces.space import Dimension, Space


def list_spaces(spaces: Mapping[str, Space]) -> str:
    """One line per named space."""
    width = max(map(len, spaces))
    return "\n".join(f"{name:{width}}  {space.description}" for name, space in spaces.items())


def describe_space(space: Space, budget: Budget, *, missing: Sequence[str] = ()) -> str:
    """Every dimension with its bounds, default, condition and meaning; the budget; the reference policies.

    Args:
        space: what is described.
        budget: under which it is searched.
        missing: sentences on what of it cannot start on this machine.
    """
    lines = [f"{space.name}: {space.description}", "", "Dimensions"]
    for dimension in space.dimensions:
        lines += _dimension(dimension)
    lines += ["", f"Budget {budget.name}: {budget.note}"]
    lines += [f"  {budget.folds} folds, {budget.trials} trials"]
    lines += [f"  {name} = {format_value(value)}" for name, value in budget.settings.items()]
    for generator, settings in budget.generators.items():
        listed = ", ".join(f"{name} = {format_value(value)}" for name, value in settings.items())
        lines.append(f"  {generator}: {listed}")
    if missing:
        lines += ["", "Not on this machine", *(f"  {each}" for each in missing)]
    lines += ["", "First trials of every search (reference policies)"]
    for name, policy in reference_policies(space).items():
        lines.append(f"  {name}: " + ", ".join(f"{key}={format_value(value)}" for key, value in policy.items()))
    return "\n".join(lines)


def _dimension(dimension: Dimension) -> list[str]:
    parameter, when = dimension.parameter, dimension.when
    line = f"  {parameter.name}: {parameter.domain()}; default {format_value(parameter.default)}"
    if when is not None:
        line += f"; only where {when.parent} is {' or '.join(map(format_value, when.values))}"
    if dimension.otherwise is not None:
        line += f" (otherwise {format_value(dimension.otherwise)})"
    return [line] + ([f"      {parameter.meaning}"] if parameter.meaning else [])
