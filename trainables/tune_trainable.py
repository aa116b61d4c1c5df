"""The Ray Trainable: one step is one finished fold. The only module of the trial core that knows Ray."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import tune
from safetensors.torch import save_file

from spaces.config import trial_config
from trainables import feature_map
from trainables.errors import RetryableTrialError
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
CHECKPOINT_SECONDS = "checkpoint_seconds"


class FoldTrainable(tune.Trainable):  # type: ignore[misc]
    """Computes the folds of one trial after another; Tune reuses the process for many trials.

    Its configuration: ``search`` (folder of the search), ``trial`` (id in the ledger), ``gpus`` (share of a GPU),
    ``checkpoint_seconds`` (between two checkpoints of a training).
    A fold that the ledger has already is reported again, not computed. What goes wrong is recorded in the ledger
    as the trial's end and reported as a finished trial, so that the process lives on; lack of memory and failed
    input or output are raised, so that Tune tries the trial once more in a new process.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Open the search and take up a trial."""
        self._session = Session.open(Path(config["search"]))
        use_threads(self._session.record.threads)
        self._take_up(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Drop all of the last trial and take up another of the same search."""
        self._take_up(new_config)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True

    def _take_up(self, config: dict[str, Any]) -> None:
        self._trial_id = str(config[TRIAL])
        self._device = best_device(float(config["gpus"]))
        self._checkpoint_seconds = float(config[CHECKPOINT_SECONDS])
        self._results: list[FoldResult] = []

    def step(self) -> dict[str, Any]:
        """Finish the next fold and report the running mean and standard deviation of the metric."""
        ledger = self._session.ledger
        try:
            self._results.append(self._fold(len(self._results)))
        except (torch.OutOfMemoryError, MemoryError, OSError) as error:
            raise RetryableTrialError(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            ledger.end_trial(self._trial_id, "failed", error=message)
            (ledger.trial_folder(self._trial_id) / "traceback.txt").write_text(traceback.format_exc(), "utf-8")
            return {TRIAL: self._trial_id, "done": True}
        summary = summarise(self._results)[self._session.record.metric]
        done = len(self._results) == len(self._session.splits)
        if done:
            found = score_intervals(ledger.trial(self._trial_id), self._session.record)
            ledger.end_trial(self._trial_id, "completed", intervals=found)
        report = {
            TRIAL: self._trial_id,
            REFERENCE: ledger.trial(self._trial_id).reference,
            FOLDS_DONE: len(self._results),
            RUNNING_MEAN: summary.mean,
            RUNNING_STD: summary.std,
            "done": done,
        }
        return {name: value for name, value in report.items() if value is not None}

    def _fold(self, number: int) -> FoldResult:
        ledger, split = self._session.ledger, self._session.splits[number]
        recorded = ledger.fold(self._trial_id, split.fold)
        if recorded is not None:
            return recorded
        config = trial_config(ledger.trial(self._trial_id).config, self._session.budget)
        environment = self._session.environment(
            self._trial_id, split.fold, device=self._device, checkpoint_seconds=self._checkpoint_seconds
        )
        outcome = next(run_trial(config, [split], environment))
        weights = ledger.trial_folder(self._trial_id) / WEIGHTS
        weights.mkdir(exist_ok=True)
        save_file(outcome.classifier_state, weights / f"fold_{split.fold}.safetensors")
        ledger.record_fold(self._trial_id, outcome.result)
        if outcome.feature_map is not None:
            self._draw_map(outcome.feature_map)
        return outcome.result

    def _draw_map(self, draw: Callable[[], FeatureMap]) -> None:
        """Compute what figures show; the fold is on record, and no figure is worth a trial."""
        folder = self._session.ledger.trial_folder(self._trial_id)
        try:
            draw().write(folder / feature_map.FOLDER, show_images=self._session.record.show_images)
        except Exception:
            (folder / "feature_map_error.txt").write_text(traceback.format_exc(), "utf-8")
