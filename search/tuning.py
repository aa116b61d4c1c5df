"""The one place that runs Ray Tune: it starts or joins Ray, runs the trials, and says how it ended."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from search.objectives import objectives_of
from search.outcome import rank
from search.proposers import build_proposer
from search.resource_classes import SHARE, ResourceClasses
from search.sampler import LedgerSearcher
from search.schedulers import build_scheduler, needs_fold_order
from search.settings import MOST_AT_ONCE, Resources, SettingsError
from search.warm_start import kept_earlier
from spaces.budget import budget_named
from spaces.reference import reference_policies
from trainables.ledger import Ledger, SearchRecord
from trainables.results import TrialResult
from trainables.session import OWN_STAGES, stages_folder
from trainables.stages import StageStore
from trainables.tune_trainable import CHECKPOINT_SECONDS, FOLDS_IN_ORDER, GPUS, TRIAL, WEIGHTS, FoldTrainable

_EVICT_EVERY = 30.0
"""Seconds between two looks at how much room the stages take, at least."""
_EVICT_SHARE = 20.0
"""Times as long as a look takes, at least, no look is taken: with many stages each takes seconds."""
_OBJECT_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """Trials at once, and the CPU threads and share of a GPU that each has."""

    concurrency: int
    cpus: int
    gpus: ResourceClasses


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
    gpus = _gpu_classes(resources.gpus_per_trial, devices)
    cpus = resources.cpus_per_trial or threads
    most = int(devices / gpus.share) if gpus.share > 0 else cores // (cpus or 1)
    concurrency = resources.concurrency or max(1, min(most, trials, MOST_AT_ONCE if not gpus.share else most))
    return Allotment(concurrency=concurrency, cpus=cpus or max(1, cores // concurrency), gpus=gpus)


def _gpu_classes(asked: float | None, devices: int) -> ResourceClasses:
    """What was asked for, for every trial; else a share for small trials and a whole GPU for others."""
    if asked is not None:
        return ResourceClasses(share=asked, whole=asked)
    if devices == 0:
        return ResourceClasses(share=0.0, whole=0.0)
    smallest = min(torch.cuda.get_device_properties(device).total_memory for device in range(devices))
    return ResourceClasses(share=SHARE, whole=1.0, gpu_bytes=smallest)


class _Watch(tune.Callback):  # type: ignore[misc]
    """Knows which trials run, records crashed workers, keeps only the leader's weights, wakes the tracker.

    With a limit it also evicts the stages that were used least recently.
    """

    def __init__(
        self,
        ledger: Ledger,
        record: SearchRecord,
        *,
        stage_limit: int | None,
        on_change: Callable[[], None],
        on_step: Callable[[], None],
    ) -> None:
        self._stage_limit = stage_limit
        self._evict_at = 0.0
        self._ledger = ledger
        self._record = record
        self._on_change = on_change
        self._on_step = on_step
        self.running: dict[str, str] = {}
        self._leader: str | None = None
        self._drop_files(*ledger.trial_ids())
        self._evict()

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
        self._drop_files(trial.config[TRIAL])
        self._evict()
        self._on_change()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.pop(trial.trial_id, None)
        self._ledger.end_trial(trial.config[TRIAL], "failed", error=_reason(trial.get_error()))
        self._drop_files(trial.config[TRIAL])
        self._on_change()

    def _evict(self) -> None:
        """Make room, now and then; a storage that cannot be looked through now is looked through later."""
        if self._stage_limit is None or time.monotonic() < self._evict_at:
            return
        start = time.monotonic()
        with suppress(OSError):
            StageStore(stages_folder(self._ledger)).evict(self._stage_limit)
        took = time.monotonic() - start
        self._evict_at = time.monotonic() + max(_EVICT_EVERY, _EVICT_SHARE * took)

    def _drop_files(self, *trial_ids: str) -> None:
        """Of trials that have ended, and of the one that led before, keep the best one's weights, and no own stages."""
        best = rank(self._ledger.trials(), self._record)[:1]
        leader = best[0].id if best else None
        for trial_id in {*trial_ids, self._leader or leader} - {leader, None}:
            if trial_id is not None and self._ledger.trial(trial_id).state != "unfinished":
                shutil.rmtree(self._ledger.trial_folder(trial_id) / WEIGHTS, ignore_errors=True)
        self._leader = leader
        for trial_id in () if self._record.sharing else trial_ids:
            if self._ledger.trial(trial_id).state != "unfinished":
                shutil.rmtree(self._ledger.trial_folder(trial_id) / OWN_STAGES, ignore_errors=True)


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
        trainable: what computes trials.
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
        trainable: type[FoldTrainable] = FoldTrainable,
    ) -> None:
        self._trainable = trainable
        self._on_start = on_start
        self._searcher: LedgerSearcher | None = None
        self._ledger = ledger
        self._record = ledger.search()
        self._allotment = allotment
        self._resources = resources
        self._watch = _Watch(
            ledger, self._record, stage_limit=resources.stage_limit, on_change=on_change, on_step=on_step
        )

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
        deadline = time.monotonic() + (self._resources.time_budget or float("inf"))
        self._searcher = LedgerSearcher(
            self._ledger,
            build_proposer(
                record.sampler,
                record.space,
                seed=record.seed,
                objectives=objectives_of(record),
                budget=replace(budget_named(record.budget), folds=record.folds),
                max_copy_rate=record.max_copy_rate,
                earlier=kept_earlier(self._ledger),
            ),
            references=reference_policies(record.space),
            wanted=record.trials,
            settings=self._settings,
            may_propose=lambda: time.monotonic() < deadline,
        )
        return tune.Tuner(
            tune.with_resources(self._trainable, self._needs),
            tune_config=tune.TuneConfig(
                search_alg=self._searcher,
                scheduler=build_scheduler(self._ledger),
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

    def _settings(self, trial: TrialResult) -> dict[str, Any]:
        """What a trial's process is told."""
        lacked_memory, classes = self._ledger.ran_out_of_memory(trial.id), self._allotment.gpus
        measured = [] if classes.share == classes.whole else self._ledger.trials()
        return {
            "search": str(self._ledger.folder),
            GPUS: classes.gpus(trial.config, measured, lacked_memory=lacked_memory),
            CHECKPOINT_SECONDS: self._resources.checkpoint_seconds,
            FOLDS_IN_ORDER: needs_fold_order(self._record.scheduler),
        }

    def _needs(self, settings: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What Ray sets aside for a trial with these settings."""
        return tune.PlacementGroupFactory([{"CPU": self._allotment.cpus, "GPU": settings[GPUS]}])


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
    if not any(node.get("CPU", 0) >= allotment.cpus and node.get("GPU", 0) >= allotment.gpus.whole for node in nodes):
        ray.shutdown()
        raise SettingsError(
            f"no node of the cluster at {address} has {allotment.cpus} CPUs and {allotment.gpus.whole:g} GPUs for one "
            f"trial; give less with --cpus-per-trial and --gpus-per-trial."
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
        TUNE_GLOBAL_CHECKPOINT_S="86400",
        TUNE_DISABLE_STRICT_METRIC_CHECKING="1",
        TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_DISABLE_FAILURE_SIGNAL_HANDLER="1",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
