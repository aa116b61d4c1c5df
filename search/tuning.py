"""The one place that runs Ray Tune: it starts or joins Ray, runs the trials, and says how it ended."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from search.outcome import rank
from search.proposers import build_proposer
from search.sampler import LedgerSearcher
from search.schedulers import build_scheduler
from search.settings import Resources, SettingsError
from spaces.reference import reference_policies
from trainables.ledger import Ledger, SearchRecord
from trainables.metrics.catalogue import maximizes
from trainables.tune_trainable import CHECKPOINT_SECONDS, TRIAL, WEIGHTS, FoldTrainable

_MOST_AT_ONCE = 8
_OBJECT_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """Trials at once, and the CPU threads and share of a GPU that each has."""

    concurrency: int
    cpus: int
    gpus: float


def allot(resources: Resources, *, trials: int, threads: int | None = None) -> Allotment:
    """Share this machine among trials: what was asked for, and sensible values for the rest.

    Args:
        resources: as given on the command line.
        trials: how many there are to run; no more run at once.
        threads: CPU threads of a trial where a resumed search has fixed them.

    Raises: SettingsError if a trial could never start.
    """
    cores = len(os.sched_getaffinity(0))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if resources.address is None and (resources.gpus_per_trial or 0) > devices:
        raise SettingsError(
            f"--gpus-per-trial {resources.gpus_per_trial:g} is more than the {devices} GPUs that PyTorch finds on this "
            f"machine; give less, or join a cluster with --address."
        )
    if resources.address is None and (resources.cpus_per_trial or 0) > cores:
        raise SettingsError(
            f"--cpus-per-trial {resources.cpus_per_trial} is more than the {cores} cores of this machine; give less."
        )
    gpus = resources.gpus_per_trial if resources.gpus_per_trial is not None else float(min(devices, 1))
    cpus = resources.cpus_per_trial or threads
    most = int(devices / gpus) if gpus > 0 else cores // (cpus or 1)
    concurrency = resources.concurrency or max(1, min(most, trials, _MOST_AT_ONCE if not gpus else most))
    return Allotment(concurrency=concurrency, cpus=cpus or max(1, cores // concurrency), gpus=gpus)


class _Watch(tune.Callback):  # type: ignore[misc]
    """Knows which trials run, records crashed workers, keeps only the leader's weights, wakes the tracker."""

    def __init__(
        self, ledger: Ledger, record: SearchRecord, *, on_change: Callable[[], None], on_step: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._record = record
        self._on_change = on_change
        self._on_step = on_step
        self.running: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to restore a run from them; here the ledger does that."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._on_step()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running[trial.trial_id] = trial.config[TRIAL]
        self._on_change()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._on_change()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.pop(trial.trial_id, None)
        self._drop_weights()
        self._on_change()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.pop(trial.trial_id, None)
        self._ledger.end_trial(trial.config[TRIAL], "failed", error=_reason(trial.get_error()))
        self._on_change()

    def _drop_weights(self) -> None:
        trials = self._ledger.trials()
        keep = {trial.id for trial in rank(trials, self._record)[:1]}
        for trial in trials:
            if trial.state != "unfinished" and trial.id not in keep:
                shutil.rmtree(self._ledger.trial_folder(trial.id) / WEIGHTS, ignore_errors=True)


def _reason(error: object) -> str:
    """One line for what ended a worker process, twice in a row."""
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    if not lines or "ActorDied" in str(error) or "ActorUnavailable" in str(error):
        return "the trial's process died twice (killed, or out of memory)"
    return lines[-1]


class Tuning:
    """One attempt at a search's trials with Ray Tune.

    Args:
        ledger: the search; everything that matters is read from and written to it.
        allotment: what each trial may use.
        resources: the address of a cluster, and the time budget.
        on_change: called in the driver's loop whenever a trial starts, reports or ends.
        on_start: called once Ray has started.
        on_step: called several times a second between two steps of Ray Tune; what it raises ends the trials and leaves
            ``run``.
    """

    def __init__(
        self,
        ledger: Ledger,
        allotment: Allotment,
        resources: Resources,
        *,
        on_change: Callable[[], None],
        on_start: Callable[[], None],
        on_step: Callable[[], None],
    ) -> None:
        self._on_start = on_start
        self._searcher: LedgerSearcher | None = None
        self._ledger = ledger
        self._record = ledger.search()
        self._allotment = allotment
        self._resources = resources
        self._watch = _Watch(ledger, self._record, on_change=on_change, on_step=on_step)

    def running(self) -> list[str]:
        """Ids of the trials that are computed at this moment."""
        return sorted(self._watch.running.values())

    @property
    def exhausted(self) -> bool:
        """Whether the sampler had no configuration left to propose."""
        return self._searcher is not None and self._searcher.exhausted

    def run(self) -> None:
        """Run until all trials have ended or the time budget is spent."""
        if not ray.is_initialized():
            _start_ray(self._allotment)
        try:
            self._on_start()
            self._tuner().fit()
        finally:
            ray.shutdown()

    def _tuner(self) -> tune.Tuner:
        record, allotment = self._record, self._allotment
        maximize = maximizes(record.metric)
        checkpoints = {CHECKPOINT_SECONDS: self._resources.checkpoint_seconds}
        deadline = time.monotonic() + (self._resources.time_budget or float("inf"))
        self._searcher = LedgerSearcher(
            self._ledger,
            build_proposer(
                record.sampler,
                record.space,
                seed=record.seed,
                metric=record.metric,
                maximize=maximize,
                max_copy_rate=record.max_copy_rate,
            ),
            references=reference_policies(record.space),
            wanted=record.trials,
            settings={"search": str(self._ledger.folder), "gpus": allotment.gpus, **checkpoints},
            may_propose=lambda: time.monotonic() < deadline,
        )
        ended = [trial for trial in self._ledger.trials() if trial.state in ("completed", "pruned")]
        scheduler = build_scheduler(
            record.scheduler,
            self._ledger,
            folds=record.folds,
            maximize=maximize,
            metric=record.metric,
            max_copy_rate=record.max_copy_rate,
            earlier=ended,
        )
        return tune.Tuner(
            tune.with_resources(FoldTrainable, {"cpu": allotment.cpus, "gpu": allotment.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=self._searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=allotment.concurrency,
                reuse_actors=True,
                time_budget_s=self._resources.time_budget,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{_next_attempt(self._ledger.folder / 'tune')}",
                storage_path=str(self._ledger.folder / "tune"),
                callbacks=[self._watch],
                failure_config=tune.FailureConfig(max_failures=1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                verbose=0,
            ),
        )


def _next_attempt(folder: Path) -> int:
    taken = [int(path.name.partition("-")[2]) for path in folder.glob("attempt-*") if path.name[8:].isdigit()]
    return max(taken, default=0) + 1


def join_cluster(address: str, allotment: Allotment) -> None:
    """Connect to a running Ray cluster.

    Args:
        address: HOST:PORT of its head, or "auto" for the one this machine belongs to.
        allotment: what each trial shall have.

    Raises:
        SettingsError: nothing answers there, or no node is large enough for a trial.
    """
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdigit() and _answers(host, int(port))):
        raise SettingsError(f"--address {address} does not answer; give HOST:PORT of a running Ray head, or 'auto'.")
    _set_environment()
    try:
        ray.init(address=address, **_QUIET)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(f"--address {address} cannot be joined ({reason}); check the head and its token.") from None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= allotment.cpus and node.get("GPU", 0) >= allotment.gpus for node in nodes):
        ray.shutdown()
        raise SettingsError(
            f"no node of the cluster at {address} has {allotment.cpus} CPUs and {allotment.gpus:g} GPUs for one trial; "
            f"give less with --cpus-per-trial and --gpus-per-trial."
        )


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}


def _start_ray(allotment: Allotment) -> None:
    """Start Ray on this machine alone, on loopback."""
    _set_environment()
    ray.init(
        num_cpus=max(allotment.concurrency * allotment.cpus, 1),
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=_OBJECT_STORE_BYTES,
        **_QUIET,
    )


def _set_environment() -> None:
    """Tell Ray and its processes where this project lies, and to leave logging, files and signals to it."""
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",
        TUNE_DISABLE_STRICT_METRIC_CHECKING="1",
        TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_DISABLE_FAILURE_SIGNAL_HANDLER="1",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
