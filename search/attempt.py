"""One attempt at the trials of a ledger, a search's or a confirmation's: computed, tracked, ended in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mlflow_tracking.live import LiveProjector
from mlflow_tracking.projector import Projector
from search.allotment import Allotment, allot
from search.cluster_checks import check_nodes
from search.commands import resume_command, sync_command
from search.display import Display
from search.leaving import PATIENCE, Leaving, Left
from search.ray_start import join_cluster
from search.settings import Resources, SettingsError
from search.stop import Stop
from search.tuning import Tuning
from trainables.errors import lacks_room
from trainables.leases import DEAD_AFTER, Lease, held
from trainables.ledger import Ledger
from trainables.session import stages_folder
from trainables.stages import StageStore
from trainables.tune_trainable import FoldTrainable

_STUCK_PATIENCE = 5.0
"""Seconds beyond those that trials have, after which Ray is left as it is; and for MLflow then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an attempt ended.

    Args:
        exit_code: that of the signal that it received, or of what went wrong; None where there was neither.
        interrupted: whether trials are left unfinished.
        exhausted: whether there was no configuration left to try.
        page: the address of the trials in MLflow, if there is one.
    """

    exit_code: int | None
    interrupted: bool
    exhausted: bool
    page: str | None


def compute(
    ledger: Ledger,
    projector: Projector,
    allotment: Allotment,
    resources: Resources,
    console: Console,
    *,
    finish: Callable[[bool], None] = lambda interrupted: None,
    trainable: type[FoldTrainable] = FoldTrainable,
) -> End:
    """Run the trials of a ledger to their end, or until it has to be left; the record and MLflow are left in order.

    It is left on a signal, at the end of the time budget, and where the storage is full.

    Args:
        ledger: what is computed.
        projector: writes it to MLflow.
        allotment: what each trial may use.
        resources: time budget and checkpoints.
        console: where progress is shown.
        finish: writes what the ledger's folder says of the outcome, before MLflow gets it; called with whether trials
            were left unfinished, and then to be quick.
        trainable: what computes trials.
    """
    leaving = Leaving(ledger, say=lambda text: console.print(text, style="yellow"), time_budget=resources.time_budget)
    tracker = LiveProjector(projector, on_message=lambda text: console.print(text, style="yellow"))

    def leave_behind() -> None:
        with suppress(Exception):
            finish(True)
        tracker.stop(interrupted=True, timeout=_STUCK_PATIENCE)
        with suppress(OSError):
            driver_lease(ledger).unlink(missing_ok=True)  # this process ends without leaving ``driving``
        sweep(ledger)
        console.print(f"Ray did not stop in time. Nothing that was finished is lost. Go on: {resume_command(ledger)}")

    stop = Stop(
        on_note=lambda: leaving.because("Asked to stop"), on_stuck=leave_behind, patience=PATIENCE + _STUCK_PATIENCE
    )
    interrupted = True
    with stop.handled():
        tuning = Tuning(
            ledger,
            allotment,
            resources,
            leaving=leaving,
            on_change=tracker.poke,
            on_start=stop.only_note,
            trainable=trainable,
        )
        try:
            tracker.start()
            with (
                _noticing_full_storage(leaving, ledger),
                Display(console, ledger, running=tuning.running, progress=resources.progress),
            ):
                tuning.run()
            interrupted = any(trial.state == "unfinished" for trial in ledger.trials())
        except KeyboardInterrupt:
            if stop.exit_code is None:
                raise
        finally:
            if stop.exit_code is not None:
                stop.only_kill()
            try:
                with _noticing_full_storage(leaving, ledger):
                    finish(interrupted)
            finally:
                tracked = tracker.stop(interrupted=interrupted)
                stop.only_kill()
    if not tracked:
        console.print(f"MLflow lacks the last results. They are on record: {sync_command(ledger)}", style="yellow")
    if leaving.exit_code is not None:
        console.print(f"{leaving.reason}. Nothing that was finished is lost; mend that, then go on.", style="red")
    return End(
        exit_code=stop.exit_code or leaving.exit_code,
        interrupted=interrupted,
        exhausted=tuning.exhausted,
        page=tracker.page,
    )


@contextmanager
def _noticing_full_storage(leaving: Leaving, ledger: Ledger) -> Iterator[None]:
    """Leave the block, in order, where there is reason to leave the search, or no room to write its record."""
    try:
        yield
    except Left:
        pass
    except Exception as error:
        if not lacks_room(error):
            raise
        leaving.because_full(ledger.storage)


def sweep(ledger: Ledger) -> None:
    """Remove what dead processes left behind; a storage that is full is swept another time."""
    with suppress(OSError):
        ledger.sweep()
        StageStore(stages_folder(ledger)).sweep()


def allotted(resources: Resources, *, trials: int, threads: int | None = None) -> Allotment:
    """Share the machine, or join the cluster asked for. Raises: SettingsError if a trial could never start."""
    if resources.address is not None:
        return join_cluster(resources, trials=trials, threads=threads)
    return allot(resources, trials=trials, threads=threads)


def check_cluster(resources: Resources, storage: Path, images: Path, versions: Mapping[str, str]) -> None:
    """Raises: SettingsError if a node of the cluster asked for would compute something else than the others."""
    if resources.address is not None:
        check_nodes(storage, images, versions)


def check_threads(resources: Resources, threads: int) -> None:
    """Raises: SettingsError if another number of threads was asked for than results on record were computed with."""
    asked = resources.cpus_per_trial
    if asked not in (None, threads):
        raise SettingsError(
            f"--cpus-per-trial {asked} differs from the {threads} of the search, which results depend on; leave it out."
        )


def driver_lease(ledger: Ledger) -> Path:
    """Where the driver of a search, or of the search that a confirmation is of, says that it lives."""
    above = ledger.folder.parent
    return (above if above != ledger.storage else ledger.folder) / "driver.lease"


@contextmanager
def driving(ledger: Ledger, console: Console) -> Iterator[None]:
    """Be the only driver of a search.

    If another one takes it over, as after this one was suspended for long, this process ends as if it were killed:
    trials, record and MLflow are the other one's by then. It stops as on SIGTERM if the lease vanishes.

    Raises: SettingsError if another process drives it.
    """

    def end() -> None:
        if not lease.holder():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        console.print(
            f"Another process runs the search '{ledger.folder.name}' by now; it is left to that.", style="red"
        )
        os._exit(128 + signal.SIGTERM)

    lease = Lease(driver_lease(ledger))
    free = lease.acquire(
        timeout=DEAD_AFTER + 3,
        on_wait=lambda: console.print(f"Looking whether {lease.holder()}, which ran this search, still lives"),
    )
    if not free:
        raise SettingsError(
            f"the search '{ledger.folder.name}' is being run by {lease.holder()}; wait for it, or stop it first."
        )
    with held(lease, on_lost=end):
        yield
