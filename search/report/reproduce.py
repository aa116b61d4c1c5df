"""How a search is run again: the command that its record amounts to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from search.chosen_space import of_budget
from search.commands import PROGRAM
from search.started_with import SPACE_FILE, flags_of, in_words, is_named, locked_share, space_flag
from spaces.budget import budget_named
from spaces.errors import InputError
from spaces.space_file import space_from_yaml
from trainables.data.locked import LockedTest
from trainables.ledger import SearchRecord


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
    notes = list(_notes(record, locked))
    if not is_named(record) and not _same_file(record):
        notes.append("Its space was narrowed in a way that a file does not repeat in every default.")
    flags = {"space": space_flag(record, folder), **flags_of(record, locked)}
    return Recipe(
        command=f"{PROGRAM} {in_words(flags)}",
        single=f"{PROGRAM} {in_words({'config': folder / 'best.yaml'})}",
        space_yaml=None if is_named(record) else record.space.to_yaml(),
        notes=tuple(notes),
    )


def _same_file(record: SearchRecord) -> bool:
    """Whether the space, written to a file and read under the search's budget, is the same again."""
    budget = budget_named(record.budget)
    try:
        loaded = space_from_yaml(record.space.to_yaml(), source=SPACE_FILE)
    except InputError:
        return False
    return of_budget(loaded, budget).narrowed().digest == record.space.digest


def _notes(record: SearchRecord, locked: LockedTest | None) -> Iterator[str]:
    if locked_share(record, locked) is not None and record.lock_test is None:
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
