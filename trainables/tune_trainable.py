"""The Ray Trainable: one step is one finished fold. The only module of the trial core that knows Ray."""

from __future__ import annotations

import gc
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import tune

from spaces.config import trial_config
from trainables import feature_map
from trainables.errors import RetryableTrialError, StopRequested, is_of_storage, lacks_memory, lacks_room
from trainables.feature_map import FeatureMap
from trainables.pooled_intervals import score_intervals
from trainables.results import FoldResult, summarise
from trainables.session import Session, use_threads
from trainables.trial import best_device, run_trial

TRIAL = "trial"
REFERENCE = "reference"
FOLDS_DONE = "folds_done"
RUNNING_MEAN = "running_mean"
RUNNING_STD = "running_std"
WEIGHTS = "weights"
GPUS = "gpus"
CHECKPOINT_SECONDS = "checkpoint_seconds"
FOLDS_IN_ORDER = "folds_in_order"
OUT_OF_MEMORY = "out_of_memory"
STOPPED = "stopped"
STORAGE_FULL = "storage_full"


class FoldTrainable(tune.Trainable):  # type: ignore[misc]
    """Computes the folds of one trial after another; Tune reuses the process for many trials.

    Its configuration: ``search`` (folder of the search), ``trial`` (id in the ledger), ``gpus`` (share of a GPU),
    ``checkpoint_seconds`` (between two checkpoints of a training), ``folds_in_order`` (whether the scheduler counts on
    it). Folds that the ledger has already are reported again, not computed. What goes wrong is recorded in the ledger
    as the trial's end and reported as a finished trial, so that the process lives on. A trial that runs out of memory
    for the first time stays unfinished, which the report says; so does one that is asked to stop, and one that finds
    the storage full. Other failed input or output is raised, so that Tune tries the trial again in a new process.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Open the search and take up a trial."""
        self._session = Session.open(Path(config["search"]))
        use_threads(self._session.record.threads)
        self._take_up(config)
        gc.collect()
        gc.freeze()  # the libraries' objects stay: no collection between trials needs to look at them again

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Drop all of the last trial and take up another of the same search."""
        self._take_up(new_config)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True

    def _take_up(self, config: dict[str, Any]) -> None:
        self._trial_id = str(config[TRIAL])
        self._device = best_device(float(config[GPUS]))
        self._checkpoint_seconds = float(config[CHECKPOINT_SECONDS])
        self._in_order = bool(config[FOLDS_IN_ORDER])
        trial = self._session.ledger.trial(self._trial_id)
        self._config, self._reference = trial.config, trial.reference
        self._recorded = list(trial.folds)
        self._has_ended = trial.state != "unfinished"
        self._results: list[FoldResult] = []

    def step(self) -> dict[str, Any]:
        """Finish the next fold and report the running mean and standard deviation of the metric."""
        if self._has_ended:
            return {TRIAL: self._trial_id, "done": True}
        try:
            self._results.append(self._recorded.pop(0) if self._recorded else self._next())
            if len(self._results) == len(self._session.splits):
                self._complete()
        except StopRequested:
            return {TRIAL: self._trial_id, STOPPED: True, "done": True}
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            if lacks_room(error):
                return {TRIAL: self._trial_id, STORAGE_FULL: message, "done": True}
            if lacks_memory(error):
                return self._out_of_memory(message)
            if is_of_storage(error):
                raise RetryableTrialError(message) from error
            return self._failed(message)
        return self._report()

    def _report(self) -> dict[str, Any]:
        summary = summarise(self._results).get(self._session.record.metric)
        report = {
            TRIAL: self._trial_id,
            REFERENCE: self._reference,
            FOLDS_DONE: len(self._results),
            RUNNING_MEAN: summary.mean if summary else None,
            RUNNING_STD: summary.std if summary else None,
            "done": len(self._results) == len(self._session.splits),
        }
        return {name: value for name, value in report.items() if value is not None}

    def _complete(self) -> None:
        ledger = self._session.ledger
        found = score_intervals(ledger.trial(self._trial_id, predictions=True), self._session.record)
        ledger.end_trial(self._trial_id, "completed", intervals=found)
        self._drop_own_stages()

    def _failed(self, message: str) -> dict[str, Any]:
        ledger = self._session.ledger
        ledger.end_trial(self._trial_id, "failed", error=message)
        (ledger.trial_folder(self._trial_id) / "traceback.txt").write_text(traceback.format_exc(), "utf-8")
        self._drop_own_stages()
        return {TRIAL: self._trial_id, "done": True}

    def _out_of_memory(self, message: str) -> dict[str, Any]:
        """Leave the trial to another attempt, once."""
        if self._session.ledger.record_out_of_memory(self._trial_id, message):
            return {TRIAL: self._trial_id, OUT_OF_MEMORY: True, "done": True}
        return self._failed(
            f"{message} (for the second time; lower generator.batch_size, generator.width or preprocess.pixels with "
            f"--set, or the number of trials at once with --concurrency)"
        )

    def _drop_own_stages(self) -> None:
        """Without sharing nobody needs a trial's stages any more."""
        if not self._session.record.sharing:
            shutil.rmtree(self._session.stages(self._trial_id), ignore_errors=True)

    def _next(self) -> FoldResult:
        session, ledger = self._session, self._session.ledger
        config = trial_config(self._config, session.budget)
        finished = [result.fold for result in self._results]
        split = session.next_fold(config, finished, in_order=self._in_order, trial_id=self._trial_id)
        environment = session.environment(
            self._trial_id, split.fold, device=self._device, checkpoint_seconds=self._checkpoint_seconds
        )
        with environment.store.in_use():
            outcome = next(run_trial(config, [split], environment))
            self._keep_weights(outcome.weights, split.fold)
        ledger.record_fold(self._trial_id, outcome.result)
        if outcome.feature_map is not None:
            self._draw_map(outcome.feature_map)
        return outcome.result

    def _keep_weights(self, stored: Path, fold: int) -> None:
        """Give the trial its classifier: a second name for the stored file where the file system has that."""
        weights = self._session.ledger.trial_folder(self._trial_id) / WEIGHTS / f"fold_{fold}.safetensors"
        weights.parent.mkdir(exist_ok=True)
        weights.unlink(missing_ok=True)
        try:
            os.link(stored, weights)
        except OSError:
            shutil.copyfile(stored, weights)

    def _draw_map(self, draw: Callable[[], FeatureMap]) -> None:
        """Compute what figures show; the fold is on record, and no figure is worth a trial."""
        folder = self._session.ledger.trial_folder(self._trial_id)
        try:
            draw().write(folder / feature_map.FOLDER, show_images=self._session.record.show_images)
        except Exception:
            (folder / "feature_map_error.txt").write_text(traceback.format_exc(), "utf-8")
