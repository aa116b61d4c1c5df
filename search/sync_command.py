"""The subcommand ``sync``: bring an MLflow server to the state of a search's record, from nothing if need be."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from mlflow_tracking.address import ui_command
from mlflow_tracking.connect import TrackingError, TrackingOutage, check_server, shown
from mlflow_tracking.names import KIND_CONFIRM, KIND_TRIAL
from mlflow_tracking.projector import Projector
from mlflow_tracking.remote import Written
from search.commands import resume_command
from search.confirm import confirmations
from search.console import open_console
from search.inputs import absolute_uri
from search.settings import SettingsError
from search.storage import find_search
from trainables.files import read_json
from trainables.leases import DEAD_AFTER, Lease
from trainables.ledger import Ledger

_LOOK_EVERY = 0.3


def sync(storage: Path, name: str | None, tracking_uri: str | None) -> int:
    """Write to a tracking server what it lacks of a search and of its confirmations. Returns the exit code, 0.

    Nothing is written into the storage. A search that is being run goes on undisturbed; the server gets a copy of what
    it has come to, in which no run is left running, as nobody would end it.

    Args:
        storage: the folder of the searches.
        name: of the search; None: the latest.
        tracking_uri: the server or database; None: that which the search itself writes to.

    Raises:
        InputError: there is no such search; the server cannot be used, or went away; the search is being run and
            writes there itself.
    """
    console = open_console()
    search = find_search(storage, name)
    own = search.search().tracking_uri
    uri = absolute_uri(tracking_uri or own)
    check_server(uri)
    is_running = is_driven(search, on_wait=lambda: console.print("Looking whether the search is being run"))
    if is_running and uri == own:
        raise SettingsError(
            f"'{search.folder.name}' is being run by {_lease(search).holder()}, which writes to {shown(uri)} itself; "
            f"name another server with --tracking-uri, or wait until the search has ended."
        )
    parts = [(search, KIND_TRIAL), *((each, KIND_CONFIRM) for each in confirmations(search))]
    written = []
    try:
        for ledger, kind in parts:
            with console.status(f"writing {ledger.folder.name}"):
                projector = Projector(ledger, uri, kind=kind)
                projector.close(interrupted=_is_open(ledger), elsewhere=is_running)
                projector.sync()
                written.append((projector.written, projector.page))
    except TrackingOutage as error:
        raise TrackingError(
            f"The tracking address '{shown(uri)}' went away ({error}); what was written stays, and the same command "
            f"goes on there."
        ) from None
    _report(console, search, uri, [each for each, _ in written], is_running=is_running)
    command, page = ui_command(uri), written[0][1]
    if command is not None:
        console.print(f"MLflow UI: {command}")
    console.print(f"Trials in MLflow: {page}")
    return 0


def is_driven(
    search: Ledger, *, on_wait: Callable[[], None] = lambda: None, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Whether a process runs a search or its confirmation at this moment; nothing is written to find out.

    Args:
        search: the search.
        on_wait: called once if that takes seconds: a process of another host is alive if its heartbeat is seen.
        sleep: waits, in seconds.
    """
    lease = _lease(search)
    if not lease.is_held():
        return False
    is_alive = lease.lives()
    if is_alive is not None:
        return is_alive
    on_wait()
    before = _content(search)
    for _ in range(round(DEAD_AFTER / _LOOK_EVERY)):
        sleep(_LOOK_EVERY)
        now = _content(search)
        if now != before:
            return now is not None
    return False


def _lease(search: Ledger) -> Lease:
    return Lease(search.folder / "driver.lease")


def _content(search: Ledger) -> bytes | None:
    try:
        return (search.folder / "driver.lease").read_bytes()
    except OSError:
        return None


def _is_open(ledger: Ledger) -> bool:
    """Whether a search was left before its end: trials are unfinished, or wanted and its results never written."""
    trials = ledger.trials()
    if any(trial.state == "unfinished" for trial in trials):
        return True
    if len(trials) >= ledger.search().trials:
        return False
    try:
        return len(read_json(ledger.folder / "result.json")["trials"]) != len(trials)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _report(console: Console, search: Ledger, uri: str, written: list[Written], *, is_running: bool) -> None:
    """Say what was written, and what the search itself goes on to do."""
    runs, values, files, statuses = (
        sum(getattr(each, field) for each in written) for field in ("runs", "values", "files", "statuses")
    )
    trials = len(search.trials())
    if runs or values or files or statuses:
        console.print(
            f"{shown(uri)} has the {trials} trials of {search.folder.name} now: {runs} runs, {values} values and "
            f"{files} files were written, {statuses} runs ended."
        )
    else:
        console.print(f"{shown(uri)} had all of the {trials} trials of {search.folder.name}; nothing was written.")
    own = search.search().tracking_uri
    if is_running:
        console.print(
            "The search is being run: this is a copy of what it has come to; give the command again for the rest."
        )
    if uri != own:
        command = f"{resume_command(search)} --tracking-uri {shlex.quote(shown(uri))}"
        console.print(f"The search itself still writes to {shown(own)}. To go on with it here: {command}")
