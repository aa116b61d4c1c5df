"""A declarative conditional search space: dimensions, some of which exist only under a value of another."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import yaml

from spaces.errors import SpaceError, nearest
from spaces.parameter import Choice, Float, Int, Parameter, Value, format_value, parse_value

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
"""What a space may be called: searches and their folders are named after it."""

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

    Raises: SpaceError on repeated names, a parent that is missing, late or no choice, or a condition on
    values that the parent cannot take.
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
        for dimension in self.dimensions:
            if dimension.name in known:
                raise SpaceError(f"space '{self.name}' has two dimensions named '{dimension.name}'; keep one.")
            if dimension.when is not None:
                self._check_condition(dimension, dimension.when, known)
            if dimension.otherwise is not None and dimension.parameter.contains(dimension.otherwise):
                raise SpaceError(f"'{dimension.name}' has {dimension.otherwise!r} among its values and as 'otherwise'.")
            known[dimension.name] = dimension.parameter

    def _check_condition(self, dimension: Dimension, when: When, known: Mapping[str, Parameter]) -> None:
        parent = known.get(when.parent)
        if not isinstance(parent, Choice):
            raise SpaceError(
                f"'{dimension.name}' of space '{self.name}' depends on '{when.parent}', which is not a choice "
                f"declared before it; declare it earlier, with type choice."
            )
        foreign = [value for value in when.values if not parent.contains(value)]
        if foreign or not when.values:
            raise SpaceError(
                f"'{dimension.name}' of space '{self.name}' depends on {when.parent} = {list(when.values)}, "
                f"but {when.parent} is one of {parent.domain()}; name values of it."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all dimensions, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    def dimension(self, name: str) -> Dimension:
        """The dimension of that name. Raises: SpaceError, with the nearest names."""
        for dimension in self.dimensions:
            if dimension.name == name:
                return dimension
        raise SpaceError(f"space '{self.name}' has no dimension '{name}'; {nearest(name, self.names)}.")

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

    def with_defaults(self, values: Mapping[str, Value]) -> Space:
        """The same space with other defaults, for those of its dimensions that ``values`` names within bounds."""
        dimensions = (
            replace(each, parameter=each.parameter.with_default(values[each.name]))
            if each.name in values and each.parameter.contains(values[each.name])
            else each
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
        yield from self._grid_from(0, {}, points)

    def _grid_from(self, index: int, assigned: Assignment, points: int) -> Iterator[Assignment]:
        if index == len(self.dimensions):
            yield assigned
            return
        dimension = self.dimensions[index]
        if not dimension.exists(assigned):
            yield from self._grid_from(index + 1, assigned, points)
            return
        for value in dimension.parameter.grid(points):
            yield from self._grid_from(index + 1, {**assigned, dimension.name: value}, points)

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
        dimension = self.dimension(name)
        parameter = dimension.parameter
        when = dimension.when
        if dimension.otherwise is not None and when is not None and text == format_value(dimension.otherwise):
            parent = self.dimension(when.parent).parameter
            assert isinstance(parent, Choice)  # noqa: S101 - held by __post_init__
            others = tuple(option for option in parent.options if option not in when.values)
            return self._restrict(when.parent, others, f"{name}={text}")
        value = parse_value(text, parameter)
        if not parameter.contains(value):
            raise SpaceError(f"{name}={text} is outside {parameter.domain()}; give a value within these bounds.")
        restricted: Space = self
        notes: tuple[str, ...] = ()
        if when is not None:
            restricted, notes = self._restrict(when.parent, when.values, f"{name}={text}")
        return restricted._with(name, parameter.fixed(value)), notes

    def _restrict(self, name: str, values: tuple[Value, ...], reason: str) -> tuple[Space, tuple[str, ...]]:
        dimension = self.dimension(name)
        assert isinstance(dimension.parameter, Choice)  # noqa: S101 - held by __post_init__
        left = tuple(option for option in dimension.parameter.options if option in values)
        if not left:
            raise SpaceError(
                f"{reason} needs {name} to be one of {', '.join(map(format_value, values))}, but {name} is limited to "
                f"{dimension.parameter.domain()}; change one of the two --set options."
            )
        space: Space = self
        notes: tuple[str, ...] = ()
        if dimension.when is not None:
            space, notes = self._restrict(dimension.when.parent, dimension.when.values, reason)
        if left == dimension.parameter.options:
            return space, notes
        parameter = dimension.parameter.only(left)
        note = f"{reason} limits {name} to {parameter.domain()}"
        return space._with(name, parameter), (*notes, note)

    def _with(self, name: str, parameter: Parameter) -> Space:
        """Replace one parameter, then drop what can no longer exist under any value left."""
        kept: dict[str, Dimension] = {}
        for dimension in self.dimensions:
            changed = replace(dimension, parameter=parameter) if dimension.name == name else dimension
            if changed.when is not None:
                parent = kept.get(changed.when.parent)
                options = parent.parameter.options if parent and isinstance(parent.parameter, Choice) else ()
                values = tuple(value for value in changed.when.values if value in options)
                if not values:
                    continue
                changed = replace(changed, when=replace(changed.when, values=values))
            kept[changed.name] = changed
        return replace(self, dimensions=tuple(kept.values()))

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


def digest_of(data: object, *, digits: int = 16) -> str:
    """Hexadecimal digits (an even number of them) of BLAKE2b over ``data`` as canonical JSON."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=digits // 2).hexdigest()


def _dimension_to_dict(dimension: Dimension) -> dict[str, Any]:
    parameter = dimension.parameter
    data: dict[str, Any] = {"name": parameter.name}
    if isinstance(parameter, Choice):
        data |= {"type": "choice", "options": list(parameter.options), "default": parameter.default}
    else:
        kind = "float" if isinstance(parameter, Float) else "int"
        data |= {"type": kind, "low": parameter.low, "high": parameter.high, "default": parameter.default}
        if parameter.log:
            data["log"] = True
    if parameter.meaning:
        data["meaning"] = parameter.meaning
    if dimension.when is not None:
        data["when"] = {dimension.when.parent: list(dimension.when.values)}
    if dimension.otherwise is not None:
        data["otherwise"] = dimension.otherwise
    return data


def space_from_dict(data: object, *, source: str) -> Space:
    """Build a space from plain data.

    Args:
        data: what a YAML or JSON file held.
        source: where it came from, named in errors.

    Raises:
        SpaceError: on anything that is not of the documented form.
    """
    if not isinstance(data, dict) or not isinstance(data.get("dimensions"), list) or not data["dimensions"]:
        raise SpaceError(f"{source} is not a space; expected a mapping with 'name' and a list 'dimensions'.")
    unknown = set(map(str, data)) - {"name", "description", "dimensions"}
    if unknown:
        raise SpaceError(f"{source} has the unknown key '{min(unknown)}'; valid: name, description, dimensions.")
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise SpaceError(f"{source} has no 'name'; give the space a name.")
    dimensions = tuple(_dimension_from_dict(each, source) for each in data["dimensions"])
    return Space(name=name, description=str(data.get("description", "")), dimensions=dimensions)


_FIELDS = {
    "float": {"low", "high", "default", "log", "meaning"},
    "int": {"low", "high", "default", "log", "meaning"},
    "choice": {"options", "default", "meaning"},
}


def _dimension_from_dict(data: object, source: str) -> Dimension:
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise SpaceError(f"{source} has a dimension without a name; each needs 'name' and 'type'.")
    name, kind = data["name"], str(data.get("type"))
    if kind not in _FIELDS:
        raise SpaceError(f"{source}: '{name}' has the type {kind!r}; expected float, int or choice.")
    fields = {key: value for key, value in data.items() if key not in ("name", "type", "when", "otherwise")}
    unknown = set(map(str, fields)) - _FIELDS[kind]
    if unknown:
        raise SpaceError(
            f"{source}: '{name}' has the unknown key '{min(unknown)}'; {nearest(min(unknown), _FIELDS[kind])}."
        )
    missing = _FIELDS[kind] - {"log", "meaning"} - set(fields)
    if missing:
        raise SpaceError(f"{source}: '{name}' lacks '{min(missing)}'; a {kind} needs it.")
    parameter = _parameter(kind, name, fields, source)
    otherwise = data.get("otherwise")
    if otherwise is not None and not isinstance(otherwise, bool | int | float | str):
        raise SpaceError(f"{source}: 'otherwise' of '{name}' is {otherwise!r}; expected one plain value.")
    return Dimension(parameter=parameter, when=_when(name, data.get("when"), source), otherwise=otherwise)


def _parameter(kind: str, name: str, fields: dict[str, Any], source: str) -> Parameter:
    if kind == "choice":
        options = fields["options"]
        if not isinstance(options, list) or not all(isinstance(each, bool | int | float | str) for each in options):
            raise SpaceError(f"{source}: 'options' of '{name}' is {options!r}; expected a list of plain values.")
        return Choice(
            name=name, options=tuple(options), default=fields["default"], meaning=str(fields.get("meaning", ""))
        )
    allowed: tuple[type, ...] = (int,) if kind == "int" else (int, float)
    for key in ("low", "high", "default"):
        if not isinstance(fields[key], allowed) or isinstance(fields[key], bool):
            raise SpaceError(
                f"{source}: '{key}' of '{name}' is {fields[key]!r}; expected {kind} (write 1.0e-3, not 1e-3)."
            )
    if not isinstance(fields.get("log", False), bool):
        raise SpaceError(f"{source}: 'log' of '{name}' is {fields['log']!r}; expected true or false.")
    number = Int if kind == "int" else Float
    return number(
        name=name,
        low=fields["low"],
        high=fields["high"],
        default=fields["default"],
        log=fields.get("log", False),
        meaning=str(fields.get("meaning", "")),
    )


def _when(name: str, data: object, source: str) -> When | None:
    if data is None:
        return None
    if not isinstance(data, dict) or len(data) != 1:
        raise SpaceError(
            f"{source}: 'when' of '{name}' is {data!r}; expected one parent, as in when: {{mixer.name: [genmix]}}."
        )
    ((parent, values),) = data.items()
    listed = values if isinstance(values, list) else [values]
    return When(parent=str(parent), values=tuple(listed))


def space_from_yaml(text: str, *, source: str) -> Space:
    """Read a space from YAML text (safe loading; at most 1 MB).

    Raises: SpaceError if it is too large, not YAML or not a space.
    """
    if len(text) > 1_000_000:
        raise SpaceError(f"{source} is larger than 1 MB; a space is a short list of dimensions.")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpaceError(f"{source} is not valid YAML ({' '.join(str(error).split())}); mend it there.") from None
    return space_from_dict(data, source=source)
