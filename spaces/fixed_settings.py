"""Settings that a space does not search, fixed all the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spaces.budget import Budget
from spaces.config import ClassifierConfig, PreprocessConfig
from spaces.corners import refusal
from spaces.errors import SpaceError
from spaces.generators import GENERATORS
from spaces.parameter import Choice, Value
from spaces.space import GENERATOR_NAME, Dimension, Space, When

SETTABLE: Mapping[str, type[Any]] = {"preprocess": PreprocessConfig, "classifier": ClassifierConfig}
"""The groups whose settings exist in every configuration, so that any of them can be fixed where none is searched."""

_FIXED = "fixed with --set"


def settable_names() -> tuple[str, ...]:
    """The flat names that ``with_setting`` takes."""
    return tuple(f"{group}.{field.name}" for group, kind in SETTABLE.items() for field in dataclasses.fields(kind))


def with_setting(space: Space, name: str, text: str) -> Space:
    """The same space with a setting fixed that it does not search.

    Args:
        space: has no dimension of that name.
        name: one of ``settable_names()``.
        text: the value, as on the command line.

    Raises: SpaceError if the text is no value of the setting's type; ``check_space`` checks its bounds.
    """
    group, _, field = name.partition(".")
    value = _read_setting(SETTABLE[group], field, text, name)
    fixed = Dimension(parameter=Choice(name=name, options=(value,), default=value, meaning=_FIXED))
    return replace(space, dimensions=(*space.dimensions, fixed))


def with_generator_setting(space: Space, name: str, text: str, budget: Budget) -> tuple[Space, tuple[str, ...]]:
    """The same space with a setting fixed, that it does not search, for those of its generators that can have it.

    Args:
        space: has no dimension of that name.
        name: ``generator.`` and the name of a field.
        text: the value, as on the command line.
        budget: supplies what the space does not search.

    Returns:
        The space, and one sentence for each generator that has the setting but not with this value, and goes without.

    Raises: SpaceError if no generator of the space has the setting, or none with this value, or the text is no value
        of its type.
    """
    field = name.partition(".")[2]
    options = [value for each in space.dimensions if each.name == GENERATOR_NAME for value in _options(each)]
    having = [each for each in options if field in {one.name for one in dataclasses.fields(GENERATORS[str(each)])}]
    if not having:
        raise SpaceError(
            f"{name}={text} is a setting of none of this space's generators ({', '.join(map(str, options))}); choose "
            f"another with --set {GENERATOR_NAME}=..., or leave it out."
        )
    value = _read_setting(GENERATORS[str(having[0])], field, text, name)
    fixed = Choice(name=name, options=(value,), default=value, meaning=_FIXED)

    def fixed_for(generators: Sequence[Value]) -> tuple[Space, Dimension]:
        found = Dimension(parameter=fixed, when=When(parent=GENERATOR_NAME, values=tuple(generators)))
        return replace(space, dimensions=(*space.dimensions, found)), found

    errors = {each: refusal(*fixed_for([each]), budget) for each in having}
    able = [each for each, error in errors.items() if error is None]
    refused = {each: str(error).rstrip(".") for each, error in errors.items() if error is not None}
    if not able:
        raise SpaceError(f"--set {name}={text}: {'; or '.join(dict.fromkeys(refused.values()))}.")
    notes = tuple(f"{name}={text} leaves {each} as it is: {error}" for each, error in refused.items())
    return fixed_for(able)[0], notes


def _options(dimension: Dimension) -> tuple[Value, ...]:
    return dimension.parameter.options if isinstance(dimension.parameter, Choice) else ()


def _read_setting(component: type[Any], field: str, text: str, name: str) -> Value:
    """The value typed as ``text`` for a field of a configuration. Raises: SpaceError."""
    kind = next(str(each.type) for each in dataclasses.fields(component) if each.name == field)
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    readers: Mapping[str, Callable[[str], Value]] = {
        "bool": lambda word: words[word.lower()],
        "int": int,
        "float": float,
        "str": str,
    }
    try:
        return readers[kind](text)
    except (KeyError, ValueError):
        raise SpaceError(f"{name}={text} is no {kind}; give a value such as its default.") from None
