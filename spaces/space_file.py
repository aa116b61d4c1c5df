"""A search space from plain data or the text of a YAML file: the form that users write and searches record."""

from __future__ import annotations

from typing import Any

import yaml

from spaces.errors import SpaceError, nearest
from spaces.parameter import Choice, Float, Int, Parameter
from spaces.space import Dimension, Space, When


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
    "int": {"low", "high", "default", "log", "around", "meaning"},
    "choice": {"options", "default", "open", "meaning"},
}
_OPTIONAL = {"log", "around", "open", "meaning"}


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
    missing = _FIELDS[kind] - _OPTIONAL - set(fields)
    if missing:
        raise SpaceError(f"{source}: '{name}' lacks '{min(missing)}'; a {kind} needs it.")
    parameter = _parameter(kind, name, fields, source)
    otherwise = data.get("otherwise")
    if otherwise is not None and not isinstance(otherwise, bool | int | float | str):
        raise SpaceError(f"{source}: 'otherwise' of '{name}' is {otherwise!r}; expected one plain value.")
    return Dimension(parameter=parameter, when=_when(name, data.get("when"), source), otherwise=otherwise)


def _parameter(kind: str, name: str, fields: dict[str, Any], source: str) -> Parameter:
    for key in ("log", "open"):
        if not isinstance(fields.get(key, False), bool):
            raise SpaceError(f"{source}: '{key}' of '{name}' is {fields[key]!r}; expected true or false.")
    meaning = str(fields.get("meaning", ""))
    if kind == "choice":
        options = fields["options"]
        if not isinstance(options, list) or not all(isinstance(each, bool | int | float | str) for each in options):
            raise SpaceError(f"{source}: 'options' of '{name}' is {options!r}; expected a list of plain values.")
        listed, default, is_open = tuple(options), fields["default"], fields.get("open", False)
        return Choice(name=name, options=listed, default=default, open=is_open, meaning=meaning)
    allowed: tuple[type, ...] = (int,) if kind == "int" else (int, float)
    for key in ("low", "high", "default"):
        _check_number(name, key, fields[key], allowed, source)
    bounds = {key: fields[key] for key in ("low", "high", "default")}
    if kind == "float":
        return Float(name=name, **bounds, log=fields.get("log", False), meaning=meaning)
    if "around" in fields:
        _check_number(name, "around", fields["around"], (int, float), source)
    return Int(name=name, **bounds, log=fields.get("log", False), around=fields.get("around"), meaning=meaning)


def _check_number(name: str, key: str, value: object, allowed: tuple[type, ...], source: str) -> None:
    if not isinstance(value, allowed) or isinstance(value, bool):
        kind = "float" if float in allowed else "int"
        raise SpaceError(f"{source}: '{key}' of '{name}' is {value!r}; expected {kind} (write 1.0e-3, not 1e-3).")


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
