"""How a search is run again: the command that its record amounts to."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.chosen_space import chosen_space
from spaces.budget import budget_named
from spaces.errors import InputError
from spaces.presets import PRESETS
from spaces.space_file import space_from_yaml
from trainables.data.locked import LockedTest
from trainables.ledger import SearchRecord

SPACE_FILE = "space.yaml"
"""In the search's folder: the space, where no named one is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a search is run again.

    Args:
        command: into an empty storage.
        single: the best configuration alone.
        space_yaml: the content of the space's file that the command names; None where it names a space.
        notes: in how far it is not the same search, a sentence each.
    """

    command: str
    single: str
    space_yaml: str | None = None
    notes: tuple[str, ...] = ()


def recipe(record: SearchRecord, *, locked: LockedTest | None, folder: Path) -> Recipe:
    """How a search is run again, from its record.

    Args:
        record: of the search.
        locked: its locked test set, if it has one.
        folder: of the search, where ``best.yaml`` lies, and the space's file if it needs one.
    """
    is_named = _same_space(record, record.space.name)
    notes = list(_notes(record, locked))
    flags = ["--space", record.space.name if is_named else str(folder / SPACE_FILE), *_flags(record, locked)]
    if not is_named and not _same_file(record):
        notes.append("Its space was narrowed in a way that a file does not repeat in every default.")
    yaml = None if is_named else record.space.to_yaml()
    return Recipe(
        command=_command(flags),
        single=_command(["--config", str(folder / "best.yaml")]),
        space_yaml=yaml,
        notes=tuple(notes),
    )


def _command(flags: Sequence[str]) -> str:
    return "python search/run.py " + " ".join(map(shlex.quote, flags))


def _same_space(record: SearchRecord, name: str) -> bool:
    """Whether a space's name alone, under the search's budget, means the space that was searched."""
    if name not in PRESETS:
        return False
    try:
        return chosen_space(name, (), budget_named(record.budget))[0].digest == record.space.digest
    except InputError:
        return False


def _same_file(record: SearchRecord) -> bool:
    """Whether the space, written to a file and read under the search's budget, is the same again."""
    budget = budget_named(record.budget)
    try:
        loaded = space_from_yaml(record.space.to_yaml(), source=SPACE_FILE)
    except InputError:
        return False
    same = loaded.with_defaults(budget.settings, generators=budget.generators).narrowed()
    return same.digest == record.space.digest


def _flags(record: SearchRecord, locked: LockedTest | None) -> Iterator[str]:
    yield from ("--budget", record.budget)
    yield from _data_flags(record)
    yield from _protocol_flags(record, locked)
    yield from ("--metric", ",".join((record.metric, *record.further_metrics)))
    yield from ("--sampler", record.sampler, "--scheduler", record.scheduler, "--seed", str(record.seed))
    yield from ("--trials", str(record.trials), "--cpus-per-trial", str(record.threads))
    for name in record.warm_start:
        yield from ("--warm-start", name)
    if record.max_copy_rate is not None:
        yield from ("--max-copy-rate", f"{record.max_copy_rate:g}")
    if not record.sharing:
        yield "--no-sharing"
    if not record.show_images:
        yield "--no-images"
    yield from ("--name", record.name)


def _data_flags(record: SearchRecord) -> Iterator[str]:
    source = record.source
    if record.data.is_phantom:
        return
    yield from ("--data", source.data if source is not None else "FOLDER")
    if source is not None and source.labels is not None:
        yield from ("--labels", source.labels)
    if source is not None and source.slice_rule is not None:
        yield from ("--slice", str(source.slice_rule))
    if source is not None and source.skip_bad_images:
        yield "--skip-bad-images"
    if len(record.data.classes) == 2:
        yield from ("--positive", record.data.classes[record.data.positive])


def _protocol_flags(record: SearchRecord, locked: LockedTest | None) -> Iterator[str]:
    protocol, source = record.protocol, record.source
    if source is not None and source.split_file is not None:
        yield from ("--split-file", source.split_file)
    elif protocol.kind == "sites":
        yield "--leave-site-out"
    elif protocol.kind == "split":
        yield from ("--split-file", "FILE")
    else:
        yield from ("--folds", str(protocol.folds))
    if protocol.repeats > 1:
        yield from ("--repeats", str(protocol.repeats))
    if protocol.validation:
        yield from ("--validation", f"{protocol.validation:g}")
    share = _locked_share(record, locked)
    if share is not None:
        yield from ("--lock-test", f"{share:.6g}")


def _locked_share(record: SearchRecord, locked: LockedTest | None) -> float | None:
    """The share that was locked: as it was given or, where that is not on record, as it came out."""
    from_file = record.protocol.kind == "split" or (record.source is not None and record.source.split_file is not None)
    if locked is None or from_file:
        return None
    if record.lock_test is not None:
        return record.lock_test
    return len(locked.ids) / (len(locked.ids) + sum(record.data.counts))


def _notes(record: SearchRecord, locked: LockedTest | None) -> Iterator[str]:
    if _locked_share(record, locked) is not None and record.lock_test is None:
        yield "The share given to --lock-test is the one that was locked; locked.json lists the images themselves."
    if record.source is None and not record.data.is_phantom:
        yield (
            f"Where the images lay was recorded in words only: {record.data.source}; put it in the place of FOLDER, "
            f"and a split file in that of FILE."
        )
    yield (
        "Configurations are proposed from the trials that have ended by then, so that two runs may try others where "
        "several trials run at once; the scores of one configuration are the same on the same machine."
    )
