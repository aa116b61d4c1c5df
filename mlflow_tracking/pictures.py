"""A trial's pictures from the stages of its first finished fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlflow_tracking import names
from mlflow_tracking.figures import COLUMNS, Images, Labels, image_sheet, mutation_history
from trainables.data.image_files import load_image_set
from trainables.files import read_json
from trainables.ledger import SHARED, SearchRecord
from trainables.results import FoldResult, TrialResult


class PicturesMissing(Exception):  # noqa: N818 - nothing is wrong: stages may be cleaned up
    """The stages that the pictures would show are not in the storage (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Synthetic:
    images_NCHW: Images
    labels_N: Labels


def draw_pictures(storage: Path, search: SearchRecord, trial: TrialResult, title: str, folder: Path) -> list[Path]:
    """Draw what there is to see of a trial: a sheet of images and, for a trained generator, its curves.

    Args:
        storage: the storage with the shared stages.
        search: says where the images come from and how long the training was.
        trial: has at least one finished fold.
        title: the trial's name.
        folder: where to write the PNG files.

    Returns:
        The files written.

    Raises:
        PicturesMissing: the stages are not there or cannot be read.
    """
    fold = trial.folds[0]
    stages = storage / SHARED / "stages"
    try:
        real = load_image_set(_folder(stages, fold, "preprocess"))
        synthetic = _synthetic(stages, fold)
        sheet = folder / names.SHEET_FILE
        image_sheet(
            real.images_NCHW.numpy(),
            real.labels_N.numpy(),
            None if synthetic is None else synthetic.images_NCHW,
            None if synthetic is None else synthetic.labels_N,
            real.classes,
            "\n".join((f"{title}, training fold {fold.fold}", *caveats(search, uses_synthetic=synthetic is not None))),
            sheet,
        )
        curves = folder / names.MUTATIONS_FILE
        return [sheet, curves] if _draw_training(stages, fold, curves) else [sheet]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PicturesMissing(f"the storage has no readable images of fold {fold.fold} any more") from error


def caveats(search: SearchRecord, *, uses_synthetic: bool) -> tuple[str, ...]:
    """What a reader of the pictures must know: that the data is made up, or the generators undertrained."""
    found = []
    if search.data.is_phantom:
        found.append("Real images: synthetic phantom data, no patients")
    if search.budget == "quick" and uses_synthetic:
        found.append("Synthetic images: undertrained (quick budget)")
    return tuple(found)


def _folder(stages: Path, fold: FoldResult, name: str) -> Path:
    return stages / name / next(_keys(fold, name), "missing")


def _keys(fold: FoldResult, name: str) -> Iterator[str]:
    return (stage.key for stage in fold.stages if stage.name == name)


def _synthetic(stages: Path, fold: FoldResult) -> _Synthetic | None:
    """The first synthetic images of each class; None where the trial made none."""
    by_class: dict[int, Images] = {}
    for key in _keys(fold, "pool"):
        chunk = read_json(stages / "pool" / key / "chunk.json")
        if chunk["start"] == 0:
            stored = np.load(stages / "pool" / key / "images.npy", mmap_mode="r", allow_pickle=False)
            by_class[int(chunk["class_index"])] = np.array(stored[:COLUMNS], dtype=np.float32)
    if not by_class:
        return None
    labels = [np.full(len(images), label, dtype=np.int64) for label, images in by_class.items()]
    return _Synthetic(images_NCHW=np.concatenate(list(by_class.values())), labels_N=np.concatenate(labels))


def _draw_training(stages: Path, fold: FoldResult, path: Path) -> bool:
    key = next(_keys(fold, "generator"), None)
    return key is not None and mutation_history(read_json(stages / "generator" / key / "history.json"), path)
