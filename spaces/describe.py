"""Spaces in words, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spaces.budget import Budget
from spaces.parameter import Choice, format_value
from spaces.reference import reference_policies
from spaces.space import GENERATOR_NAME, Assignment, Dimension, Space
from spaces.wording import counted


def list_spaces(spaces: Mapping[str, Space]) -> str:
    """One line per named space."""
    width = max(map(len, spaces))
    return "\n".join(f"{name:{width}}  {space.description}" for name, space in spaces.items())


def describe_space(
    space: Space,
    budget: Budget,
    *,
    scored_on: str | None = None,
    trials: int | None = None,
    references: Mapping[str, Assignment] | None = None,
    missing: Sequence[str] = (),
) -> str:
    """Every dimension with its bounds, default, condition and meaning; what is not searched; the reference policies.

    Args:
        space: what is described.
        budget: under which it is searched.
        scored_on: what a trial is scored on, in words; None: the budget's folds.
        trials: how many; None: the budget's.
        references: the policies that are tried first; None: all that such a space is compared with.
        missing: sentences on what of it cannot start on this machine.
    """
    trials = budget.trials if trials is None else trials
    known = reference_policies(space) if references is None else references
    first = dict(list(known.items())[:trials])
    lines = [f"{space.name}: {space.description}", "", "Dimensions"]
    for dimension in space.dimensions:
        lines += _dimension(dimension)
    lines += ["", f"Budget {budget.name}: {budget.note}"]
    lines += [f"  {scored_on or f'{budget.folds} folds'}, {counted(trials, 'trial')}"]
    lines += _not_searched(space, budget, first)
    if missing:
        lines += ["", "Not on this machine", *(f"  {each}" for each in missing)]
    lines += ["", "First trials of every search (reference policies)"] if first else []
    for name, policy in first.items():
        lines.append(f"  {name}: " + ", ".join(f"{key}={format_value(value)}" for key, value in policy.items()))
    return "\n".join(lines)


def _not_searched(space: Space, budget: Budget, references: Mapping[str, Assignment]) -> list[str]:
    """The budget's settings of which the space has no dimension, those of generators for the ones that are trained."""
    lines = [f"  {name} = {format_value(value)}" for name, value in budget.settings.items() if name not in space.names]
    names = [each.parameter for each in space.dimensions if each.name == GENERATOR_NAME]
    own = [value for each in names if isinstance(each, Choice) for value in each.options]
    trained = {*own, *(policy.get(GENERATOR_NAME) for policy in references.values())}
    for generator, settings in budget.generators.items():
        searched = {each.name for each in space.dimensions if generator in space.generators_of(each)}
        left = {name: value for name, value in settings.items() if f"generator.{name}" not in searched}
        if generator in trained and left:
            listed = ", ".join(f"{name} = {format_value(value)}" for name, value in left.items())
            lines.append(f"  {generator}: {listed}")
    return lines


def _dimension(dimension: Dimension) -> list[str]:
    parameter, when = dimension.parameter, dimension.when
    line = f"  {parameter.name}: {parameter.domain()}; default {format_value(parameter.default)}"
    if when is not None:
        line += f"; only where {when.parent} is {' or '.join(map(format_value, when.values))}"
    if dimension.otherwise is not None:
        line += f" (otherwise {format_value(dimension.otherwise)})"
    return [line] + ([f"      {parameter.meaning}"] if parameter.meaning else [])
