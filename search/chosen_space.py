"""The space that the user chose: a named one or a file, with what ``--set`` fixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from search.pretrained import PRETRAINED, WEIGHTS
from spaces.budget import Budget
from spaces.config import known_names
from spaces.corners import check_space
from spaces.errors import SpaceError, nearest
from spaces.fixed_settings import (
    generator_settings,
    is_shared,
    settable_names,
    with_generator_setting,
    with_setting,
)
from spaces.generators import SCRATCH
from spaces.paper_table import adapted, with_pipeline
from spaces.presets import PRESETS, TABLES
from spaces.space import GENERATOR_NAME, Space
from spaces.space_file import space_from_file


def chosen_space(name: str | Space, fixed: Sequence[str], budget: Budget) -> tuple[Space, list[str]]:
    """The space to search.

    Args:
        name: of a named space, or the path of a .yaml file; or a space itself.
        fixed: what was given with ``--set``, in order.
        budget: supplies the defaults of named spaces.

    Returns:
        The space, and a sentence for each consequence that the user may not expect.

    Raises:
        SpaceError: no such space, an unusable file, or a setting that cannot be fixed so.
    """
    loaded = (
        (name if isinstance(name, Space) else _load_space(name))
        .with_choices(PRETRAINED, absolute)
        .with_choices(WEIGHTS, absolute)
    )
    space = of_budget(loaded, budget)
    notes: list[str] = []
    gone: dict[str, str] = {}
    for assignment in fixed:
        dimension, equals, value = assignment.partition("=")
        if not equals:
            raise SpaceError(f"--set {assignment} has no '='; write --set generator.name=egan.")
        before = space.names
        space, added = _fix(space, dimension.strip(), value.strip(), gone, budget)
        notes += [f"--set {note}." for note in added]
        gone |= {name: assignment for name in before if name not in space.names}
    table = TABLES.get(space.name)
    if table is not None:
        space, added = adapted(table, space, budget, named={each.partition("=")[0].strip() for each in fixed})
        notes += added
    space = space.narrowed()
    check_space(space, budget)
    return space, notes


def of_budget(space: Space, budget: Budget) -> Space:
    """A named space with the defaults of a budget; one of the user's own as it is written."""
    return space.with_defaults(budget.settings, generators=budget.generators) if space.name in PRESETS else space


def _fix(
    space: Space, dimension: str, value: str, gone: Mapping[str, str], budget: Budget
) -> tuple[Space, tuple[str, ...]]:
    """Fix one dimension, or a setting that is none; ``gone`` says which option removed which dimension."""
    of_generator = dimension.startswith("generator.") and dimension in known_names() and GENERATOR_NAME in space.names
    if of_generator and (dimension not in space.names or is_shared(space, dimension)):
        return with_generator_setting(space, dimension, value, budget)
    if dimension == PRETRAINED and space.name in TABLES:
        return with_pipeline(space, absolute(value)), ()
    if dimension not in space.names and dimension in settable_names():
        return with_setting(space, dimension, absolute(value) if dimension == WEIGHTS else value), ()
    if dimension in gone:
        raise SpaceError(
            f"--set {dimension}={value} names a dimension that does not exist under --set {gone[dimension]}; leave "
            f"one of the two out."
        )
    if dimension not in space.names:
        valid = {*space.names, *settable_names(), *generator_settings(space)}
        raise SpaceError(
            f"--set {dimension}={value}: space '{space.name}' has no such dimension or setting; "
            f"{nearest(dimension, valid)}."
        )
    try:
        return space.fix(dimension, absolute(value) if dimension in (PRETRAINED, WEIGHTS) else value)
    except SpaceError as error:
        raise SpaceError(f"--set {dimension}={value}: {error}") from None


def absolute(value: str) -> str:
    """The path of what lies on this machine from anywhere: trials are computed, and resumed, in other folders."""
    if value in ("", SCRATCH):
        return value
    try:
        path = Path(value).expanduser()
        return str(path.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):  # nothing of that name can be there
        return value


def _load_space(name: str) -> Space:
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise SpaceError(f"--space '{name}' does not exist; {nearest(name, PRESETS)}, or the path of a .yaml file.")
    return space_from_file(path, source=f"--space {name}")
