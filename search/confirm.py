"""Confirmation: the best of a search and the reference policies, evaluated again with fresh seeds on fresh splits.

A confirmation is a ledger of its own inside the search's folder (``NAME/confirm``), so that it is computed, resumed and
tracked by what computes, resumes and tracks searches. It opens the locked test set, where there is one.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from search.candidates import MOST_REPEATS, Plan, affordable, candidates, plan, spent
from search.outcome import write_outcome
from search.settings import SettingsError
from search.verdict import Verdict, judge, print_verdict
from trainables.data.cohort import Cohort
from trainables.data.locked import LockedTest
from trainables.files import read_json, write_json
from trainables.ledger import SHARED, Ledger
from trainables.seeding import stream

FOLDER = "confirm"
PLAN_FILE = "plan.json"
VERDICT_FILE = "confirmation.json"
SHARE = 0.25
"""A search ends in a confirmation that costs at most this share of the search's own computation."""
TOP = 3
REPEATS = 2
TEST_REPEATS = 3
"""Trainings for the locked test set, with fresh seeds each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asks of a confirmation.

    Args:
        top: how many of the best trials.
        repeats: of the whole cross-validation.
        again: start another one beside those that are there.
    """

    top: int = TOP
    repeats: int = REPEATS
    again: bool = False


def confirmations(search: Ledger) -> list[Ledger]:
    """The confirmations of a search, in the order in which they were begun."""
    found = [path.parent for path in search.folder.glob(f"{FOLDER}*/search.json")]
    return [Ledger(folder) for folder in sorted(found, key=_number)]


def is_finished(confirmation: Ledger) -> bool:
    """Whether everything in a confirmation has ended."""
    return all(trial.state != "unfinished" for trial in confirmation.trials())


def open_confirmation(search: Ledger, wish: Wish, console: Console) -> Ledger:
    """The confirmation to go on with, or a new one.

    Raises:
        SettingsError: the search has no complete trial, or is confirmed and ``wish`` does not ask for another one.
        DataError: the data are not those that the locked test set was taken from.
    """
    earlier = confirmations(search)
    if earlier and not is_finished(earlier[-1]):
        console.print(f"Going on with the confirmation in {earlier[-1].folder}")
        return earlier[-1]
    if earlier and not wish.again:
        raise SettingsError(
            f"'{search.folder.name}' is confirmed; its verdict stands in {search.folder / VERDICT_FILE}. Give --again "
            f"for another confirmation on other splits."
        )
    record, trials = search.search(), search.trials()
    chosen = candidates(record, trials, top=wish.top)
    if not chosen:
        raise SettingsError(
            f"'{search.folder.name}' has no complete trial to confirm; go on with it by --resume first."
        )
    repeats = min(wish.repeats, MOST_REPEATS)
    return start(search, plan(record, chosen, repeats=repeats, test_repeats=_test_repeats(search)), console)


def affordable_plan(search: Ledger) -> Plan | None:
    """The largest confirmation that costs at most ``SHARE`` of the search; None where none does."""
    record, trials = search.search(), search.trials()
    chosen = candidates(record, trials, top=TOP)
    return affordable(record, chosen, limit=SHARE * spent(trials), test_repeats=_test_repeats(search))


def full_plan(search: Ledger) -> Plan | None:
    """What the subcommand would do by itself; None where there is nothing to confirm."""
    record = search.search()
    chosen = candidates(record, search.trials(), top=TOP)
    if len(chosen) < 2:
        return None
    return plan(record, chosen, repeats=REPEATS, test_repeats=_test_repeats(search))


def command(search: Ledger) -> str:
    """The command that confirms a search."""
    storage = "" if search.storage == Path("searches").resolve() else f" --storage {shlex.quote(str(search.storage))}"
    return f"python search/run.py confirm {search.folder.name}{storage}"


def start(search: Ledger, chosen: Plan, console: Console) -> Ledger:
    """Record a new confirmation; the locked test set is opened here."""
    record, locked = search.search(), LockedTest.read(search.folder)
    number = len(confirmations(search)) + 1
    building = search.folder / f".{FOLDER}"
    shutil.rmtree(building, ignore_errors=True)
    ledger = Ledger(building)
    building.mkdir()
    data = record.data
    if locked is not None:
        cohort = _unlock(locked, search, console)
        data = replace(data, digest=cohort.digest, counts=cohort.counts, patients=cohort.n_patients)
        locked.write(building)
    ledger.write_search(
        replace(
            record,
            data=data,
            protocol=replace(record.protocol, repeats=chosen.repeats, test_repeats=chosen.test_repeats),
            folds=chosen.evaluations,
            seed=stream(record.seed, f"{FOLDER}{number}") % 2**31,
            scheduler="fifo",
            trials=len(chosen.candidates),
            created=time.time(),
        )
    )
    ids = [ledger.add_trial(each.config, reference=each.role) for each in chosen.candidates]
    trials = {trial: each.trial for trial, each in zip(ids, chosen.candidates, strict=True)}
    write_json(building / PLAN_FILE, {"searched_as": trials})
    folder = search.folder / (FOLDER if number == 1 else f"{FOLDER}-{number}")
    building.rename(folder)
    console.print(
        f"Confirmation: {len(chosen.candidates)} policies, {chosen.evaluations} trainings each with fresh seeds"
        + (f", {chosen.test_repeats} of them for the locked test set" if chosen.test_repeats else "")
        + f"; about {duration(chosen.seconds)} of computation"
    )
    return Ledger(folder)


def conclude(search: Ledger, confirmation: Ledger, console: Console) -> Verdict:
    """Judge a confirmation, write the verdict into the search's folder and print it."""
    earlier = [each for each in confirmations(search) if _number(each.folder) < _number(confirmation.folder)]
    record = confirmation.search()
    verdict = judge(
        record,
        search.trials(),
        confirmation.trials(),
        searched_as=read_json(confirmation.folder / PLAN_FILE)["searched_as"],
        locked_before=bool(earlier) and bool(record.protocol.test_repeats),
    )
    write_json(search.folder / VERDICT_FILE, verdict.to_dict())
    write_outcome(search)
    print_verdict(console, verdict)
    return verdict


def _unlock(locked: LockedTest, search: Ledger, console: Console) -> Cohort:
    with console.status("reading images") as status:
        return locked.unlock(
            cache=search.storage / SHARED / "images",
            on_progress=lambda done, total: status.update(f"reading images {done}/{total}"),
        )


def _test_repeats(search: Ledger) -> int:
    return TEST_REPEATS if LockedTest.read(search.folder) is not None else 0


def _number(folder: Path) -> int:
    tail = folder.name.removeprefix(FOLDER).removeprefix("-")
    return int(tail) if tail.isdigit() else 1


def duration(seconds: float) -> str:
    """A time in the unit that suits it: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def not_confirmed(search: Ledger, reasons: Sequence[str]) -> str | None:
    """The sentence of a search that ends without a confirmation; None where there is nothing to confirm."""
    whole = full_plan(search)
    if whole is None:
        return None
    why = "".join(f" ({reason})" for reason in reasons)
    return (
        f"Not confirmed{why}: the scores above chose the best. To evaluate {len(whole.candidates)} policies again on "
        f"fresh splits, about {duration(whole.seconds)} of computation: {command(search)}"
    )
