"""A made-up search on disk: a ledger with trials, and the stages that their pictures show."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from spaces.presets.genmix import GENMIX
from spaces.protocol import Protocol
from spaces.space import Assignment
from trainables.data.image_files import save_image_set
from trainables.data.image_set import ImageSet
from trainables.feature_map import FOLDER, FeatureMap
from trainables.files import write_json
from trainables.generators.previews import Previews, write_previews
from trainables.ledger import SHARED, DataRecord, Ledger, SearchRecord
from trainables.metrics.copies import ClosePair
from trainables.metrics.fidelity import Fidelity, write_fidelity
from trainables.results import FoldResult, StageRecord, TrialState

CLASSES = ("HCC", "HEM", "HF-I")
FOLDS = 3
REAL: Assignment = {"mixer.name": "real", "affine": False, "classifier.learning_rate": 0.001}
MIXUP: Assignment = {
    "mixer.name": "mixup",
    "mixer.mixup_alpha": 0.2,
    "affine": False,
    "classifier.learning_rate": 0.001,
}
GENMIX_DCGAN: Assignment = {
    "mixer.name": "genmix",
    "generator.name": "dcgan",
    "mixer.genmix_alpha": 0.31234567890123,
    "synthetic.ratio": 1.0,
    "synthetic.balance": True,
    "affine": False,
    "classifier.learning_rate": 0.002,
}
GENMIX_EGAN: Assignment = {**GENMIX_DCGAN, "generator.name": "egan", "generator.gamma": 0.005, "affine": True}


def search_record(name: str = "demo", **changes: object) -> SearchRecord:
    fields: dict[str, object] = {
        "name": name,
        "space": GENMIX,
        "data": DataRecord(
            digest="0123456789abcdef0123456789abcdef",
            source="phantom",
            classes=CLASSES,
            counts=(20, 30, 25),
            patients=60,
            patients_known=True,
            is_phantom=True,
            positive=0,
            bad_images=(),
        ),
        "budget": "quick",
        "folds": FOLDS,
        "protocol": Protocol(folds=FOLDS),
        "metric": "balanced_accuracy",
        "seed": 0,
        "sampler": "tpe",
        "scheduler": "racing",
        "trials": 12,
        "threads": 1,
        "tracking_uri": "sqlite:///mlflow.db",
        "created": 1_700_000_000.0,
        "versions": {"torch": "2.13.0", "mlflow": "3.17.2"},
    }
    return SearchRecord(**{**fields, **changes})  # type: ignore[arg-type]


def new_ledger(storage: Path, name: str = "demo", **changes: object) -> Ledger:
    ledger = Ledger(storage / name)
    ledger.folder.mkdir(parents=True, exist_ok=True)
    ledger.write_search(search_record(name, **changes))
    return ledger


FIDELITY: tuple[dict[str, float | None], ...] = tuple(
    {
        "kid": 0.1 + 0.02 * fold,
        "kid_std": 0.03,
        "precision": 0.8,
        "recall": 0.7,
        "density": 1.1,
        "coverage": 0.9,
        "coverage_HCC": 0.85,
        "coverage_HF-I": None,
        "copy_rate": 0.04 * fold,
    }
    for fold in range(FOLDS)
)
"""What was measured of the synthetic images of each fold."""


def fold_result(fold: int, *, level: float = 0.7, stages: tuple[StageRecord, ...] = ()) -> FoldResult:
    rng = random.Random(f"{fold} {level}")
    near = lambda: min(1.0, max(0.0, level + rng.uniform(-0.05, 0.05)))  # noqa: E731
    scores = {
        "balanced_accuracy": near(),
        "accuracy": near(),
        "macro_f1": near(),
        "auc": near(),
        **{f"sensitivity_{name}": near() for name in CLASSES},
        "specificity_\u03b1/\u03b2": near(),
        "undefined": None,
    }
    return FoldResult(
        fold=fold,
        scores=scores,
        stages=stages,
        predictions=(),
        counts={"real": 50, "synthetic": 50, "test": 25},
        seconds=12.5 + fold,
        peak_bytes=300 * 2**20,
    )


def add_trial(
    ledger: Ledger,
    config: Assignment,
    *,
    folds: int = FOLDS,
    state: TrialState = "completed",
    reference: str | None = None,
    level: float = 0.7,
    error: str | None = None,
    stages: tuple[StageRecord, ...] = (),
    measured: bool = False,
) -> str:
    trial_id = ledger.add_trial(config, reference=reference)
    for fold in range(folds):
        result = fold_result(fold, level=level, stages=stages)
        ledger.record_fold(trial_id, replace(result, fidelity=FIDELITY[fold]) if measured else result)
    if state != "unfinished":
        ledger.end_trial(trial_id, state, error=error)
    return trial_id


def write_stages(
    storage: Path, *, synthetic: bool = True, pixels: int = 32, measured: bool = False
) -> tuple[StageRecord, ...]:
    """Write the stages of a fold; the images are discs whose size tells the class.

    With ``measured`` there are also the generator's manifest and previews, and its fidelity.
    """
    rng = np.random.default_rng(0)
    records = []

    def folder(name: str, key: str) -> Path:
        path = storage / SHARED / "stages" / name / key
        path.mkdir(parents=True, exist_ok=True)
        records.append(StageRecord(name=name, key=key, seconds=1.0, reused=False))
        return path

    labels = np.repeat(np.arange(len(CLASSES)), (14, 20, 5)).astype(np.int64)
    images = np.stack([_disc(label, pixels, rng) for label in labels])[:, None]
    real = ImageSet(
        images_NCHW=torch.from_numpy(images),
        labels_N=torch.from_numpy(labels),
        ids=tuple(f"i{index}" for index in range(len(labels))),
        patients=tuple(f"p{index}" for index in range(len(labels))),
        classes=CLASSES,
    )
    save_image_set(folder("preprocess", "aa"), real)
    if synthetic:
        trained = folder("generator", "bb")
        write_json(trained / "history.json", egan_history())
        for label in range(len(CLASSES)):
            chunk = folder("pool", f"cc{label}")
            made = np.stack([_disc(label, pixels, rng, noise=0.4) for _ in range(20)])[:, None]
            np.save(chunk / "images.npy", made)
            write_json(chunk / "chunk.json", {"class_index": label, "start": 0})
    if measured:
        write_json(trained / "stage.json", {"key": {"config": {"gamma": 0.25}}})
        shape = (3, len(CLASSES), 4, pixels, pixels)
        previews = Previews(
            steps=(0, 25, 40), images_TKMHW=torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
        )
        write_previews(trained, previews, CLASSES)
        found = Fidelity(values=FIDELITY[0], counts={"real": (14, 20, 5)}, pairs=(close_pair(0.5), close_pair(2.0)))
        write_fidelity(folder("fidelity", "dd"), found, CLASSES)
    return tuple(records)


def feature_map(*, kinds: tuple[int, ...] = (0, 1, 2), each: int = 4, weight: float = 0.75) -> FeatureMap:
    """Points around a centre for each kind and class; pictures are grey: 20 times the class, more for each kind."""
    groups = [(kind, label) for kind in kinds for label in range(len(CLASSES))]
    kind_M = torch.tensor([kind for kind, _ in groups]).repeat_interleave(each)
    label_M = torch.tensor([label for _, label in groups]).repeat_interleave(each)
    noise_M3 = torch.randn(len(kind_M), 3, generator=torch.Generator().manual_seed(0))
    example_E = torch.arange(len(kind_M)).reshape(-1, each)[:, :2].flatten()
    grey_M = (20 + 20 * label_M + 70 * kind_M).to(torch.uint8)
    return FeatureMap(
        points_MC=noise_M3 + 20 * torch.nn.functional.one_hot(label_M, 3) + 5 * kind_M[:, None],
        kind_M=kind_M,
        label_M=label_M,
        weight_M=torch.where(kind_M == 2, weight, 1.0),
        example_E=example_E,
        images_EHW=grey_M[example_E, None, None].expand(-1, 32, 32).contiguous(),
        classes=CLASSES,
    )


def write_map(ledger: Ledger, trial_id: str, found: FeatureMap | None = None) -> None:
    """Store a trial's feature map where the projector looks for it; with pictures, whatever the search says."""
    (found or feature_map()).write(ledger.trial_folder(trial_id) / FOLDER, show_images=True)


def confirmation(search: Ledger, *, number: int = 1, locked: int = 2) -> Ledger:
    """A confirmation of a search: its second trial and a reference again, on two folds and on a locked test set."""
    ledger = Ledger(search.folder / ("confirm" if number == 1 else f"confirm-{number}"))
    ledger.folder.mkdir()
    ledger.write_search(
        replace(search.search(), seed=100 + number, folds=2 + locked, trials=2, created=1_700_000_500.0 + number)
    )
    for config, reference in ((GENMIX_DCGAN, None), (MIXUP, "mixup")):
        trial_id = ledger.add_trial(config, reference=reference)
        for fold in range(2 + locked):
            result = fold_result(fold, level=0.7 if fold < 2 else 0.4)
            ledger.record_fold(trial_id, replace(result, locked=fold >= 2))
        ledger.end_trial(trial_id, "completed")
    return ledger


def close_pair(distance: float, pixels: int = 32, **changes: str) -> ClosePair:
    """A grey synthetic image and a darker training image, with a threshold of 1."""
    images_2HW = np.stack([np.full((pixels, pixels), grey, dtype=np.uint8) for grey in (201, 101)])
    named = {"synthetic": "synthetic/HCC/000007", "training": "patient 3/slice 12.dcm", **changes}
    return ClosePair(**named, distance=distance, threshold=1.0, space="pixels", images_2HW=images_2HW)


def _disc(label: int, pixels: int, rng: np.random.Generator, noise: float = 0.15) -> np.ndarray:
    axis = np.linspace(-1, 1, pixels)
    inside = (axis[:, None] ** 2 + axis[None] ** 2) < (0.3 + 0.2 * label) ** 2
    image = np.where(inside, 0.4, -0.6) + rng.normal(0, noise, (pixels, pixels))
    return image.clip(-1, 1).astype(np.float32)


def egan_history(generations: int = 150) -> dict[str, list[float] | list[list[float]]]:
    rng = np.random.default_rng(1)
    time = np.linspace(0, 1, generations)
    history: dict[str, list[float] | list[list[float]]] = {
        "discriminator_loss": (1.4 - 0.5 * time + rng.normal(0, 0.05, generations)).tolist(),
        "selected": rng.integers(0, 3, (generations, 1)).astype(float).tolist(),
    }
    for index, name in enumerate(("minimax", "heuristic", "least_squares")):
        history[f"loss/{name}"] = rng.normal(0.5, 0.1, (generations, 1)).tolist()
        history[f"quality/{name}"] = (0.3 + 0.1 * index + 0.2 * time + rng.normal(0, 0.03, generations)).tolist()
        history[f"diversity/{name}"] = (-2 + index * 0.2 + rng.normal(0, 0.1, generations))[:, None].tolist()
    json.dumps(history)
    return history
