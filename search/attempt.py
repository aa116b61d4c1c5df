"""One attempt at the trials of a ledger, a search's or a confirmation's: computed, tracked, ended in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from mlflow_tracking.live import LiveProjector
from mlflow_tracking.projector import Projector
from search.display import Display
from search.settings import Resources, SettingsError
from search.stop import Stop
from search.tuning import Allotment, Tuning, allot, join_cluster
from trainables.leases import DEAD_AFTER, Lease, held
from trainables.ledger import Ledger
from trainables.tune_trainable import FoldTrainable


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an attempt ended.

    Args:
        exit_code: that of the signal that it received, or None.
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
    """Run the trials of a ledger to their end, or to a signal; the record and MLflow are left in order.

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
    stop = Stop()
    interrupted = True
    with stop.handled():
        tracker = LiveProjector(projector, on_message=lambda text: console.print(text, style="yellow"))
        tuning = Tuning(
            ledger,
            allotment,
            resources,
            on_change=tracker.poke,
            on_start=stop.only_note,
            on_step=stop.honour,
            trainable=trainable,
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
            try:
                finish(interrupted)
            finally:
                tracked = tracker.stop(interrupted=interrupted)
    if not tracked:
        console.print("MLflow lacks the last results; they are on record, and going on writes them.", style="yellow")
    return End(exit_code=stop.exit_code, interrupted=interrupted, exhausted=tuning.exhausted, page=tracker.page)


def allotted(resources: Resources, *, trials: int, threads: int | None = None) -> Allotment:
    """Share the machine, or join the cluster asked for. Raises: SettingsError if a trial could never start."""
    allotment = allot(resources, trials=trials, threads=threads)
    if resources.address is not None:
        join_cluster(resources.address, allotment)
    return allotment


def check_threads(resources: Resources, threads: int) -> None:
    """Raises: SettingsError if another number of threads was asked for than results on record were computed with."""
    asked = resources.cpus_per_trial
    if asked not in (None, threads):
        raise SettingsError(
            f"--cpus-per-trial {asked} differs from the {threads} of the search, which results depend on; leave it out."
        )


@contextmanager
def driving(ledger: Ledger, console: Console) -> Iterator[None]:
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
