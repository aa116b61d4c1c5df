"""What a process needs to compute trials of a search, opened once and kept for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

import spaces
from spaces.budget import Budget, budget_named
from spaces.config import TrialConfig
from trainables.data.cohort import Cohort
from trainables.data.evaluations import evaluations
from trainables.data.locked import LockedTest
from trainables.data.splits import FoldSplit
from trainables.errors import FinalTrialError, StopRequested
from trainables.fold import Environment
from trainables.fold_keys import FoldKeys
from trainables.fold_order import StageStatus, furthest_behind, next_fold
from trainables.ledger import IMAGES, SHARED, Ledger, SearchRecord
from trainables.stages import StageStore

OWN_STAGES = "stages"
"""In the folder of a trial, where stages are not shared: what it has computed so far."""
_REPORT_EVERY = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An opened search: its record, its memory-mapped images, what each trial is trained and tested on."""

    ledger: Ledger
    record: SearchRecord
    budget: Budget
    cohort: Cohort
    splits: Sequence[FoldSplit]

    @classmethod
    def open(cls, folder: Path) -> Session:
        """Open the search recorded in ``folder``.

        Raises:
            OSError, ValueError: it, or its images, are not there.
            FinalTrialError: another package named ``spaces`` was imported in place of this project's.
        """
        _check_packages()
        ledger = Ledger(folder)
        record = ledger.search()
        cohort = Cohort.load(ledger.storage / SHARED / IMAGES / record.data.digest)
        locked = LockedTest.read(folder)
        ids = locked.ids if locked is not None and record.protocol.test_repeats else ()
        splits = evaluations(cohort, record.protocol, seed=record.seed, locked=ids)
        return cls(ledger=ledger, record=record, budget=budget_named(record.budget), cohort=cohort, splits=splits)

    def environment(self, trial_id: str, fold: int, *, device: torch.device, checkpoint_seconds: float) -> Environment:
        """What one fold of one trial computes with; its progress goes to the ledger, at most once a second."""
        progress = _Progress(self.ledger, trial_id, fold)
        store = StageStore(self.stages(trial_id), on_wait=lambda stage: progress(f"wait for {stage}", 0, 0))
        return Environment(
            cohort=self.cohort,
            store=store,
            seed=self.record.seed,
            positive=self.record.data.positive,
            device=device,
            threads=self.record.threads,
            report=progress,
            checkpoint_seconds=checkpoint_seconds,
        )

    def stages(self, trial_id: str) -> Path:
        """Where a trial finds and leaves stages: among those of all searches of the storage, or alone."""
        return stages_folder(self.ledger) if self.record.sharing else self.ledger.trial_folder(trial_id) / OWN_STAGES

    def next_fold(
        self, config: TrialConfig, finished: Collection[int], *, trial_id: str, in_order: bool = False
    ) -> FoldSplit:
        """Which of a trial's folds to compute next: first those whose stages nobody is computing.

        Args:
            config: the trial.
            finished: numbers of the folds that it has done, not all of them.
            trial_id: its id.
            in_order: take them by their numbers instead.
        """
        left = [split.fold for split in self.splits if split.fold not in finished]
        if in_order or len(left) == 1:
            return self.splits[left[0]]
        store = StageStore(self.stages(trial_id))

        def status(fold: int) -> StageStatus:
            keys = FoldKeys(
                config=config,
                split=self.splits[fold],
                cohort=self.cohort,
                seed=self.record.seed,
                threads=self.record.threads,
            )
            return furthest_behind([store.status(key) for key in keys.before_the_classifier()])

        return self.splits[next_fold(left, status)]


def stages_folder(ledger: Ledger) -> Path:
    """The stages that all searches of a storage share."""
    return ledger.storage / SHARED / "stages"


def _check_packages() -> None:
    """A published package is named ``spaces`` too; where it comes first on the path nothing here can work."""
    found, expected = Path(spaces.__file__).resolve().parent, Path(__file__).resolve().parent.parent / "spaces"
    if found != expected:
        raise FinalTrialError(
            f"The package 'spaces' was imported from {found}, not from {expected}; uninstall the other package of that "
            f"name, or put this project first on PYTHONPATH."
        )


class _Progress:
    """Reports what a trial is doing; raises StopRequested once the search asks its trials to stop."""

    def __init__(self, ledger: Ledger, trial_id: str, fold: int) -> None:
        self._ledger = ledger
        self._trial_id = trial_id
        self._fold = fold
        self._last = -_REPORT_EVERY

    def __call__(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _REPORT_EVERY:
            self._last = time.monotonic()
            if self._ledger.asked_to_stop():
                raise StopRequested
            self._ledger.write_progress(self._trial_id, fold=self._fold, stage=stage, done=done, total=total)


def use_threads(count: int) -> None:
    """Compute with that many CPU threads from now on: PyTorch, BLAS and OpenMP, also of libraries loaded later."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
    threadpool_limits(count)
    torch.set_num_threads(count)
