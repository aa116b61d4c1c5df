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
from spaces.generators import GENERATORS, TrainedConfig
from spaces.parameter import Choice, Value, format_value
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
    value = _read_setting(SETTABLE[name.partition(".")[0]], text, name)
    fixed = Dimension(parameter=Choice(name=name, options=(value,), default=value, meaning=_FIXED))
    return replace(space, dimensions=(*space.dimensions, fixed))


def is_shared(space: Space, name: str) -> bool:
    """Whether all generators of a space that train have a setting that it searches for some of them alone."""
    searching = {value for each in space.variants(name) if each.when is not None for value in each.when.values}
    training = {value for value in _generators(space) if issubclass(GENERATORS[str(value)], TrainedConfig)}
    return training > searching and set(_having(space, name)) == training


def generator_settings(space: Space) -> frozenset[str]:
    """The flat names that ``with_generator_setting`` takes: the settings of the space's generators."""
    kinds = (GENERATORS[str(each)] for each in _generators(space))
    return frozenset(f"generator.{field.name}" for kind in kinds for field in dataclasses.fields(kind))


def with_generator_setting(space: Space, name: str, text: str, budget: Budget) -> tuple[Space, tuple[str, ...]]:
    """The same space with a setting fixed for those of its generators that can have it.

    Args:
        space: searches it for none of them, or not for all; where it does that, this comes in its place.
        name: ``generator.`` and the name of a field.
        text: the value, as on the command line.
        budget: supplies what the space does not search.

    Returns:
        The space, and one sentence for each generator that has the setting but not with this value, and goes without.

    Raises: SpaceError if no generator of the space has the setting, or none with this value, or the text is no value
        of its type.
    """
    having = _having(space, name)
    if not having:
        raise SpaceError(
            f"{name}={text} is a setting of none of this space's generators "
            f"({', '.join(map(str, _generators(space)))}); choose another with --set {GENERATOR_NAME}=..., or leave it "
            f"out."
        )
    value = _read_setting(GENERATORS[str(having[0])], text, name)
    others = tuple(each for each in space.dimensions if each.name != name)
    fixed = Choice(name=name, options=(value,), default=value, meaning=_FIXED)

    def fixed_for(generators: Sequence[Value]) -> tuple[Space, Dimension]:
        found = Dimension(parameter=fixed, when=When(parent=GENERATOR_NAME, values=tuple(generators)))
        return replace(space, dimensions=(*others, found)), found

    errors = {each: refusal(*fixed_for([each]), budget) for each in having}
    able = [each for each, error in errors.items() if error is None]
    refused = {each: str(error).rstrip(".") for each, error in errors.items() if error is not None}
    if not able:
        raise SpaceError(f"--set {name}={text}: {'; or '.join(dict.fromkeys(refused.values()))}.")
    notes = tuple(f"{name}={text} leaves {each} as it is: {error}" for each, error in refused.items())
    return fixed_for(able)[0], notes


def _generators(space: Space) -> list[Value]:
    """The generators of a space; ``check_space`` refuses what is none."""
    named = (value for each in space.dimensions if each.name == GENERATOR_NAME for value in _options(each))
    return [value for value in named if str(value) in GENERATORS]


def _having(space: Space, name: str) -> list[Value]:
    """The generators of a space that have a setting of this flat name."""
    field = name.partition(".")[2]
    return [
        each for each in _generators(space) if field in {one.name for one in dataclasses.fields(GENERATORS[str(each)])}
    ]


def _options(dimension: Dimension) -> tuple[Value, ...]:
    return dimension.parameter.options if isinstance(dimension.parameter, Choice) else ()


_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_READERS: Mapping[str, tuple[str, Callable[[str], Value]]] = {
    "bool": ("on or off", lambda word: _WORDS[word.lower()]),
    "int": ("a whole number", int),
    "float": ("a number", float),
    "str": ("a word", str),
}
"""What a field's annotation expects, and how it is read."""


def _read_setting(component: type[Any], text: str, name: str) -> Value:
    """The value typed as ``text`` for a field of a configuration. Raises: SpaceError."""
    field = next(each for each in dataclasses.fields(component) if each.name == name.partition(".")[2])
    expected, read = _READERS[str(field.type)]
    try:
        return read(text)
    except (KeyError, ValueError):
        default = "" if field.default is dataclasses.MISSING else f", such as its default {format_value(field.default)}"
        raise SpaceError(f"--set {name}={text}: expected {expected}{default}.") from None
