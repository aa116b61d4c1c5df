"""A finished search on noise images: two trials of two folds, one of them with a generator, computed in seconds."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
import torch

from spaces.budget import budget_named
from spaces.config import trial_config
from spaces.parameter import Value
from spaces.presets import PRESETS
from spaces.protocol import Protocol
from tests.trainables.conftest import TINY
from trainables.data.reading import read_cohort
from trainables.data.source import Source
from trainables.ledger import IMAGES, SHARED, DataRecord, Ledger, SearchRecord
from trainables.session import Session
from trainables.trial import run_trial

NAME = "tiny"
CLASSES = ("bright, left", "dark")
"""A comma, so that every table has to quote it."""
GENMIX: dict[str, Value] = {
    **{name: value for name, value in TINY.items() if name != "generator.sampling_steps"},
    "mixer.name": "genmix",
    "generator.name": "dcgan",
}
MIXUP: dict[str, Value] = {
    **{name: value for name, value in TINY.items() if name.startswith("classifier.")},
    "mixer.name": "mixup",
}


def write_images(folder: Path, *, patients: int = 12, per_patient: int = 2) -> Path:
    """MetaImages of noise, pixels of 2 mm, of unlike sizes and intensities, with a labels.csv that names patients."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = ["path,label,patient"]
    for patient in range(patients):
        label = CLASSES[patient % 2]
        for index in range(per_patient):
            name = f"{patient}-{index}.mha"
            image = sitk.GetImageFromArray(
                (rng.integers(0, 1500, (40, 32 + 8 * index)) + 400 * (patient % 2)).astype(np.int16)
            )
            image.SetSpacing((2.0, 2.0))
            sitk.WriteImage(image, str(folder / name))
            rows.append(f'{name},"{label}",p{patient}')
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def new_search(place: Path, **changes: object) -> Ledger:
    """The record of a search below ``place``, with its data read and no trial."""
    storage = place / "searches"
    data = write_images(place / "data")
    cohort = read_cohort(data, cache=storage / SHARED / IMAGES)
    fields: dict[str, object] = {
        "name": NAME,
        "space": PRESETS["genmix"],
        "data": DataRecord(
            digest=cohort.digest,
            source=cohort.source,
            classes=cohort.classes,
            counts=cohort.counts,
            patients=cohort.n_patients,
            patients_known=True,
            is_phantom=False,
            positive=0,
            bad_images=(),
        ),
        "budget": "quick",
        "folds": 2,
        "metric": "balanced_accuracy",
        "seed": 5,
        "sampler": "random",
        "scheduler": "fifo",
        "trials": 2,
        "threads": 1,
        "tracking_uri": f"sqlite:///{place}/mlflow.db",
        "created": 1_700_000_000.0,
        "versions": {},
        "protocol": Protocol(folds=2),
        "source": Source(data=str(data)),
    }
    ledger = Ledger(storage / NAME)
    ledger.folder.mkdir(parents=True)
    ledger.write_search(SearchRecord(**{**fields, **changes}))  # type: ignore[arg-type]
    return ledger


def compute(ledger: Ledger, config: dict[str, Value]) -> str:
    """Add a trial and compute it; returns its id."""
    trial_id = ledger.add_trial(config, reference=None)
    session = Session.open(ledger.folder)
    for split in session.splits:
        environment = session.environment(trial_id, split.fold, device=torch.device("cpu"), checkpoint_seconds=60.0)
        found = trial_config(config, budget_named(session.record.budget))
        ledger.record_fold(trial_id, next(run_trial(found, [split], environment)).result)
    ledger.end_trial(trial_id, "completed")
    return trial_id


def finish(ledger: Ledger, *, best: str) -> None:
    """Give the trial of that id better scores than the others, whatever chance made of them."""
    for trial_id in ledger.trial_ids():
        for fold in range(ledger.search().folds):
            found = ledger.fold(trial_id, fold, predictions=True)
            assert found is not None
            path = ledger.trial_folder(trial_id) / f"fold_{fold}.json"
            path.unlink()
            score = 0.9 if trial_id == best else 0.6
            ledger.record_fold(trial_id, replace(found, scores={**found.scores, "balanced_accuracy": score}))


def moved(ledger: Ledger, place: Path) -> Ledger:
    """The same search after its storage was copied to ``place``, where its MLflow database is, too."""
    found = Ledger(place / "searches" / ledger.folder.name)
    found.write_search(replace(found.search(), tracking_uri=f"sqlite:///{place}/mlflow.db", created=time.time()))
    return found
