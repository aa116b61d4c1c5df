"""Starting a search, going on with one, and ending either in order, whatever ends it."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from mlflow_tracking.address import ui_command
from mlflow_tracking.connect import TrackingOutage, check_server
from mlflow_tracking.live import LiveProjector
from mlflow_tracking.names import KIND_CONFIRM
from mlflow_tracking.projector import Projector
from search.confirm import (
    SHARE,
    Wish,
    affordable_plan,
    command,
    conclude,
    confirmations,
    not_confirmed,
    open_confirmation,
    start,
)
from search.display import Display, open_console
from search.inputs import absolute_uri, images_folder, prepare
from search.outcome import print_outcome, write_outcome
from search.pretrained import refuse_missing
from search.settings import NewSearch, Resources, Resumption, SettingsError
from search.storage import find_search
from search.tuning import Allotment, Tuning, allot, join_cluster
from spaces.budget import budget_named
from trainables.data.cohort import Cohort
from trainables.leases import DEAD_AFTER, Lease, held
from trainables.ledger import SHARED, Ledger
from trainables.stages import StageStore


class _Stop:
    """Whether a signal has asked the search to stop: SIGINT (Ctrl-C) or SIGTERM (cluster schedulers).

    The first one ends the search in order, a later one ends the process at once, and the ledger is as safe then as
    after a kill. While trials run the first one is only noted, and honoured between two steps of Ray Tune: an exception
    raised wherever a signal happens to arrive may be swallowed there (a destructor, a callback from C) or leave Ray's
    locks taken. Before that it raises KeyboardInterrupt where it arrives.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._received: int | None = None

    @property
    def exit_code(self) -> int | None:
        """128 and the number of the signal received; None without one."""
        return None if self._received is None else 128 + self._received

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Listen to signals; the handlers are as they were before at the end."""
        before = {number: signal.getsignal(number) for number in self._NUMBERS}
        self._handle(lambda number: self._raise)
        try:
            yield
        finally:
            self._handle(lambda number: before[number])

    def only_note(self) -> None:
        """From now on the first signal waits for ``honour``. To be called after starting Ray, which sets handlers."""
        if self._received is None:
            self._handle(lambda number: self._note)

    def honour(self) -> None:
        """Raises: KeyboardInterrupt if a signal was received."""
        if self._received is not None:
            raise KeyboardInterrupt

    def only_kill(self) -> None:
        """From now on a signal ends the process at once."""
        self._handle(lambda number: self._kill)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self.only_kill()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._note(number, frame)
        raise KeyboardInterrupt

    def _kill(self, number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def _handle(self, handler: Callable[[signal.Signals], Any]) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._NUMBERS:
                signal.signal(number, handler(number))


def start_search(settings: NewSearch) -> int:
    """Run a new search to its end. Returns the exit code. Raises: InputError before any trial starts."""
    console = open_console()
    allotment = _allot(settings.resources, trials=settings.trials)
    ledger = prepare(settings, allotment, console)
    with _driving(ledger, console):
        return _run(ledger, allotment, settings.resources, console, confirm=settings.confirm)


def resume_search(resumption: Resumption) -> int:
    """Go on with a search. Returns the exit code. Raises: InputError before any trial starts."""
    console = open_console()
    ledger = find_search(resumption.storage, resumption.name)
    record = ledger.search()
    asked = resumption.resources.cpus_per_trial
    if asked not in (None, record.threads):
        raise SettingsError(
            f"--cpus-per-trial {asked} differs from the {record.threads} of the search, which results depend on; "
            f"leave it out."
        )
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
    with _driving(ledger, console):
        allotment = _allot(resumption.resources, trials=trials, threads=record.threads)
        ended = sum(trial.state != "unfinished" for trial in ledger.trials())
        console.print(f"Going on with {ledger.folder.name}: {ended} of {trials} trials have ended")
        ledger.write_search(replace(record, name=ledger.folder.name, trials=trials, tracking_uri=tracking_uri))
        return _run(ledger, allotment, resumption.resources, console, confirm=resumption.confirm)


def _allot(resources: Resources, *, trials: int, threads: int | None = None) -> Allotment:
    """Share the machine, or join the cluster asked for. Raises: SettingsError if a trial could never start."""
    allotment = allot(resources, trials=trials, threads=threads)
    if resources.address is not None:
        join_cluster(resources.address, allotment)
    return allotment


@contextmanager
def _driving(ledger: Ledger, console: Console) -> Iterator[None]:
    """Be the only driver of a search; stop as on SIGTERM if another takes it over.

    Raises: SettingsError if another process drives it.
    """
    lease = Lease(ledger.folder / "driver.lease")
    free = lease.acquire(
        timeout=DEAD_AFTER + 3,
        on_wait=lambda: console.print(f"Looking whether {lease.holder()}, which ran this search, still lives"),
    )
    if not free:
        raise SettingsError(
            f"the search '{ledger.folder.name}' is being run by {lease.holder()}; wait for it, or stop it first."
        )
    with held(lease, on_lost=lambda: os.kill(os.getpid(), signal.SIGTERM)):
        yield


def _run(ledger: Ledger, allotment: Allotment, resources: Resources, console: Console, *, confirm: bool) -> int:
    """Compute a search's trials, say what came of them, and confirm the best where that is wanted and can be paid."""
    StageStore(ledger.storage / SHARED / "stages").sweep()
    end = _compute(ledger, Projector(ledger, ledger.search().tracking_uri), allotment, resources, console)
    print_outcome(console, ledger)
    if end.exhausted:
        console.print("Every configuration of the grid has been tried.")
    stopped = end.exit_code
    if stopped is None and not end.interrupted:
        stopped = _confirm_at_the_end(ledger, resources, console, wanted=confirm)
    _next_steps(console, ledger, end.page, more_to_do=not end.exhausted)
    if stopped is not None:
        return stopped
    return 1 if any(trial.state == "failed" for trial in ledger.trials()) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How one attempt at a ledger's trials ended.

    Args:
        exit_code: that of the signal that ended it, or None.
        interrupted: whether trials are left unfinished.
        exhausted: whether there was no configuration left to try.
        page: the address of the trials in MLflow, if there is one.
    """

    exit_code: int | None
    interrupted: bool
    exhausted: bool
    page: str | None


def _compute(
    ledger: Ledger, projector: Projector, allotment: Allotment, resources: Resources, console: Console
) -> _End:
    """Run the trials of a ledger to their end, or to a signal; the record and MLflow are left in order."""
    stop = _Stop()
    interrupted = True
    with stop.handled():
        tracker = LiveProjector(projector, on_message=lambda text: console.print(text, style="yellow"))
        tuning = Tuning(
            ledger, allotment, resources, on_change=tracker.poke, on_start=stop.only_note, on_step=stop.honour
        )
        try:
            tracker.start()
            with Display(console, ledger, running=tuning.running, concurrency=allotment.concurrency):
                tuning.run()
            interrupted = any(trial.state == "unfinished" for trial in ledger.trials())
        except KeyboardInterrupt:
            if stop.exit_code is None:
                raise
        finally:
            stop.only_kill()
            write_outcome(ledger)
            tracked = tracker.stop(interrupted=interrupted)
    if not tracked:
        console.print("MLflow lacks the last results; they are on record, and --resume writes them.", style="yellow")
    return _End(exit_code=stop.exit_code, interrupted=interrupted, exhausted=tuning.exhausted, page=tracker.page)


def _confirm_at_the_end(search: Ledger, resources: Resources, console: Console, *, wanted: bool) -> int | None:
    """End a finished search in a confirmation that costs a share of it. Returns the exit code of a signal, or None."""
    record = search.search()
    if len(search.trials()) < record.trials or confirmations(search):
        return None
    reasons = [] if wanted else ["--no-confirm"]
    found = None
    if record.budget == "quick":
        reasons.append("budget quick")
    elif wanted:
        found = affordable_plan(search)
        reasons.append(f"it would cost more than {SHARE:.0%} of the search")
    if found is None:
        sentence = not_confirmed(search, reasons[:1])
        if sentence is not None:
            console.print(sentence)
        return None
    return _run_confirmation(search, start(search, found, console), resources, console)


def _run_confirmation(search: Ledger, confirmation: Ledger, resources: Resources, console: Console) -> int | None:
    """Compute a confirmation and say what came of it. Returns the exit code of a signal, or None."""
    record = confirmation.search()
    allotment = _allot(resources, trials=record.trials, threads=record.threads)
    projector = Projector(confirmation, record.tracking_uri, kind=KIND_CONFIRM)
    end = _compute(confirmation, projector, allotment, resources, console)
    if end.interrupted:
        console.print(f"The confirmation is not finished. Go on: {command(search)}")
        return end.exit_code
    conclude(search, confirmation, console)
    with suppress(TrackingOutage):  # a later confirmation's projector brings the verdict too
        Projector(confirmation, record.tracking_uri, kind=KIND_CONFIRM).close(interrupted=False)
    return None


def confirm_search(storage: Path, name: str | None, wish: Wish, resources: Resources) -> int:
    """Confirm a search, or go on with its confirmation. Returns the exit code.

    Raises: InputError before anything is computed.
    """
    console = open_console()
    search = find_search(storage, name)
    record = search.search()
    check_server(record.tracking_uri)
    with _driving(search, console):
        confirmation = open_confirmation(search, wish, console)
        refuse_missing(record.space, budget_named(record.budget))
        stopped = _run_confirmation(search, confirmation, resources, console)
    if stopped is not None:
        return stopped
    return 1 if any(trial.state != "completed" for trial in confirmation.trials()) else 0


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
    elif more_to_do:
        console.print(f"Search further: {resume} --trials {2 * record.trials}")
