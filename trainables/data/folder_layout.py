"""Folders that look like class folders and are none: the parts of a split, or places that each hold all classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType

from spaces.protocol import OWN_SPLITS
from trainables.data.untrusted import quoted
from trainables.errors import DataError

PARTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("val", "valid", "validation"), "val"),
        **dict.fromkeys(("test", "testing"), "test"),
    }
)
"""How the parts of a split are called, in small letters, and what the column ``split`` calls them."""

_FEW = 20
"""Different folder names that may be classes; more of them are rather patients, numbered alike in every class."""
_NAMED = 4


def check_layout(images: Sequence[str], data: str) -> None:
    """Check that the top folders of a data set may be its classes.

    Args:
        images: paths relative to the data folder in POSIX form, each below a top folder.
        data: the folder, as it was given.

    Raises:
        DataError: two top folders are called as parts of a split, or one that holds its images in folders of its own;
            or the folders below the top folders share names, so that either may be the classes.
    """
    below: dict[str, dict[str, str]] = {}
    for image in images:
        top, *rest = PurePosixPath(image).parts
        below.setdefault(top, {}).setdefault(rest[0] if len(rest) > 1 else "", image)
    parts = [top for top in below if top.lower() in PARTS]
    if len(parts) > 1 or any("" not in below[top] for top in parts):
        raise _no_classes(parts, below, data)
    found = Counter(name for names in below.values() for name in names if name)
    shared = sorted(name for name, count in found.items() if count > 1)
    if len(shared) > 1 and len(found) <= _FEW:
        tops = [top for top, names in below.items() if not names.keys().isdisjoint(shared)]
        example = below[tops[0]][shared[0]]
        raise DataError(
            f"--data {quoted(data)} has folders of the same names ({_listed(shared)}) below {_listed(tops)}, so that "
            f"either may be the classes; expected CLASS/FILE. List the images in a labels.csv with the columns "
            f"path,label,patient and rows such as {quoted(f'{example},CLASS,PATIENT')}."
        )


def _no_classes(parts: Sequence[str], below: Mapping[str, Mapping[str, str]], data: str) -> DataError:
    part = parts[0]
    classes = sorted({name for top in parts for name in below[top] if name})
    label = min(below[part])
    row = f"{below[part][label]},{label or 'CLASS'},PATIENT,{PARTS[part.lower()]}"
    held = f" with folders {_listed(classes)} below" if classes else ""
    names, one = _listed(sorted(parts)), len(parts) == 1
    return DataError(
        f"--data {quoted(data)} has the top folder{'s' * (not one)} {names}{held}: {'a part' if one else 'parts'} of a "
        f"split, not {'a class' if one else 'classes'}; expected CLASS/FILE. List the images in a labels.csv with the "
        f"columns path,label,patient,split and rows such as {quoted(row)} (split: train, val or test), and give "
        f"--split-file {OWN_SPLITS} to keep the parts; if they are classes all the same, rename the folders."
    )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(quoted, names[:_NAMED])) + f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
