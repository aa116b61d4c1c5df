"""A made-up search of a table's space: rows with a score that is chosen, on the same folds and patients."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from spaces.budget import budget_named
from spaces.paper_table import adapted
from spaces.presets import TABLES
from spaces.protocol import Protocol
from spaces.space import Space
from trainables.ledger import DataRecord, Ledger, SearchRecord
from trainables.results import FoldResult, Prediction

FOLDS = 5


def table_space(name: str, budget: str) -> Space:
    """The space of a table as the command line hands it on."""
    chosen = budget_named(budget)
    space = TABLES[name].space.with_defaults(chosen.settings, generators=chosen.generators)
    return adapted(TABLES[name], space, chosen, named=())[0].narrowed()


def table_ledger(folder: Path, space: Space, *, budget: str = "standard", repeats: int = 2) -> Ledger:
    """An empty search of a space on two classes."""
    data = DataRecord(
        digest="d", source="labels.csv of x", classes=("No_findings", "Pneumonia"), counts=(60, 40), patients=80,
        patients_known=True, is_phantom=False, positive=1, bad_images=(),
    )  # fmt: skip
    record = SearchRecord(
        name=folder.name, space=space, data=data, budget=budget, folds=FOLDS * repeats, metric="accuracy", seed=1,
        sampler="grid", scheduler="fifo", trials=99, threads=1, tracking_uri="sqlite:///x", created=1.0, versions={},
        protocol=Protocol(folds=FOLDS, repeats=repeats),
    )  # fmt: skip
    ledger = Ledger(folder)
    ledger.folder.mkdir(parents=True)
    ledger.write_search(record)
    return ledger


def add_row(
    ledger: Ledger,
    config: Mapping[str, object],
    accuracy: float,
    *,
    noise: float = 0.02,
    kid: float | None = None,
    folds: Sequence[int] | None = None,
) -> str:
    """A completed trial whose folds score ``accuracy`` give or take ``noise``, as do its predictions."""
    record = ledger.search()
    trial_id = ledger.add_trial(dict(config), reference=None)  # type: ignore[arg-type]
    rng = random.Random(f"{sorted(map(str, config.items()))}")
    for number in folds if folds is not None else range(record.folds):
        # what a fold is like is the same for all rows
        difficulty = random.Random(number).uniform(-0.05, 0.05)
        value = accuracy + difficulty + rng.uniform(-noise, noise)
        names = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
        ledger.record_fold(
            trial_id,
            FoldResult(
                fold=number, scores=dict.fromkeys(names, value), stages=(), seconds=1.0, peak_bytes=9,
                predictions=_predictions(rng, value, number), counts={"real": 80, "synthetic": 80, "test": 20},
                fidelity={} if kid is None else {"kid": kid},
            ),
        )  # fmt: skip
    ledger.end_trial(trial_id, "completed")
    return trial_id


def _predictions(rng: random.Random, accuracy: float, fold: int) -> tuple[Prediction, ...]:
    """Twenty images of sixteen patients, eight of them diseased, right with the given probability."""
    found = []
    for index in range(20):
        label = int(index % 5 < 2)
        sure = 0.5 + 0.5 * rng.random()
        right = label if rng.random() < accuracy else 1 - label
        probabilities = (1 - sure, sure) if right else (sure, 1 - sure)
        name = f"{fold % FOLDS}/{index % 16}"
        found.append(Prediction(image=f"i{name}/{index}", patient=name, label=label, probabilities=probabilities))
    return tuple(found)
