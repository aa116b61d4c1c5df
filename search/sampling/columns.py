"""Configurations as rows of numbers: one column for a number, one for each option of a choice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from spaces.parameter import Choice, Parameter, Value
from spaces.space import Dimension, Space

FloatArray = NDArray[np.float64]
_BEFORE = ("generator.", "preprocess.")
_INACTIVE = 0.5
"""Where a number does not exist: the middle of its column, so that it tells no two configurations apart."""
_OPTION = math.sqrt(0.5)
"""An option's column where it is chosen: two options are one apart, as the two ends of a number are."""


def ascending(parameter: Parameter) -> tuple[Value, ...] | None:
    """The options of a choice among numbers in ascending order; None of all else, whose values have no such order."""
    if not isinstance(parameter, Choice) or any(isinstance(each, bool | str) for each in parameter.options):
        return None
    return tuple(sorted(parameter.options))


def told_as(dimension: Dimension, space: Space) -> str:
    """A name for a dimension that no other of the space has, where bounds belong to a name for good."""
    if len(space.variants(dimension.name)) == 1 or dimension.when is None:
        return dimension.name
    return f"{dimension.name} ({', '.join(map(str, dimension.when.values))})"


def unit(parameter: Parameter, value: Value) -> float | None:
    """Where a value lies between a number's bounds, in [0, 1] on its own scale; None of a choice without an order."""
    options = ascending(parameter)
    if options is not None:
        return options.index(value) / max(1, len(options) - 1)
    if isinstance(parameter, Choice):
        return None
    if parameter.low == parameter.high:
        return 0.0
    given, low, high = float(value), float(parameter.low), float(parameter.high)
    if parameter.log:
        given, low, high = math.log(given), math.log(low), math.log(high)
    return (given - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a space.

    ``generator`` and ``downstream`` are the indices of those that a generator depends on and of all others;
    ``downstream_settings`` has the latter for each setting.
    """

    space: Space
    places: tuple[tuple[Dimension, int], ...]
    width: int
    generator: tuple[int, ...]
    downstream: tuple[int, ...]
    downstream_settings: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, space: Space) -> Columns:
        """Lay out the columns of a space: dimensions in their order."""
        places: list[tuple[Dimension, int]] = []
        halves: dict[bool, list[tuple[int, ...]]] = {True: [], False: []}
        width = 0
        for dimension in space.dimensions:
            parameter = dimension.parameter
            is_plain = isinstance(parameter, Choice) and ascending(parameter) is None
            many = len(parameter.options) if is_plain and isinstance(parameter, Choice) else 1
            places.append((dimension, width))
            halves[dimension.name.startswith(_BEFORE)].append(tuple(range(width, width + many)))
            width += many
        generator, downstream = (tuple(chain.from_iterable(halves[half])) for half in (True, False))
        return cls(space, tuple(places), width, generator, downstream, tuple(halves[False]))

    def row(self, config: Mapping[str, Value]) -> FloatArray:
        """A configuration of the space as ``width`` numbers in [0, 1]."""
        row = np.zeros(self.width)
        for dimension, start in self.places:
            parameter, exists = dimension.parameter, dimension.exists(config)
            if isinstance(parameter, Choice) and ascending(parameter) is None:
                if exists:
                    row[start + parameter.options.index(config[dimension.name])] = _OPTION
            else:
                place = unit(parameter, config[dimension.name]) if exists else _INACTIVE
                row[start] = _INACTIVE if place is None else place
        return row
