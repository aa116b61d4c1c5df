"""This project's search as the benchmarks run it: recorded as the command line would, computed, nothing printed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from mlflow_tracking.projector import Projector
from search.attempt import End, allotted, compute
from search.chosen_space import chosen_space
from search.inputs import prepare
from search.pretrained import leave_missing, leave_missing_weights
from search.settings import NewSearch, Resources
from spaces.budget import budget_named
from spaces.protocol import Protocol
from spaces.space import Space
from trainables.ledger import Ledger
from trainables.tune_trainable import FoldTrainable

BUDGET = "quick"
_CHECKPOINT_SECONDS = 60.0


def genmix_space(fixed: Sequence[str] = ()) -> Space:
    """The space ``genmix`` as the command line has it on this machine: without what would need a download.

    Args:
        fixed: as with ``--set``.
    """
    budget = budget_named(BUDGET)
    space, _ = chosen_space("genmix", fixed, budget)
    space, _ = leave_missing(space, budget, named=set())
    return leave_missing_weights(space, budget, named=set())[0]


@contextmanager
def silence() -> Iterator[Console]:
    """A console that shows nothing."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        yield Console(file=nowhere, width=160)


def resources(slots: int) -> Resources:
    """So many trials at once, one processor each."""
    return Resources(
        concurrency=slots,
        cpus_per_trial=1,
        gpus_per_trial=0,
        address=None,
        time_budget=None,
        checkpoint_seconds=_CHECKPOINT_SECONDS,
    )


def record_search(
    storage: Path,
    name: str,
    space: Space,
    *,
    data: Path | None,
    labels: Path | None = None,
    trials: int,
    slots: int,
    folds: int = 3,
    sampler: str = "reuse",
    scheduler: str = "fifo",
    sharing: bool = True,
) -> Ledger:
    """A new search under the budget ``quick`` with seed 0, its images decoded; nothing is computed yet."""
    budget = budget_named(BUDGET)
    asked = resources(slots)
    settings = NewSearch(
        space=space,
        budget=budget,
        data=data,
        labels=None if labels is None else str(labels),
        slice_rule=None,
        positive=None,
        skip_bad_images=False,
        trials=trials,
        protocol=Protocol(folds=folds),
        folds_given=True,
        split_file=None,
        lock_test=None,
        show_images=True,
        confirm=False,
        seed=0,
        metric="balanced_accuracy",
        further_metrics=(),
        sampler=sampler,
        scheduler=scheduler,
        warm_start=(),
        sharing=sharing,
        max_copy_rate=None,
        storage=storage,
        name=name,
        tracking_uri=f"sqlite:///{storage / 'mlflow.db'}",
        resources=asked,
    )
    with silence() as console:
        return prepare(settings, allotted(asked, trials=trials), console)


def compute_search(
    ledger: Ledger, console: Console, *, slots: int, trainable: type[FoldTrainable] = FoldTrainable
) -> End:
    """Run what a search has left to run, tracked in MLflow while it runs."""
    record, asked = ledger.search(), resources(slots)
    allotment = allotted(asked, trials=record.trials, threads=record.threads)
    return compute(ledger, Projector(ledger, record.tracking_uri), allotment, asked, console, trainable=trainable)
