"""Starting a search, going on with one, and ending either in order, whatever ends it."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mlflow_tracking.address import ui_command
from mlflow_tracking.connect import check_server
from mlflow_tracking.projector import Projector
from search.attempt import allotted, check_threads, compute, driving
from search.confirm import confirm_at_the_end
from search.console import open_console
from search.inputs import absolute_uri, images_folder, prepare
from search.outcome import print_outcome, write_outcome
from search.pretrained import refuse_missing
from search.settings import NewSearch, Resources, Resumption, SettingsError
from search.storage import find_search
from search.tuning import Allotment
from spaces.budget import budget_named
from spaces.presets import TABLES
from trainables.data.cohort import Cohort
from trainables.ledger import Ledger
from trainables.session import stages_folder
from trainables.stages import StageStore


def start_search(settings: NewSearch) -> int:
    """Run a new search to its end. Returns the exit code. Raises: InputError before any trial starts."""
    console = open_console()
    allotment = allotted(settings.resources, trials=settings.trials)
    ledger = prepare(settings, allotment, console)
    with driving(ledger, console):
        return _run(ledger, allotment, settings.resources, console, confirm=settings.confirm)


def resume_search(resumption: Resumption) -> int:
    """Go on with a search. Returns the exit code. Raises: InputError before any trial starts."""
    console = open_console()
    ledger = find_search(resumption.storage, resumption.name)
    record = ledger.search()
    check_threads(resumption.resources, record.threads)
    trials = resumption.trials or record.trials
    if trials < record.trials:
        raise SettingsError(
            f"--trials {trials} is less than the {record.trials} that '{ledger.folder.name}' was started with; give "
            f"more, or leave it out."
        )
    tracking_uri = absolute_uri(resumption.tracking_uri or record.tracking_uri)
    check_server(tracking_uri)
    Cohort.load(images_folder(ledger))
    refuse_missing(record.space, budget_named(record.budget))
    with driving(ledger, console):
        allotment = allotted(resumption.resources, trials=trials, threads=record.threads)
        ended = sum(trial.state != "unfinished" for trial in ledger.trials())
        console.print(f"Going on with {ledger.folder.name}: {ended} of {trials} trials have ended")
        ledger.write_search(replace(record, name=ledger.folder.name, trials=trials, tracking_uri=tracking_uri))
        return _run(ledger, allotment, resumption.resources, console, confirm=resumption.confirm)


def _run(ledger: Ledger, allotment: Allotment, resources: Resources, console: Console, *, confirm: bool) -> int:
    """Compute a search's trials, say what came of them, and confirm the best where that is wanted and can be paid."""
    start = time.monotonic()
    StageStore(stages_folder(ledger)).sweep()
    end = compute(
        ledger,
        Projector(ledger, ledger.search().tracking_uri),
        allotment,
        resources,
        console,
        finish=lambda interrupted: write_outcome(ledger, in_a_hurry=interrupted),
    )
    print_outcome(console, ledger)
    if end.exhausted:
        console.print("Every configuration of the grid has been tried.")
    stopped = end.exit_code
    if stopped is None and not end.interrupted:
        left = None if resources.time_budget is None else resources.time_budget - (time.monotonic() - start)
        stopped = confirm_at_the_end(
            ledger, replace(resources, time_budget=left), console, wanted=confirm, exhausted=end.exhausted
        )
    _next_steps(console, ledger, end.page, more_to_do=not end.exhausted)
    if stopped is not None:
        return stopped
    return 1 if any(trial.state == "failed" for trial in ledger.trials()) else 0


def _next_steps(console: Console, ledger: Ledger, page: str | None, *, more_to_do: bool) -> None:
    """Print the files and the exact next commands."""
    record, trials = ledger.search(), ledger.trials()
    ended = sum(trial.state != "unfinished" for trial in trials)
    storage = "" if ledger.storage == Path("searches").resolve() else f" --storage {shlex.quote(str(ledger.storage))}"
    resume = f"python search/run.py --resume {ledger.folder.name}{storage}"
    console.print(f"\nResults: {ledger.folder / 'result.json'}")
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
