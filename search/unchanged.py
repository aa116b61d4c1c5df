"""Whether a search that goes on is the one that was started: data, space, budget and all that was fixed then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.chosen_space import chosen_space
from search.commands import program, storage_flag
from search.pretrained import leave_missing, leave_missing_weights
from search.settings import SettingsError
from search.started_with import SPACE_FILE, flags_of, in_words, is_named, space_flag
from spaces.budget import budget_named
from spaces.parameter import format_value
from spaces.presets import PRESETS
from spaces.space import Space
from trainables.data.labels import LabelTable
from trainables.data.locked import LockedTest
from trainables.data.source import Source
from trainables.errors import DataError
from trainables.files import write_atomically
from trainables.ledger import Ledger, SearchRecord

_OF_SOURCE = {
    "labels": "labels",
    "slice": "slice_rule",
    "split_file": "split_file",
    "skip_bad_images": "skip_bad_images",
}
"""Flags that say how images are read, and the fields of ``Source`` that hold them."""
_RIVALS = (("folds", "leave_site_out", "split_file"), ("lock_test", "split_file"))
"""Flags of which one takes the others' place."""


def check_unchanged(ledger: Ledger, given: Mapping[str, Any]) -> str | None:
    """See that the flags given are those that a search was started with, and that its images are what they were.

    Args:
        ledger: the search to go on with.
        given: what was given on the command line of all that is fixed when a search starts, by the flag's name.

    Returns:
        A sentence for the user where the images could not be looked at; None otherwise.

    Raises:
        SettingsError: something differs; the sentence names all of it, and the command that starts a new search.
    """
    record = ledger.search()
    found = [*_settings(ledger, record, given), *_space(record, given)]
    source = _source(record, given)
    note = None
    if source is not None and not source.is_phantom:
        if not Path(source.data).exists():
            note = f"The images are not at {source.data} any more; the search goes on with those that it has decoded."
        else:
            found += _images(ledger, record, source)
    if found:
        raise SettingsError(
            f"'{ledger.folder.name}' was started otherwise: {'; '.join(found)}. Go on with what it was started with, "
            f"or start a new search that learns from it: {_start_command(ledger, record, given)}"
        )
    return note


def _settings(ledger: Ledger, record: SearchRecord, given: Mapping[str, Any]) -> Iterator[str]:
    protocol, classes = record.protocol, record.data.classes
    recorded = {
        "name": ledger.folder.name,
        "budget": record.budget,
        "folds": protocol.folds if protocol.kind == "folds" else None,
        "leave_site_out": protocol.kind == "sites",
        "validation": protocol.validation,
        "seed": record.seed,
        "metric": ",".join((record.metric, *record.further_metrics)),
        "sampler": record.sampler,
        "scheduler": record.scheduler,
        "max_copy_rate": record.max_copy_rate,
        "positive": classes[record.data.positive] if len(classes) == 2 else None,
        "no_images": not record.show_images,
        "no_sharing": not record.sharing,
        "warm_start": list(record.warm_start),
        "lock_test": record.lock_test,
    }
    for name, value in given.items():
        if name in recorded and recorded[name] != value:
            advice = " (other folds are other splits; --repeats adds folds)" if name == "folds" else ""
            yield f"{_flag(name)} was {_words(recorded[name])} and is {_words(value)} now{advice}"


def _space(record: SearchRecord, given: Mapping[str, Any]) -> Iterator[str]:
    """How the space that the flags choose differs from the one on record, dimension by dimension."""
    if "space" not in given and "set" not in given:
        return
    budget = budget_named(record.budget)
    fixed = given.get("set", [])
    named = {each.partition("=")[0].strip() for each in fixed}
    named_now = given.get("space", record.space.name)
    space, _ = chosen_space(named_now if "space" in given or named_now in PRESETS else record.space, fixed, budget)
    space, _ = leave_missing(space, budget, named=named)
    space, _ = leave_missing_weights(space, budget, named=named)
    if space.digest == record.space.digest:
        return
    if space.name != record.space.name:
        yield f"--space was {record.space.name} and is {space.name} now"
        return
    before, now = _dimensions(record.space), _dimensions(space)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield f"the space's {name} was {before.get(name, 'absent')} and is {now.get(name, 'absent')} now"


def _dimensions(space: Space) -> dict[str, str]:
    """Every dimension in words, those of one name together."""
    found: dict[str, list[str]] = {}
    for dimension in space.dimensions:
        when = dimension.when
        where = "" if when is None else f" where {when.parent} is {' or '.join(map(format_value, when.values))}"
        default = format_value(dimension.parameter.default)
        found.setdefault(dimension.name, []).append(f"{dimension.parameter.domain()}, default {default}{where}")
    return {name: f"({'; '.join(words)})" for name, words in found.items()}


def _source(record: SearchRecord, given: Mapping[str, Any]) -> Source | None:
    """Where the images should come from now; None for a search that has not recorded it and is told nothing."""
    if record.source is None and "data" not in given:
        return None
    source = record.source or Source(data="")
    if "data" in given:
        source = replace(source, data=str(given["data"]), is_phantom=False)
    return replace(source, **{field: given[name] for name, field in _OF_SOURCE.items() if name in given}).absolute()


def _images(ledger: Ledger, record: SearchRecord, source: Source) -> Iterator[str]:
    locked = LockedTest.read(ledger.folder)
    try:
        table = source.table()
    except DataError as error:
        yield f"its images cannot be read any more ({error})"
        return
    searched = table if locked is None else table.part(locked.ids, inside=False)
    if source.digest(searched) != record.data.digest:
        yield f"its images, labels or patients at {source.data} have changed ({_counts(record, searched)})"


def _counts(record: SearchRecord, table: LabelTable) -> str:
    before, now = sum(record.data.counts) + len(record.data.bad_images), len(table.rows)
    return f"it knew {before} images, and finds {now}" if before != now else f"there are {now} as before; bytes differ"


def _start_command(ledger: Ledger, record: SearchRecord, given: Mapping[str, Any]) -> str:
    """All that the search was started with, and in its place what was given now; its sampler learns from trials."""
    path = ledger.folder / SPACE_FILE
    if "space" not in given and not is_named(record) and not path.exists():
        write_atomically(path, record.space.to_yaml())
    flags = {"space": space_flag(record, ledger.folder), **flags_of(record, LockedTest.read(ledger.folder))}
    for rivals in _RIVALS:
        if any(name in given for name in rivals):
            flags = {name: value for name, value in flags.items() if name not in rivals}
    flags |= given
    dropped = ["name", "cpus_per_trial", "warm_start", *(["sampler"] if flags["sampler"] in ("random", "grid") else [])]
    kept = {name: value for name, value in flags.items() if name not in dropped}
    words = in_words({**kept, "warm_start": [ledger.folder.name]})
    return f"{program()} {words}{storage_flag(ledger)}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "not given" if value is None else str(value)
