"""One trial: its folds in order. Pure: no scheduler, no tracker."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch

from spaces.config import TrialConfig
from trainables.data.splits import FoldSplit
from trainables.fold import Environment, FoldOutcome, run_fold


def run_trial(
    config: TrialConfig, splits: Sequence[FoldSplit], environment: Environment, *, finished: Collection[int] = ()
) -> Iterator[FoldOutcome]:
    """Compute a trial's folds, one at a time, as the iterator is advanced.

    Args:
        config: the trial.
        splits: the search's folds; computed in this order.
        environment: data, store, seed and device.
        finished: numbers of folds to leave out.

    Yields:
        A fold's result and classifier, as soon as it is finished.

    Raises:
        FinalTrialError: as ``run_fold``.
    """
    for split in splits:
        if split.fold not in finished:
            yield run_fold(config, split, environment)


def best_device(gpus: float) -> torch.device:
    """The GPU that this process may use, if it was given any share of one; the CPU otherwise."""
    return torch.device("cuda") if gpus > 0 and torch.cuda.is_available() else torch.device("cpu")
