"""One dimension of a search space: a bounded number or a choice among named values."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import TypeAlias

from spaces.errors import SpaceError

Value: TypeAlias = bool | int | float | str
"""What a dimension can hold."""


def _check_range(kind: str, name: str, low: float, high: float, default: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise SpaceError(f"{kind} '{name}' has the bounds {low} to {high}; give finite bounds, low <= high.")
    if log and low <= 0:
        raise SpaceError(f"{kind} '{name}' is on a log scale from {low}; a log scale needs low > 0.")
    if not low <= default <= high:
        raise SpaceError(f"{kind} '{name}' has the default {default} outside its bounds {low} to {high}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Float:
    """A real number in [low, high], uniform or log-uniform.

    Raises: SpaceError on unordered or infinite bounds, a log scale from zero, or a default outside.
    """

    name: str
    low: float
    high: float
    default: float
    log: bool = False
    meaning: str = ""

    def __post_init__(self) -> None:
        _check_range("float", self.name, self.low, self.high, self.default, self.log)

    def contains(self, value: Value) -> bool:
        """Whether ``value`` is a number within the bounds (an int counts, a bool does not)."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def sample(self, rng: random.Random) -> float:
        """One draw from the (log-)uniform distribution."""
        if not self.log:
            return rng.uniform(self.low, self.high)
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)

    def grid(self, points: int) -> tuple[float, ...]:
        """``points`` values from low to high, evenly spaced on the parameter's own scale."""
        if self.low == self.high or points == 1:
            return (self.default,)
        steps = [index / (points - 1) for index in range(points)]
        if not self.log:
            return tuple(self.low + step * (self.high - self.low) for step in steps)
        spaced = (self.low * (self.high / self.low) ** step for step in steps)
        return tuple(min(max(value, self.low), self.high) for value in spaced)

    def every(self, most: int) -> tuple[float, ...] | None:
        """All values; None where there are more than ``most``."""
        return (self.default,) if self.low == self.high else None

    def fixed(self, value: Value) -> Float:
        """The same parameter with ``value`` as its only value."""
        if not self.contains(value):
            raise SpaceError(f"{self.name}={value} is outside {self.domain()}; give a value within these bounds.")
        return replace(self, low=float(value), high=float(value), default=float(value))

    def with_default(self, value: Value) -> Float:
        """The same parameter with another default."""
        return replace(self, default=float(value))

    def domain(self) -> str:
        """The bounds in words."""
        return f"float {self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Int:
    """A whole number in [low, high], uniform or log-uniform.

    ``around`` is for what costs in proportion, such as the length of a training: a search looks no further than the
    default, which its budget sets, divided and multiplied by it (``narrowed``).

    Raises: SpaceError on unordered bounds, a log scale from zero, a default outside, or ``around`` below 1.
    """

    name: str
    low: int
    high: int
    default: int
    log: bool = False
    around: float | None = None
    meaning: str = ""

    def __post_init__(self) -> None:
        _check_range("int", self.name, self.low, self.high, self.default, self.log)
        if self.around is not None and not 1 <= self.around < math.inf:
            raise SpaceError(f"int '{self.name}' is searched around its default by {self.around}; give a factor >= 1.")

    def contains(self, value: Value) -> bool:
        """Whether ``value`` is a whole number within the bounds (a bool does not count)."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def sample(self, rng: random.Random) -> int:
        """One draw from the (log-)uniform distribution over whole numbers."""
        if not self.log:
            return rng.randint(self.low, self.high)
        drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
        return min(max(round(drawn), self.low), self.high)

    def grid(self, points: int) -> tuple[int, ...]:
        """Up to ``points`` distinct values from low to high, evenly spaced on the parameter's own scale."""
        spaced = Float(name=self.name, low=self.low, high=self.high, default=self.default, log=self.log)
        return tuple(sorted({round(each) for each in spaced.grid(points)}))

    def every(self, most: int) -> tuple[int, ...] | None:
        """All values; None where there are more than ``most``."""
        return tuple(range(self.low, self.high + 1)) if self.high - self.low < most else None

    def fixed(self, value: Value) -> Int:
        """The same parameter with ``value`` as its only value."""
        if not (isinstance(value, int) and self.contains(value)):
            raise SpaceError(f"{self.name}={value} is outside {self.domain()}; give a value within these bounds.")
        return replace(self, low=value, high=value, default=value, around=None)

    def with_default(self, value: Value) -> Int:
        """The same parameter with another default."""
        return replace(self, default=int(value))

    def narrowed(self) -> Int:
        """The same parameter with the bounds that ``around`` leaves of its own, as plain bounds."""
        if self.around is None:
            return self
        low = max(self.low, math.ceil(self.default / self.around))
        high = min(self.high, math.floor(self.default * self.around))
        return replace(self, low=low, high=high, around=None)

    def domain(self) -> str:
        """The bounds in words."""
        reach = "" if self.around is None else f", within a factor of {self.around:g} of the budget's"
        return f"int {self.low} to {self.high}{' (log)' if self.log else ''}{reach}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of a few named values, unordered.

    Of an ``open`` choice the options are what is searched; any other text can be fixed (``fixed``) in their place,
    such as the folder of a model.

    Raises: SpaceError on no options, repeated options, or a default that is not an option.
    """

    name: str
    options: tuple[Value, ...]
    default: Value
    open: bool = False
    meaning: str = ""

    def __post_init__(self) -> None:
        if not self.options or len({repr(option) for option in self.options}) != len(self.options):
            raise SpaceError(
                f"choice '{self.name}' has the options {self.options}; give distinct options, at least one."
            )
        if not self.contains(self.default):
            raise SpaceError(f"choice '{self.name}' has the default {self.default!r}, not one of {self.domain()}.")

    def contains(self, value: Value) -> bool:
        """Whether ``value`` is one of the options (True is not 1 here)."""
        return any(value == option and isinstance(value, bool) == isinstance(option, bool) for option in self.options)

    def sample(self, rng: random.Random) -> Value:
        """One option, uniformly."""
        return rng.choice(self.options)

    def grid(self, points: int) -> tuple[Value, ...]:
        """Every option; ``points`` is for numbers only."""
        return self.options

    def every(self, most: int) -> tuple[Value, ...] | None:
        """All values; None where there are more than ``most``."""
        return self.options if len(self.options) <= most else None

    def only(self, values: tuple[Value, ...]) -> Choice:
        """The same choice among those of its options that are in ``values``.

        Raises: SpaceError if none is left.
        """
        left = tuple(option for option in self.options if option in values)
        if not left:
            raise SpaceError(f"{self.name} would have to be one of {values}, but only {self.domain()} is left of it.")
        return replace(self, options=left, default=self.default if self.default in left else left[0])

    def fixed(self, value: Value) -> Choice:
        """The same parameter with ``value`` as its only value: one of the options, or any text if it is open."""
        if not self.contains(value) and not (self.open and isinstance(value, str) and value):
            raise SpaceError(f"{self.name}={value} is not one of {self.domain()}.")
        return replace(self, options=(value,), default=value, open=False)

    def with_default(self, value: Value) -> Choice:
        """The same parameter with another default."""
        return replace(self, default=value)

    def domain(self) -> str:
        """The options in words."""
        listed = ", ".join(format_value(option) for option in self.options)
        return f"{listed}; or another, with --set" if self.open else listed


Parameter: TypeAlias = Float | Int | Choice


def format_value(value: Value) -> str:
    """The value as one types it on the command line: ``on``/``off`` for booleans, plain text otherwise."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parse_value(text: str, parameter: Parameter) -> Value:
    """Read a value typed on the command line as one of ``parameter``'s values.

    Args:
        text: what was typed, such as "egan", "0.3" or "on".
        parameter: the dimension that it is for.

    Returns:
        The value in the parameter's own type.

    Raises:
        SpaceError: if the text is not a value of that type; bounds are checked by ``fixed``.
    """
    if isinstance(parameter, Choice):
        for option in parameter.options:
            spellings = {str(option), format_value(option)}
            if isinstance(option, bool):
                spellings |= {"true", "yes"} if option else {"false", "no"}
            if text in spellings or text.lower() in spellings:
                return option
        if parameter.open and text:
            return text
        raise SpaceError(f"{parameter.name}={text} is not one of {parameter.domain()}.")
    try:
        return int(text) if isinstance(parameter, Int) else float(text)
    except ValueError:
        raise SpaceError(f"{parameter.name}={text} is not a number; expected {parameter.domain()}.") from None
