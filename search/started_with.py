"""The flags that a search was started with, from its record."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.chosen_space import chosen_space
from spaces.budget import budget_named
from spaces.errors import InputError
from spaces.presets import PRESETS
from trainables.data.locked import LockedTest
from trainables.ledger import SearchRecord

SPACE_FILE = "space.yaml"
"""In the search's folder: the space, where no named one is the same."""

_Flags = Iterator[tuple[str, Any]]


def space_flag(record: SearchRecord, folder: Path) -> str:
    """The space's name, where it says all; else the path of its file in the search's folder."""
    return record.space.name if is_named(record) else str(folder / SPACE_FILE)


def is_named(record: SearchRecord) -> bool:
    """Whether the space's name alone, under the search's budget, means the space that was searched."""
    if record.space.name not in PRESETS:
        return False
    try:
        return chosen_space(record.space.name, (), budget_named(record.budget))[0].digest == record.space.digest
    except InputError:
        return False


def flags_of(record: SearchRecord, locked: LockedTest | None) -> dict[str, Any]:
    """Every flag of a search but ``--space``: its name, with "_" for "-", and its value, as ``in_words`` takes them."""
    found = {
        "budget": record.budget,
        **dict(_data_flags(record)),
        **dict(_protocol_flags(record, locked)),
        "metric": ",".join((record.metric, *record.further_metrics)),
        "sampler": record.sampler,
        "scheduler": record.scheduler,
        "seed": record.seed,
        "trials": record.trials,
        "cpus_per_trial": record.threads,
        "warm_start": list(record.warm_start),
        "max_copy_rate": record.max_copy_rate,
        "no_sharing": not record.sharing,
        "no_images": not record.show_images,
        "name": record.name,
    }
    return {name: value for name, value in found.items() if value is not None}


def in_words(flags: Mapping[str, Any]) -> str:
    """Flags as they are typed: a list as often as it has values, True as the flag alone, False not at all."""
    words: list[str] = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        for each in value if isinstance(value, list) else [value]:
            words += [flag] if each is True else [] if each is False else [flag, _typed(each)]
    return shlex.join(words)


def locked_share(record: SearchRecord, locked: LockedTest | None) -> float | None:
    """The share that was locked: as it was given or, where that is not on record, as it came out."""
    from_file = record.protocol.kind == "split" or (record.source is not None and record.source.split_file is not None)
    if locked is None or from_file:
        return None
    if record.lock_test is not None:
        return record.lock_test
    return len(locked.ids) / (len(locked.ids) + sum(record.data.counts))


def _typed(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _data_flags(record: SearchRecord) -> _Flags:
    source = record.source
    if record.data.is_phantom:
        return
    yield "data", "FOLDER" if source is None else source.data
    if source is not None:
        yield "labels", source.labels
        yield "slice", source.slice_rule
        yield "skip_bad_images", source.skip_bad_images
    if len(record.data.classes) == 2:
        yield "positive", record.data.classes[record.data.positive]


def _protocol_flags(record: SearchRecord, locked: LockedTest | None) -> _Flags:
    protocol, source = record.protocol, record.source
    if source is not None and source.split_file is not None:
        yield "split_file", source.split_file
    elif protocol.kind == "sites":
        yield "leave_site_out", True
    elif protocol.kind == "split":
        yield "split_file", "FILE"
    else:
        yield "folds", protocol.folds
    if protocol.repeats > 1:
        yield "repeats", protocol.repeats
    if protocol.validation:
        yield "validation", protocol.validation
    yield "lock_test", locked_share(record, locked)
