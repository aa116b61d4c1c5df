"""Confirmation: the best of a search and the reference policies, evaluated again with fresh seeds on fresh splits.

A confirmation is a ledger of its own inside the search's folder (``NAME/confirm``), so that it is computed, resumed and
tracked by what computes, resumes and tracks searches. It opens the locked test set, where there is one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mlflow_tracking.live import LiveProjector
from mlflow_tracking.names import CONFIRMATION_FILE, KIND_CONFIRM
from mlflow_tracking.projector import Projector
from search.attempt import allotted, check_cluster, check_threads, compute, driving
from search.candidates import MOST_REPEATS, TEST_REPEATS, Plan, affordable, candidates, plan, protocol_of, spent
from search.commands import confirm_command, report_command, resume_command
from search.console import open_console
from search.inputs import open_images
from search.outcome import cautions, rank, write_outcome
from search.pretrained import refuse_missing
from search.ray_start import ray_left_at_the_end
from search.report.write import try_report
from search.settings import Resources, SettingsError
from search.storage import check_tracking, check_writable, find_search
from search.verdict import LEVEL, Verdict, judge
from search.verdict_text import print_verdict, sentences
from search.versions import versions
from spaces.budget import budget_named
from spaces.errors import InputError
from spaces.presets import TABLES
from spaces.wording import counted
from trainables.data.cohort import Cohort, Entry
from trainables.data.evaluations import evaluations
from trainables.data.locked import LockedTest, Unlocked
from trainables.files import read_json, write_json
from trainables.ledger import IMAGES, SHARED, Ledger, SearchRecord
from trainables.metrics.power import TYPICAL, detectable_difference, effective_images, resampled_power
from trainables.seeding import stream

FOLDER = "confirm"
PLAN_FILE = "plan.json"
SHARE = 0.25
"""A search ends in a confirmation that costs at most this share of the search's own computation."""
TOP = 3
REPEATS = 2


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


def confirm_search(storage: Path, name: str | None, wish: Wish, resources: Resources) -> int:
    """Confirm a search, or go on with its confirmation. Returns the exit code.

    Raises: InputError before anything is computed.
    """
    console = open_console(resources.progress)
    search = find_search(storage, name)
    record = search.search()
    check_threads(resources, record.threads)
    check_writable(storage)
    check_tracking(search)
    with ray_left_at_the_end(), driving(search, console):
        confirmation = _unfinished(search)
        if confirmation is None:
            confirmation = start(search, _wished(search, wish), console)
        elif wish != Wish():
            raise SettingsError(
                f"'{search.folder.name}' has a confirmation that is not finished, so that --top, --repeats and --again "
                f"cannot be given; go on with it by {confirm_command(search)}"
            )
        stopped = _run(search, confirmation, resources, console)
    if stopped is not None:
        return stopped
    return 1 if any(trial.state == "failed" for trial in confirmation.trials()) else 0


def confirm_at_the_end(
    search: Ledger, resources: Resources, console: Console, *, wanted: bool, exhausted: bool
) -> int | None:
    """End a finished search in a confirmation that costs a share of it, or say why not.

    Args:
        search: its trials have ended.
        resources: what the confirmation may use; its time budget is what is left of the search's.
        console: where it is said.
        wanted: whether the user left it in.
        exhausted: whether the search had nothing left to try.

    Returns:
        The exit code of a signal, or None.
    """
    record = search.search()
    if len(search.trials()) < record.trials and not exhausted:
        return None
    confirmation = _unfinished(search)
    reason, chosen = None, None
    if confirmations(search) and confirmation is None:
        reason = _outdated(search)
        if reason is None:
            return None
    elif record.space.name in TABLES:
        reason = "a paper's table chooses nothing"
    elif not wanted:
        reason = "--no-confirm"
    elif record.budget == "quick":
        reason = "budget quick"
    elif resources.time_budget is not None and resources.time_budget < 1:
        reason = "no time is left"
    elif confirmation is None:
        try:
            chosen = affordable_plan(search)
            reason = f"it would cost more than {SHARE:.0%} of the search" if chosen is None else None
        except InputError as error:
            reason = str(error)
    if reason is not None:
        _say_not_confirmed(search, console, reason)
        return None
    try:
        if confirmation is None and chosen is not None:
            confirmation = start(search, chosen, console)
        return None if confirmation is None else _run(search, confirmation, resources, console)
    except InputError as error:
        _say_not_confirmed(search, console, str(error))
    except KeyboardInterrupt:
        console.print(f"Stopped before the confirmation began: {confirm_command(search)}")
        return 130
    return None


def _outdated(search: Ledger) -> str | None:
    """Why the verdict on record is not that of the search as it is now; None where it is."""
    best = rank(search.trials(), search.search())
    told: Mapping[str, Any] = read_json(search.folder / CONFIRMATION_FILE)
    if best and told["rows"] and told["rows"][0]["searched_as"] != best[0].id:
        return f"the verdict on record is that of {told['rows'][0]['searched_as']}, which is no longer the best"
    return None


def _run(search: Ledger, confirmation: Ledger, resources: Resources, console: Console) -> int | None:
    """Compute a confirmation and say what came of it. Returns the exit code of a signal, or None.

    Raises: InputError before anything is computed.
    """
    record = confirmation.search()
    stopped = None
    if any(trial.state == "unfinished" for trial in confirmation.trials()):
        allotment = allotted(resources, trials=record.trials, threads=record.threads)
        check_cluster(resources, confirmation.storage, open_images(confirmation, console), versions())
        projector = Projector(confirmation, record.tracking_uri, kind=KIND_CONFIRM)
        end = compute(confirmation, projector, allotment, resources, console)
        if end.interrupted:
            console.print(f"The confirmation is not finished. Go on: {confirm_command(search)}")
            return end.exit_code
        stopped = end.exit_code
    conclude(search, confirmation, console)
    # a server that hangs costs no more than a tracker's patience, and a later sync brings the verdict
    projector = Projector(confirmation, record.tracking_uri, kind=KIND_CONFIRM)
    tracker = LiveProjector(projector, on_message=console.print)
    tracker.start()
    tracker.stop(interrupted=False)
    return stopped


def say_report(search: Ledger, console: Console) -> None:
    """Write a search's report; say where that fails, which is no reason for the search to fail."""
    why = try_report(search)
    if why is not None:
        again = report_command(search)
        console.print(f"The report could not be written ({why}). To try again: {again}", style="yellow")


def _unfinished(search: Ledger) -> Ledger | None:
    """The confirmation to go on with: trials are unfinished, or its verdict was never written."""
    begun = confirmations(search)
    if not begun:
        return None
    told = _told_of(search)
    is_open = any(trial.state == "unfinished" for trial in begun[-1].trials())
    return begun[-1] if is_open or told != begun[-1].folder.name else None


def _told_of(search: Ledger) -> str | None:
    """The folder of the confirmation whose verdict is on record."""
    path = search.folder / CONFIRMATION_FILE
    return str(read_json(path)["confirmation"]) if path.exists() else None


def _wished(search: Ledger, wish: Wish) -> Plan:
    """The confirmation that the user asks for.

    Raises: SettingsError if the search has no complete trial, or is confirmed and ``wish`` asks for no other.
    """
    if confirmations(search) and not wish.again:
        raise SettingsError(
            f"'{search.folder.name}' is confirmed; its verdict stands in {search.folder / CONFIRMATION_FILE}. Give "
            f"--again for another confirmation on other splits."
        )
    if wish.repeats > MOST_REPEATS:
        raise SettingsError(f"--repeats {wish.repeats} is more than {MOST_REPEATS}; give less.")
    record, trials = search.search(), search.trials()
    chosen = candidates(record, trials, top=wish.top)
    if len(chosen) < 2:
        raise SettingsError(
            f"'{search.folder.name}' has no complete trial to confirm; go on with it by: {resume_command(search)}"
        )
    return plan(record, chosen, repeats=wish.repeats, test_repeats=_test_repeats(search))


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


def start(search: Ledger, chosen: Plan, console: Console) -> Ledger:
    """Record a new confirmation; the locked test set is opened here.

    Raises: InputError if it could not be computed; nothing is left behind then.
    """
    record, locked = search.search(), LockedTest.read(search.folder)
    refuse_missing(record.space, budget_named(record.budget))
    number = max((_number(path) for path in search.folder.glob(f"{FOLDER}*") if path.is_dir()), default=0) + 1
    protocol = protocol_of(record, repeats=chosen.repeats, test_repeats=chosen.test_repeats)
    opened = None if locked is None else _unlock(locked, search.storage / SHARED / IMAGES, console)
    cohort = Cohort.load(open_images(search, console)) if opened is None else opened.cohort
    fresh = replace(
        record,
        data=replace(record.data, digest=cohort.digest, counts=cohort.counts, patients=cohort.n_patients),
        protocol=protocol,
        folds=chosen.evaluations,
        seed=stream(record.seed, f"{FOLDER}{number}") % 2**31,
        scheduler="fifo",
        warm_start=(),
        further_metrics=(),
        trials=len(chosen.candidates),
        created=time.time(),
    )
    splits = evaluations(cohort, protocol, seed=fresh.seed, locked=locked.ids if locked is not None else ())
    building = search.folder / f".{FOLDER}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    ledger = Ledger(building)
    if locked is not None:
        locked.write(building)
    ledger.write_search(replace(fresh, folds=len(splits)))
    ids = [ledger.add_trial(each.config, reference=each.role) for each in chosen.candidates]
    trials = {trial: each.trial for trial, each in zip(ids, chosen.candidates, strict=True)}
    seen = [] if opened is None else list(opened.seen)
    write_json(building / PLAN_FILE, {"searched_as": trials, "seen": seen})
    folder = search.folder / (FOLDER if number == 1 else f"{FOLDER}-{number}")
    building.rename(folder)
    _introduce(fresh, chosen, [cohort.entries[index] for index in splits[0].train + splits[0].test], console)
    return Ledger(folder)


def _introduce(record: SearchRecord, chosen: Plan, entries: Sequence[Entry], console: Console) -> None:
    """Say what is about to be computed and what it can show."""
    console.print(
        f"Confirmation: {len(chosen.candidates)} policies, {chosen.evaluations} trainings each with fresh seeds"
        + (f", {chosen.test_repeats} of them for the locked test set" if chosen.test_repeats else "")
        + f"; about {duration(chosen.seconds)} of computation"
    )
    if record.protocol.kind != "folds":
        return
    images_C = effective_images(
        [entry.label for entry in entries],
        [entry.patient for entry in entries],
        len(record.data.classes),
        correlation=TYPICAL.correlation,
    )
    comparisons = max(1, sum(each.role is not None for each in chosen.candidates[1:]))
    smallest = detectable_difference(
        lambda difference: resampled_power(
            difference,
            images_C,
            folds=record.protocol.folds,
            repeats=record.protocol.repeats,
            disagreement=TYPICAL,
            level=LEVEL / comparisons,
        )
    )
    if smallest is not None:
        console.print(
            f"With 80 % power its splits show a difference in balanced accuracy of {smallest:.3f} or more, with "
            f"{counted(comparisons, 'reference')} to compare."
        )


def conclude(search: Ledger, confirmation: Ledger, console: Console) -> Verdict:
    """Judge a confirmation, write the verdict into the search's folder and print it."""
    record, planned = confirmation.search(), read_json(confirmation.folder / PLAN_FILE)
    verdict = judge(
        record,
        search.trials(),
        confirmation.trials(predictions=True),
        searched_as=planned["searched_as"],
        reused=_reused(search, confirmation, record, planned["seen"]),
    )
    told = {
        **verdict.to_dict(),
        "confirmation": confirmation.folder.name,
        "sentences": sentences(verdict),
        "cautions": cautions(search.search(), confirmed=True),
    }
    write_json(search.folder / CONFIRMATION_FILE, told)
    write_outcome(search)
    say_report(search, console)
    print_verdict(console, verdict, told["cautions"])
    return verdict


def _reused(search: Ledger, confirmation: Ledger, record: SearchRecord, seen: Sequence[str]) -> tuple[str, ...]:
    """In how far a confirmation is not fresh, a sentence each."""
    told = []
    if record.protocol.kind == "sites":
        told.append(
            "The sites are those that the search chose on: here only the seeds are fresh, and a site counts once, "
            "however often it is repeated."
        )
    earlier = [each for each in confirmations(search) if _number(each.folder) < _number(confirmation.folder)]
    if earlier and record.protocol.test_repeats:
        told.append(
            "An earlier confirmation has opened the locked test set: what was chosen since may have been chosen by it."
        )
    if seen:
        told.append(
            f"The search has seen {len(seen)} of the locked images in another copy, '{seen[0]}' the first: equal or "
            f"nearly equal images are on both sides."
        )
    return tuple(told)


def _unlock(locked: LockedTest, images: Path, console: Console) -> Unlocked:
    with console.status("reading images") as status:
        return locked.unlock(
            cache=images,
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


def _say_not_confirmed(search: Ledger, console: Console, reason: str) -> None:
    """Say that a search ends without a confirmation, why, and what one would cost."""
    whole = full_plan(search)
    if whole is None:
        return
    again = " --again" if confirmations(search) else ""
    console.print(
        f"Not confirmed ({reason}): the scores above chose the best. To evaluate {len(whole.candidates)} policies "
        f"again on fresh splits, about {duration(whole.seconds)} of computation: {confirm_command(search)}{again}"
    )
