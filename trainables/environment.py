"""What a trial computes with and on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from trainables.data.cohort import Cohort
from trainables.stages import StageStore
from trainables.training.loop import CHECKPOINT_SECONDS

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all); may raise StopRequested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a trial computes with and on, equal for all trials of a search.

    Args:
        cohort: the decoded images.
        store: where finished stages are found and put.
        seed: the search's seed.
        positive: index of the diseased class, for sensitivity and specificity of two classes.
        device: where networks compute.
        threads: CPU threads; the caller has told torch.
        report: progress of long stages.
        checkpoint_seconds: between two checkpoints of a training.
    """

    cohort: Cohort
    store: StageStore
    seed: int
    positive: int
    device: torch.device
    threads: int
    report: Report
    checkpoint_seconds: float = CHECKPOINT_SECONDS
