"""A declarative conditional search space: dimensions, some of which exist only under a value of another."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeAlias

import yaml

from spaces.errors import SpaceError, nearest
from spaces.parameter import Choice, Float, Int, Parameter, Value, format_value, parse_value

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
"""What a space may be called: searches and their folders are named after it."""

GENERATOR_NAME = "generator.name"
"""The dimension under whose values the settings of single generators exist."""

Assignment: TypeAlias = dict[str, Value]
"""Flat dotted names to values, for exactly the dimensions that exist together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """The condition under which a dimension exists: ``parent`` holds one of ``values``."""

    parent: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """A parameter of the space and the condition under which it exists.

    ``otherwise`` names the value that holds in effect where the dimension does not exist, for instance
    the generator ``none`` under mixers that use no synthetic images; it is never one of the options.
    """

    parameter: Parameter
    when: When | None = None
    otherwise: Value | None = None

    @property
    def name(self) -> str:
        """The flat dotted name."""
        return self.parameter.name

    def exists(self, assignment: Mapping[str, Value]) -> bool:
        """Whether the dimension exists beside the values assigned so far."""
        return self.when is None or assignment.get(self.when.parent) in self.when.values


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A named, ordered set of dimensions; a parent stands before its children.

    A name may stand several times, under different values of one parent, of which at most one holds: its bounds and
    default then depend on the parent, as the models to start from depend on the generator.

    Raises: SpaceError on names that are repeated otherwise, a parent that is missing, late, repeated or no choice, or
    a condition on values that the parent cannot take.
    """

    name: str
    dimensions: tuple[Dimension, ...]
    description: str = ""

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise SpaceError(
                f"a space is named '{self.name}'; give it 1 to 40 letters, digits, '.', '_' or '-', beginning with a "
                f"letter or digit."
            )
        known: dict[str, Parameter] = {}
        for index, dimension in enumerate(self.dimensions):
            for other in self.dimensions[:index]:
                if dimension.name == other.name and not _exclude(dimension.when, other.when):
                    raise SpaceError(
                        f"space '{self.name}' has two dimensions named '{dimension.name}' that can hold at once; keep "
                        f"one, or let them depend on different values of one parent."
                    )
            if dimension.when is not None:
                self._check_condition(dimension, dimension.when, known)
            if dimension.otherwise is not None and dimension.parameter.contains(dimension.otherwise):
                raise SpaceError(f"'{dimension.name}' has {dimension.otherwise!r} among its values and as 'otherwise'.")
            known[dimension.name] = dimension.parameter

    def _check_condition(self, dimension: Dimension, when: When, known: Mapping[str, Parameter]) -> None:
        parent = known.get(when.parent)
        if not isinstance(parent, Choice) or sum(each.name == when.parent for each in self.dimensions) > 1:
            raise SpaceError(
                f"'{dimension.name}' of space '{self.name}' depends on '{when.parent}', which is not a choice "
                f"declared before it, once; declare it earlier, with type choice."
            )
        foreign = [value for value in when.values if not parent.contains(value)]
        if foreign or not when.values:
            raise SpaceError(
                f"'{dimension.name}' of space '{self.name}' depends on {when.parent} = {list(when.values)}, "
                f"but {when.parent} is one of {parent.domain()}; name values of it."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all dimensions, in order, each once."""
        return tuple(dict.fromkeys(dimension.name for dimension in self.dimensions))

    def dimension(self, name: str) -> Dimension:
        """The dimension of that name, or the first of several. Raises: SpaceError, with the nearest names."""
        return self.variants(name)[0]

    def variants(self, name: str) -> tuple[Dimension, ...]:
        """All dimensions of that name, at least one. Raises: SpaceError, with the nearest names."""
        found = tuple(dimension for dimension in self.dimensions if dimension.name == name)
        if not found:
            raise SpaceError(f"space '{self.name}' has no dimension '{name}'; {nearest(name, self.names)}.")
        return found

    def sample(self, rng: random.Random) -> Assignment:
        """One configuration: every dimension that exists, drawn in order."""
        drawn: Assignment = {}
        for dimension in self.dimensions:
            if dimension.exists(drawn):
                drawn[dimension.name] = dimension.parameter.sample(rng)
        return drawn

    def complete(self, given: Mapping[str, Value]) -> Assignment:
        """The configuration that holds ``given`` where its dimensions exist and defaults elsewhere."""
        filled: Assignment = {}
        for dimension in self.dimensions:
            if dimension.exists(filled):
                filled[dimension.name] = given.get(dimension.name, dimension.parameter.default)
        return filled

    def with_defaults(
        self, values: Mapping[str, Value], *, generators: Mapping[str, Mapping[str, Value]] = MappingProxyType({})
    ) -> Space:
        """The same space with other defaults, each where it is within bounds.

        Args:
            values: dotted names to defaults.
            generators: the same for one generator each, without the leading ``generator.``; for a dimension that
                exists under several generators it counts where they agree.
        """

        def changed(dimension: Dimension) -> Dimension:
            field = dimension.name.partition(".")[2]
            own = {generators.get(str(name), {}).get(field) for name in self.generators_of(dimension)}
            default = values.get(dimension.name) if own in (set(), {None}) else None
            if len(own) == 1 and None not in own:
                default = own.pop()
            if default is None or not dimension.parameter.contains(default):
                return dimension
            return replace(dimension, parameter=dimension.parameter.with_default(default))

        return replace(self, dimensions=tuple(map(changed, self.dimensions)))

    def with_choices(self, name: str, change: Callable[[str], str]) -> Space:
        """The same space with the text options of every choice of that name changed, and its default with them."""

        def changed(dimension: Dimension) -> Dimension:
            parameter = dimension.parameter
            if dimension.name != name or not isinstance(parameter, Choice):
                return dimension
            options = tuple(change(each) if isinstance(each, str) else each for each in parameter.options)
            default = options[parameter.options.index(parameter.default)]
            return replace(dimension, parameter=replace(parameter, options=options, default=default))

        return replace(self, dimensions=tuple(map(changed, self.dimensions)))

    def generators_of(self, dimension: Dimension) -> tuple[Value, ...]:
        """The values of ``generator.name`` under which a setting of generators exists; empty for other dimensions."""
        if not dimension.name.startswith("generator.") or dimension.name == GENERATOR_NAME:
            return ()
        when = dimension.when
        while when is not None and when.parent != GENERATOR_NAME:
            when = self.dimension(when.parent).when
        if when is not None:
            return when.values
        names = [each.parameter for each in self.dimensions if each.name == GENERATOR_NAME]
        return names[0].options if names and isinstance(names[0], Choice) else ()

    def narrowed(self) -> Space:
        """The same space with the bounds that are searched, where a dimension is searched ``around`` its default."""
        dimensions = (
            replace(each, parameter=each.parameter.narrowed()) if isinstance(each.parameter, Int) else each
            for each in self.dimensions
        )
        return replace(self, dimensions=tuple(dimensions))

    def contains(self, assignment: Mapping[str, Value]) -> bool:
        """Whether ``assignment`` gives a value within bounds to exactly the dimensions that exist."""
        existing = [dimension for dimension in self.dimensions if dimension.exists(assignment)]
        return set(assignment) == {dimension.name for dimension in existing} and all(
            dimension.parameter.contains(assignment[dimension.name]) for dimension in existing
        )

    def grid(self, points: int) -> Iterator[Assignment]:
        """Every configuration with ``points`` values per number and every option per choice, each once."""
        yield from self._combined(0, {}, lambda parameter: parameter.grid(points))

    def configurations(self, most: int) -> list[Assignment] | None:
        """All configurations; None where there are more than ``most``."""
        if any(each.parameter.every(most) is None for each in self.dimensions):
            return None
        found = list(islice(self._combined(0, {}, lambda parameter: parameter.every(most) or ()), most + 1))
        return found if len(found) <= most else None

    def _combined(
        self, index: int, assigned: Assignment, values: Callable[[Parameter], Sequence[Value]]
    ) -> Iterator[Assignment]:
        """Every combination of some values of the dimensions from ``index`` on."""
        if index == len(self.dimensions):
            yield assigned
            return
        dimension = self.dimensions[index]
        if not dimension.exists(assigned):
            yield from self._combined(index + 1, assigned, values)
            return
        for value in values(dimension.parameter):
            yield from self._combined(index + 1, {**assigned, dimension.name: value}, values)

    def fix(self, name: str, text: str) -> tuple[Space, tuple[str, ...]]:
        """Fix one dimension to a value typed as ``text``, and restrict its parents so that it exists.

        Args:
            name: a dimension of the space.
            text: the value, as on the command line. The dimension's ``otherwise`` is accepted too and
                restricts the parents so that the dimension does not exist.

        Returns:
            The restricted space, and one sentence for each parent that was restricted by it.

        Raises:
            SpaceError: on an unknown name or value, or where parents fixed before leave no room for it.
        """
        variants = self.variants(name)
        when = variants[0].when
        if when is not None and text in {
            format_value(each.otherwise) for each in variants if each.otherwise is not None
        }:
            others = tuple(
                value for value in self._choice(when.parent).options if value not in _parent_values(variants)
            )
            return self._restrict(when.parent, others, f"{name}={text}")
        fixed = _fixed(variants, text)
        restricted: Space = self
        notes: tuple[str, ...] = ()
        if when is not None:
            restricted, notes = self._restrict(when.parent, _parent_values(fixed), f"{name}={text}")
        return restricted._with(name, {each.when: each.parameter for each in fixed}), notes

    def without(self, dimension: Dimension, *values: Value) -> Space:
        """The same space without some options of a choice, and without all that exists under these alone.

        Args:
            dimension: one of the space.
            values: options of it.

        Raises: SpaceError if the dimension is no choice, or has no other option.
        """
        parameter = dimension.parameter
        if not isinstance(parameter, Choice):
            raise SpaceError(f"'{dimension.name}' is no choice; only an option of a choice can be left out.")
        left = parameter.only(tuple(option for option in parameter.options if option not in values))
        return self._with(dimension.name, {dimension.when: left})

    def _choice(self, name: str) -> Choice:
        parameter = self.dimension(name).parameter
        assert isinstance(parameter, Choice)  # noqa: S101 - held by __post_init__
        return parameter

    def _restrict(self, name: str, values: tuple[Value, ...], reason: str) -> tuple[Space, tuple[str, ...]]:
        """Leave of a choice what is in ``values``, and restrict its own parents so that it exists."""
        when, choice = self.dimension(name).when, self._choice(name)
        left = tuple(option for option in choice.options if option in values)
        if not left:
            raise SpaceError(
                f"{reason} needs {name} to be one of {', '.join(map(format_value, values))}, but {name} is limited to "
                f"{choice.domain()}; change one of the two --set options."
            )
        space: Space = self
        notes: tuple[str, ...] = ()
        if when is not None:
            space, notes = self._restrict(when.parent, when.values, reason)
        if left == choice.options:
            return space, notes
        parameter = choice.only(left)
        note = f"{reason} limits {name} to {parameter.domain()}"
        return space._with(name, {when: parameter}), (*notes, note)

    def _with(self, name: str, parameters: Mapping[When | None, Parameter]) -> Space:
        """Replace the parameters of one name, by condition, then drop what can no longer exist."""
        kept: list[Dimension] = []
        options: dict[str, tuple[Value, ...]] = {}
        for dimension in self.dimensions:
            changed = dimension
            if dimension.name == name and dimension.when in parameters:
                changed = replace(dimension, parameter=parameters[dimension.when])
            if changed.when is not None:
                parents = options.get(changed.when.parent, ())
                values = tuple(value for value in changed.when.values if value in parents)
                if not values:
                    continue
                changed = replace(changed, when=replace(changed.when, values=values))
            kept.append(changed)
            if isinstance(changed.parameter, Choice):
                options[changed.name] = changed.parameter.options
        return replace(self, dimensions=tuple(kept))

    def to_dict(self) -> dict[str, Any]:
        """The space as plain data, in the form of the YAML file."""
        return {
            "name": self.name,
            "description": self.description,
            "dimensions": [_dimension_to_dict(dimension) for dimension in self.dimensions],
        }

    def to_yaml(self) -> str:
        """The space as the text of a file that ``--space FILE.yaml`` reads back to an equal space."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that differ between any two spaces that sample differently."""
        searched = [{**each, "meaning": None} for each in self.to_dict()["dimensions"]]
        return digest_of(searched)


def _exclude(one: When | None, other: When | None) -> bool:
    """Whether two conditions never hold at once."""
    if one is None or other is None or one.parent != other.parent:
        return False
    return not any(value in other.values for value in one.values)


def _parent_values(dimensions: Iterable[Dimension]) -> tuple[Value, ...]:
    """The values of their parent under which one of the dimensions exists."""
    return tuple(value for each in dimensions if each.when is not None for value in each.when.values)


def _fixed(variants: Sequence[Dimension], text: str) -> list[Dimension]:
    """The dimensions of one name that can hold the value typed as ``text``, with it as their only value.

    Where it is an option of some, the choices that are open to any text do not count.

    Raises: SpaceError if none can hold it.
    """
    listed: list[Dimension] = []
    others: list[Dimension] = []
    refusals: list[SpaceError] = []
    for each in variants:
        try:
            value = parse_value(text, each.parameter)
            fixed = replace(each, parameter=each.parameter.fixed(value))
        except SpaceError as error:
            refusals.append(error)
            continue
        (listed if each.parameter.contains(value) else others).append(fixed)
    if listed or others:
        return listed or others
    if len({each.parameter.domain() for each in variants}) == 1:
        raise refusals[0]
    domains = (
        f"{each.parameter.domain()} under {', '.join(map(format_value, _parent_values([each])))}" for each in variants
    )
    raise SpaceError(f"{variants[0].name}={text} is outside all its bounds: {'; '.join(domains)}.")


def digest_of(data: object, *, digits: int = 16) -> str:
    """Hexadecimal digits (an even number of them) of BLAKE2b over ``data`` as canonical JSON."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=digits // 2).hexdigest()


def _dimension_to_dict(dimension: Dimension) -> dict[str, Any]:
    parameter = dimension.parameter
    data: dict[str, Any] = {"name": parameter.name}
    if isinstance(parameter, Choice):
        data |= {"type": "choice", "options": list(parameter.options), "default": parameter.default}
        if parameter.open:
            data["open"] = True
    else:
        kind = "float" if isinstance(parameter, Float) else "int"
        data |= {"type": kind, "low": parameter.low, "high": parameter.high, "default": parameter.default}
        if parameter.log:
            data["log"] = True
        if isinstance(parameter, Int) and parameter.around is not None:
            data["around"] = parameter.around
    if parameter.meaning:
        data["meaning"] = parameter.meaning
    if dimension.when is not None:
        data["when"] = {dimension.when.parent: list(dimension.when.values)}
    if dimension.otherwise is not None:
        data["otherwise"] = dimension.otherwise
    return data
