"""Plain values from YAML files that are not trusted.

Only plain values are built, and size and depth are bounded. Anchors, aliases and repeated keys, which no file of this
project needs, are refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from spaces.errors import SpaceError

MAX_BYTES = 2**18
MAX_DEPTH = 16


class _Loader(yaml.SafeLoader):
    """Builds plain values alone, and stops where a file nests deeply, refers to itself or says a key twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a value. Raises: YAMLError on what no space needs."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(f"it has an anchor or alias in line {event.start_mark.line + 1}")
        if self._depth == MAX_DEPTH:
            raise yaml.YAMLError(f"it nests deeper than {MAX_DEPTH} in line {event.start_mark.line + 1}")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping. Raises: YAMLError on a key that is there twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(set(keys)):
            raise yaml.YAMLError(f"a mapping says the same key twice from line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep=deep)


def yaml_from_text(text: str, *, source: str) -> object:
    """Read plain values from YAML text.

    Raises: SpaceError if it is larger than ``MAX_BYTES``, not YAML, or uses what is not needed.
    """
    if len(text) > MAX_BYTES:
        raise SpaceError(f"{source} is larger than {MAX_BYTES} bytes; expected a short file.")
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError, AttributeError, TypeError, KeyError) as error:
        # beside its own errors, PyYAML raises what its scalars' conversions raise, such as ValueError on 2000-13-45
        reason = " ".join(str(error).split())[:300]
        raise SpaceError(f"{source} is not valid YAML ({reason}); mend it there.") from None


def text_from_file(path: Path, *, source: str) -> str:
    """Read a text file: a regular one of at most ``MAX_BYTES``, in UTF-8.

    Args:
        path: the file; a FIFO or a device is not opened.
        source: how sentences call it.

    Raises:
        SpaceError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SpaceError(f"{source} is no regular file; give the path of a .yaml file.")
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            return stream.read(4 * MAX_BYTES + 1).decode("utf-8")
    except UnicodeDecodeError:
        raise SpaceError(f"{source} cannot be read (not UTF-8 text); give the path of a .yaml file.") from None
    except OSError as error:
        raise SpaceError(f"{source} cannot be read ({error.strerror}); give the path of a .yaml file.") from None
    except ValueError as error:
        if isinstance(error, SpaceError):
            raise
        raise SpaceError(f"{source} cannot be read (no file is named so); give the path of a .yaml file.") from None
