"""Starting a search, going on with one, and ending either in order, whatever ends it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from rich.console import Console

from mlflow_tracking.address import ui_command
from mlflow_tracking.connect import check_server
from mlflow_tracking.names import REPORT_FILE
from mlflow_tracking.projector import Projector
from search.allotment import Allotment
from search.attempt import allotted, check_cluster, check_threads, compute, driving, sweep
from search.commands import resume_command
from search.config_file import SINGLE
from search.confirm import confirm_at_the_end, say_report
from search.console import open_console
from search.events import write_event
from search.inputs import absolute_uri, check_storage, open_images, prepare
from search.outcome import print_outcome, rank, write_outcome
from search.pretrained import refuse_missing
from search.ray_start import ray_left_at_the_end
from search.settings import NewSearch, Resources, Resumption, SettingsError
from search.storage import find_search
from search.unchanged import check_unchanged
from search.versions import versions
from spaces.budget import budget_named
from spaces.presets import TABLES
from trainables.ledger import Ledger, SearchRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A search that was run: its record, and the exit code that says how that ended."""

    ledger: Ledger
    exit_code: int


def start_search(settings: NewSearch) -> Finished:
    """Run a new search to its end. Raises: InputError before any trial starts."""
    console = open_console(settings.resources.progress)
    with ray_left_at_the_end():
        allotment = allotted(settings.resources, trials=settings.trials)
        ledger = prepare(settings, allotment, console)
        with driving(ledger, console):
            code = _run(ledger, allotment, settings.resources, console, confirm=settings.confirm)
    return Finished(ledger=ledger, exit_code=code)


def resume_search(resumption: Resumption) -> Finished:
    """Go on with a search. Raises: InputError before any trial starts."""
    console = open_console(resumption.resources.progress)
    ledger = find_search(resumption.storage, resumption.name)
    record = ledger.search()
    check_threads(resumption.resources, record.threads)
    enlarged = _enlarged(record, ledger.folder.name, resumption)
    check_storage(ledger.storage)
    note = check_unchanged(ledger, resumption.given)
    if note is not None:
        console.print(note, style="yellow")
    check_server(enlarged.tracking_uri)
    images = open_images(ledger, console)
    refuse_missing(record.space, budget_named(record.budget))
    with ray_left_at_the_end(), driving(ledger, console):
        allotment = allotted(resumption.resources, trials=enlarged.trials, threads=record.threads)
        check_cluster(resumption.resources, ledger.storage, images, versions())
        ledger.write_search(enlarged)
        ended = sum(trial.state != "unfinished" for trial in ledger.trials())
        console.print(f"Going on with {ledger.folder.name}: {ended} of {enlarged.trials} trials have ended")
        code = _run(ledger, allotment, resumption.resources, console, confirm=resumption.confirm)
    return Finished(ledger=ledger, exit_code=code)


def _enlarged(record: SearchRecord, name: str, resumption: Resumption) -> SearchRecord:
    """The record of a search under its folder's name, with the trials and folds that are wanted of it now.

    Raises: SettingsError if that is less than what it was started with.
    """
    protocol = record.protocol
    trials, repeats = resumption.trials or record.trials, resumption.repeats or protocol.repeats
    for flag, wanted, had in (("--trials", trials, record.trials), ("--repeats", repeats, protocol.repeats)):
        if wanted < had:
            raise SettingsError(
                f"{flag} {wanted} is less than the {had} that '{name}' was started with; give more, or leave it out."
            )
    return replace(
        record,
        name=name,
        trials=trials,
        protocol=replace(protocol, repeats=repeats),
        folds=record.folds // protocol.repeats * repeats,
        tracking_uri=absolute_uri(resumption.tracking_uri or record.tracking_uri),
    )


def _run(ledger: Ledger, allotment: Allotment, resources: Resources, console: Console, *, confirm: bool) -> int:
    """Compute a search's trials, say what came of them, confirm the best where wanted. Returns the exit code."""
    start = time.monotonic()
    sweep(ledger)
    end = compute(
        ledger,
        Projector(ledger, ledger.search().tracking_uri),
        allotment,
        resources,
        console,
        finish=lambda interrupted: _conclude(ledger, console, interrupted=interrupted),
    )
    sweep(ledger)
    print_outcome(console, ledger)
    if end.exhausted:
        console.print("There is no configuration left to try.")
    stopped = end.exit_code
    single = ledger.search().space.name == SINGLE
    if stopped is None and not end.interrupted and not single:
        left = None if resources.time_budget is None else resources.time_budget - (time.monotonic() - start)
        stopped = confirm_at_the_end(
            ledger, replace(resources, time_budget=left), console, wanted=confirm, exhausted=end.exhausted
        )
    _next_steps(console, ledger, end.page, more_to_do=not end.exhausted and not single)
    failed = any(trial.state == "failed" for trial in ledger.trials())
    code = stopped if stopped is not None else int(failed)
    if resources.progress == "json":
        best = next((trial.id for trial in rank(ledger.trials(), ledger.search())), None)
        write_event("end", exit_code=code, folder=str(ledger.folder), best=best)
    return code


def _conclude(ledger: Ledger, console: Console, *, interrupted: bool) -> None:
    """Write what the search has come to; its report as well, where there is time for that."""
    write_outcome(ledger, in_a_hurry=interrupted)
    if not interrupted:
        say_report(ledger, console)


def _next_steps(console: Console, ledger: Ledger, page: str | None, *, more_to_do: bool) -> None:
    """Print the files and the exact next commands."""
    record, trials = ledger.search(), ledger.trials()
    ended = sum(trial.state != "unfinished" for trial in trials)
    resume = resume_command(ledger)
    console.print(f"\nResults: {ledger.folder / 'result.json'}")
    if (ledger.folder / REPORT_FILE).exists():
        console.print(f"Report: {ledger.folder / REPORT_FILE}")
    if (ledger.folder / "best.yaml").exists():
        console.print(f"Best configuration: {ledger.folder / 'best.yaml'}")
    command = ui_command(record.tracking_uri)
    if command is not None:
        console.print(f"MLflow UI: {command}")
    if page is not None:
        console.print(f"Trials in MLflow: {page}")
    if ended < min(len(trials) + more_to_do, record.trials):
        console.print(f"Go on: {resume}")
    elif more_to_do and record.space.name not in TABLES:
        console.print(f"Search further: {resume} --trials {2 * record.trials}")
