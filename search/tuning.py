"""The one place that runs Ray Tune: it runs the trials of a ledger, and keeps its record of those that died."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError

from search.allotment import Allotment
from search.leaving import Leaving, Left
from search.objectives import objectives_of
from search.outcome import rank
from search.proposers import build_proposer
from search.ray_start import join_cluster, start_ray
from search.sampler import LedgerSearcher
from search.schedulers import build_scheduler, needs_fold_order
from search.settings import Resources
from search.warm_start import kept_earlier
from spaces.budget import budget_named
from spaces.reference import reference_policies
from trainables.ledger import Ledger, SearchRecord
from trainables.results import TrialResult
from trainables.session import OWN_STAGES, stages_folder
from trainables.stages import StageStore
from trainables.tune_trainable import (
    CHECKPOINT_SECONDS,
    FOLDS_DONE,
    FOLDS_IN_ORDER,
    GPUS,
    STORAGE_FULL,
    TRIAL,
    WEIGHTS,
    FoldTrainable,
)

_EVICT_EVERY = 30.0
"""Seconds between two looks at how much room the stages take, at least."""
_EVICT_SHARE = 20.0
"""Times as long as a look takes, at least, no look is taken: with many stages each takes seconds."""
_DEATHS = 2
"""Times in a row that a trial's process may die, and the trial is tried again. A node that dies is not its fault."""
_NODE_DIED = "its node has died"
_UNAVAILABLE = "temporarily unavailable"
"""In Ray's words for what became of a process; the second where all of a node is gone and nobody knows so yet."""
_NO_CONNECTIONS = 10
"""Times that a trial's process may be unavailable before that counts as a death."""


class _Watch(tune.Callback):  # type: ignore[misc]
    """Knows which trials run, records crashed workers, keeps only the leader's weights, wakes the tracker.

    With a limit it also evicts the stages that were used least recently. A storage that is full makes it leave.
    """

    def __init__(
        self,
        ledger: Ledger,
        record: SearchRecord,
        *,
        stage_limit: int | None,
        on_change: Callable[[], None],
        leaving: Leaving,
    ) -> None:
        self._stage_limit = stage_limit
        self._evict_at = 0.0
        self._ledger = ledger
        self._record = record
        self._on_change = on_change
        self._leaving = leaving
        self._farthest: dict[str, int] = {}
        self._unavailable: dict[str, int] = {}
        self.running: dict[str, str] = {}
        self._leader: str | None = None
        self._drop_files(*ledger.trial_ids())
        self._evict()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to restore a run from them; here the ledger does that."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._leaving.step(len(self.running))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running[trial.trial_id] = trial.config[TRIAL]
        self._on_change()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get(FOLDS_DONE, 0) > self._farthest.get(trial.trial_id, 0):
            self._farthest[trial.trial_id] = result[FOLDS_DONE]
            trial.run_metadata.num_failures = 0
        if STORAGE_FULL in result:
            self._leaving.because_full(self._ledger.storage)
        self._on_change()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = _last_error(trial)
        if _UNAVAILABLE in error:
            self._unavailable[trial.trial_id] = self._unavailable.get(trial.trial_id, 0) + 1
        if _NODE_DIED in error or (_UNAVAILABLE in error and self._unavailable[trial.trial_id] <= _NO_CONNECTIONS):
            trial.run_metadata.num_failures -= 1

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.pop(trial.trial_id, None)
        self._drop_files(trial.config[TRIAL])
        self._evict()
        self._on_change()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.pop(trial.trial_id, None)
        self._ledger.end_trial(trial.config[TRIAL], "failed", error=_reason(_last_error(trial)))
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


def _words(error: RuntimeError) -> str:
    """The first sentence of what Ray says, which may be pages."""
    said = " ".join(str(error.__cause__).split())
    return said.partition(". ")[0][:200] or type(error.__cause__).__name__


def _last_error(trial: Any) -> str:
    """What Tune noted when a trial's process failed last, on this machine; a copy in the storage may come later."""
    try:
        said = Path(str(trial.error_file)).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return said.rpartition("Failure # ")[2]


def _reason(error: str) -> str:
    """One line for what ended a worker process too many times in a row."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    if len(lines) < 2 or "actor died" in error or _UNAVAILABLE in error:
        return f"the trial's process died {_DEATHS + 1} times in a row (killed, or out of memory)"
    return lines[-1]


class Tuning:
    """One attempt at a search's trials with Ray Tune.

    Args:
        ledger: the search; everything that matters is read from and written to it.
        allotment: what each trial may use.
        resources: the address of a cluster, and the time budget.
        leaving: asked several times a second, between two steps of Ray Tune, whether to leave; what it raises ends the
            trials and leaves ``run``.
        on_change: called in the driver's loop whenever a trial starts, reports or ends.
        on_start: called once Ray has started.
        trainable: what computes trials.
    """

    def __init__(
        self,
        ledger: Ledger,
        allotment: Allotment,
        resources: Resources,
        *,
        leaving: Leaving,
        on_change: Callable[[], None],
        on_start: Callable[[], None],
        trainable: type[FoldTrainable] = FoldTrainable,
    ) -> None:
        self._trainable = trainable
        self._on_start = on_start
        self._searcher: LedgerSearcher | None = None
        self._ledger = ledger
        self._record = ledger.search()
        self._allotment = allotment
        self._resources = resources
        self._leaving = leaving
        self._watch = _Watch(
            ledger, self._record, stage_limit=resources.stage_limit, on_change=on_change, leaving=leaving
        )

    def running(self) -> list[str]:
        """Ids of the trials that are computed at this moment."""
        return sorted(self._watch.running.values())

    @property
    def exhausted(self) -> bool:
        """Whether the sampler had no configuration left to propose."""
        return self._searcher is not None and self._searcher.exhausted

    def run(self) -> None:
        """Run until all trials have ended. Raises: Left, where there is reason to leave them.

        Tune gives up altogether where Ray ends a process in a way that Tune does not know, as for lack of memory: the
        trials then go on in another Tune run, unless that happens again and again.
        """
        in_vain = 0
        try:
            while True:
                finished = self._finished_folds()
                self._connect()
                self._on_start()
                try:
                    self._tuner().fit()
                    return
                except RuntimeError as error:
                    if not isinstance(error.__cause__, RayError):
                        raise
                    in_vain = 0 if self._finished_folds() > finished else in_vain + 1
                    if in_vain > _DEATHS:
                        self._leaving.because(f"Ray has ended trials again and again ({_words(error)})", exit_code=1)
                        raise Left from error
                    self._leaving.say(f"Ray has ended a trial ({_words(error)}); the trials go on.")
                    ray.shutdown()
                    self._watch.running.clear()
        finally:
            ray.shutdown()

    def _connect(self) -> None:
        """Start Ray, or join its cluster, unless that was done before the data was read."""
        if ray.is_initialized():
            return
        if self._resources.address is None:
            start_ray(self._allotment)
        else:
            join_cluster(self._resources, trials=self._record.trials, threads=self._allotment.cpus)

    def _finished_folds(self) -> int:
        return sum(len(trial.folds) for trial in self._ledger.trials())

    def _tuner(self) -> tune.Tuner:
        record, allotment = self._record, self._allotment
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
                in_order=needs_fold_order(record.scheduler),
            ),
            references=reference_policies(record.space),
            wanted=record.trials,
            settings=self._settings,
            may_propose=lambda: not self._leaving.wanted,
        )
        return tune.Tuner(
            tune.with_resources(self._trainable, partial(_needs, allotment.cpus)),
            tune_config=tune.TuneConfig(
                search_alg=self._searcher,
                scheduler=build_scheduler(self._ledger),
                num_samples=-1,
                max_concurrent_trials=allotment.concurrency,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{_next_attempt(self._ledger.folder / 'tune')}",
                storage_path=str(self._ledger.folder / "tune"),
                callbacks=[self._watch],
                failure_config=tune.FailureConfig(max_failures=_DEATHS),
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


def _needs(cpus: int, settings: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Ray sets aside for a trial with these settings; sent to Ray, so no method of what cannot be sent."""
    return tune.PlacementGroupFactory([{"CPU": cpus, "GPU": settings[GPUS]}])


def _next_attempt(folder: Path) -> int:
    taken = [int(path.name.partition("-")[2]) for path in folder.glob("attempt-*") if path.name[8:].isdigit()]
    return max(taken, default=0) + 1
