"""A search space from plain data or the text of a YAML file: the form that users write and searches record.

A file from elsewhere is not trusted: only plain values are built, and its size, depth and number of dimensions are
bounded. Anchors, aliases and repeated keys, which no space needs, are refused.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from spaces.errors import SpaceError, nearest
from spaces.parameter import Choice, Float, Int, Parameter
from spaces.space import Dimension, Space, When
from spaces.yaml_file import text_from_file, yaml_from_text

MAX_DIMENSIONS = 500
MAX_OPTIONS = 1000
MAX_TEXT = 1000
MAX_NUMBER = 2**53
"""Whole numbers beyond it are not exact as floats."""

_DIMENSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
        raise SpaceError(f"{source} has the unknown key {_shown(min(unknown))}; valid: name, description, dimensions.")
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise SpaceError(f"{source} has no 'name'; give the space a name.")
    if len(name) > MAX_TEXT:
        raise SpaceError(f"{source} has a name of {len(name)} characters; give the space a short name.")
    if len(data["dimensions"]) > MAX_DIMENSIONS:
        raise SpaceError(f"{source} has {len(data['dimensions'])} dimensions; expected at most {MAX_DIMENSIONS}.")
    description = _text(data.get("description", ""), "'description'", source)
    dimensions = tuple(_dimension_from_dict(each, source) for each in data["dimensions"])
    return Space(name=name, description=description, dimensions=dimensions)


_FIELDS = {
    "float": {"low", "high", "default", "log", "meaning"},
    "int": {"low", "high", "default", "log", "around", "meaning"},
    "choice": {"options", "default", "open", "meaning"},
}
_OPTIONAL = {"log", "around", "open", "meaning"}


def _dimension_from_dict(data: object, source: str) -> Dimension:
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise SpaceError(f"{source} has a dimension without a name; each needs 'name' and 'type'.")
    name, kind = data["name"], data.get("type")
    if not _DIMENSION_NAME.fullmatch(name):
        raise SpaceError(
            f"{source} has a dimension named {_shown(name)}; expected up to 100 letters, digits, '.', '_' and '-'."
        )
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise SpaceError(f"{source}: '{name}' has the type {_shown(kind)}; expected float, int or choice.")
    fields = {key: value for key, value in data.items() if key not in ("name", "type", "when", "otherwise")}
    unknown = set(map(str, fields)) - _FIELDS[kind]
    if unknown:
        raise SpaceError(
            f"{source}: '{name}' has the unknown key {_shown(min(unknown))}; {nearest(min(unknown), _FIELDS[kind])}."
        )
    missing = _FIELDS[kind] - _OPTIONAL - set(fields)
    if missing:
        raise SpaceError(f"{source}: '{name}' lacks '{min(missing)}'; a {kind} needs it.")
    parameter = _parameter(kind, name, fields, source)
    otherwise = data.get("otherwise")
    if otherwise is not None and not _is_plain(otherwise):
        raise SpaceError(f"{source}: 'otherwise' of '{name}' is {_shown(otherwise)}; expected one plain value.")
    return Dimension(parameter=parameter, when=_when(name, data.get("when"), source), otherwise=otherwise)


def _parameter(kind: str, name: str, fields: dict[str, Any], source: str) -> Parameter:
    for key in ("log", "open"):
        if not isinstance(fields.get(key, False), bool):
            raise SpaceError(f"{source}: '{key}' of '{name}' is {_shown(fields[key])}; expected true or false.")
    meaning = _text(fields.get("meaning", ""), f"'meaning' of '{name}'", source)
    if kind == "choice":
        options = fields["options"]
        if not isinstance(options, list) or len(options) > MAX_OPTIONS or not all(map(_is_plain, options)):
            raise SpaceError(
                f"{source}: 'options' of '{name}' is {_shown(options)}; expected a list of at most {MAX_OPTIONS} plain "
                f"values."
            )
        if not _is_plain(fields["default"]):
            raise SpaceError(f"{source}: 'default' of '{name}' is {_shown(fields['default'])}; expected an option.")
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
    if not isinstance(value, allowed) or isinstance(value, bool) or (isinstance(value, int) and not _is_plain(value)):
        kind = "float" if float in allowed else "int"
        raise SpaceError(f"{source}: '{key}' of '{name}' is {_shown(value)}; expected {kind} (write 1.0e-3, not 1e-3).")


def _when(name: str, data: object, source: str) -> When | None:
    if data is None:
        return None
    if not isinstance(data, dict) or len(data) != 1:
        raise SpaceError(
            f"{source}: 'when' of '{name}' is {_shown(data)}; expected one parent, as in {{mixer.name: [genmix]}}."
        )
    ((parent, values),) = data.items()
    listed = values if isinstance(values, list) else [values]
    if not isinstance(parent, str) or len(listed) > MAX_OPTIONS or not all(map(_is_plain, listed)):
        raise SpaceError(
            f"{source}: 'when' of '{name}' is {_shown(data)}; expected a dimension and plain values of it."
        )
    return When(parent=parent, values=tuple(listed))


def _is_plain(value: object) -> bool:
    """Whether a value is one that a configuration can hold, and of bearable size."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int) and abs(value) <= MAX_NUMBER


def _text(value: object, what: str, source: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise SpaceError(f"{source}: {what} is {_shown(value)}; expected a text of at most {MAX_TEXT} characters.")
    return value


def _shown(value: object) -> str:
    """A value as Python writes it, cut where it is long; never more of it is written than is shown."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_NUMBER:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return ascii(value[:100]) + ("..." if len(value) > 100 else "")
    if isinstance(value, list | dict) and len(value) > 20:
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(each)}" for key, each in value.items()) + "}"
    return repr(value)[:100]


def space_from_yaml(text: str, *, source: str) -> Space:
    """Read a space from YAML text.

    Raises: SpaceError if it is not YAML as ``yaml_from_text`` reads it, or is not a space.
    """
    return space_from_dict(yaml_from_text(text, source=source), source=source)


def space_from_file(path: Path, *, source: str) -> Space:
    """Read a space from a YAML file; ``source`` is how sentences call it.

    Raises: SpaceError if it cannot be read, or as ``space_from_yaml``.
    """
    return space_from_yaml(text_from_file(path, source=source), source=source)
