"""A trial's pictures: from the stages of its first finished fold, and from its feature map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlflow_tracking import names
from mlflow_tracking.feature_figure import feature_figure
from mlflow_tracking.figures import COLUMNS, Images, Labels, image_sheet
from mlflow_tracking.mixed_sheet import mixed_sheet
from mlflow_tracking.samples import closest_pairs, samples_over_training
from mlflow_tracking.training_curves import training_curves
from trainables.data.image_files import load_image_set
from trainables.feature_map import KINDS, NAMES_FILE, FeatureMap
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
    """Draw what there is to see of a trial: its images and, for a trained generator, its course and closest copies.

    Where the search shows no images, a generator's course is all that is drawn: synthetic images may be copies.

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
        uses_synthetic = any(True for _ in _keys(fold, "pool"))
        subject = _subject(search, f"{title}, training fold {fold.fold}", uses_synthetic=uses_synthetic)
        if not search.show_images:
            return list(_draw_course(stages, fold, search.data.classes, subject, folder))
        real = load_image_set(_folder(stages, fold, "preprocess"))
        synthetic = _synthetic(stages, fold)
        sheet = folder / names.SHEET_FILE
        image_sheet(
            real.images_NCHW.numpy(),
            real.labels_N.numpy(),
            None if synthetic is None else synthetic.images_NCHW,
            None if synthetic is None else synthetic.labels_N,
            real.classes,
            subject,
            sheet,
        )
        course = _draw_course(stages, fold, real.classes, subject, folder)
        return [sheet, *course, *_draw_samples(stages, fold, subject, folder)]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PicturesMissing(f"the storage has no readable images of fold {fold.fold} any more") from error


def has_map(folder: Path) -> bool:
    """Whether a trial's folder for its feature map holds a whole one."""
    return (folder / NAMES_FILE).is_file()


def draw_map(stored: Path, search: SearchRecord, title: str, folder: Path) -> list[Path]:
    """Draw a trial's feature map, which takes seconds, and the sheet of its mixed images.

    Args:
        stored: the folder that the map lies in.
        search: says where the images come from, and whether images are shown: if not, points are all that is drawn.
        title: the trial's name.
        folder: where to write the PNG files.

    Returns:
        The files written.

    Raises:
        PicturesMissing: there is no map that can be read.
    """
    try:
        found = FeatureMap.read(stored)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PicturesMissing("the feature map cannot be read") from error
    uses_synthetic = bool((found.kind_M == KINDS.index("synthetic")).any())
    subject = _subject(search, f"{title}, training fold 0", uses_synthetic=uses_synthetic)
    plot, sheet = folder / names.MAP_FILE, folder / names.MIXED_FILE
    drawn = [plot] if feature_figure(found, f"Feature map, {subject}", plot) else []
    if search.show_images and mixed_sheet(found, f"Training images, {subject}", sheet):
        drawn.append(sheet)
    return drawn


def _subject(search: SearchRecord, what: str, *, uses_synthetic: bool) -> str:
    """What a picture shows, with what its reader must know."""
    return "\n".join((what, *caveats(search, uses_synthetic=uses_synthetic)))


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


def _draw_course(stages: Path, fold: FoldResult, classes: Sequence[str], subject: str, folder: Path) -> Iterator[Path]:
    """Draw the curves of the generator's training, which show no image; yields nothing where there are none."""
    curves, trained = folder / names.CURVES_FILE, _folder(stages, fold, "generator")
    if (trained / "history.json").is_file():
        history = read_json(trained / "history.json")
        if training_curves(history, classes, f"Training, {subject}", curves, gamma=_gamma(trained)):
            yield curves


def _draw_samples(stages: Path, fold: FoldResult, subject: str, folder: Path) -> Iterator[Path]:
    """Draw what the generator made, over its training and closest to training images; yields what there was of it."""
    samples, pairs = folder / names.SAMPLES_FILE, folder / names.PAIRS_FILE
    trained, compared = _folder(stages, fold, "generator"), _folder(stages, fold, "fidelity")
    if (trained / "previews.npy").is_file():
        facts = read_json(trained / "previews.json")
        images_TKMHW = np.load(trained / "previews.npy", allow_pickle=False)
        title = f"Samples over training, {subject}\nEach column keeps its noise"
        if samples_over_training(images_TKMHW, facts["steps"], facts["classes"], title, samples):
            yield samples
    if (compared / "pairs.npy").is_file():
        from trainables.metrics.fidelity import read_pairs  # scikit-learn takes seconds to import

        if closest_pairs(read_pairs(compared), f"Closest pairs, {subject}{_copy_rate(fold)}", pairs):
            yield pairs


def _gamma(trained: Path) -> float | None:
    """The weight of diversity that a generator was trained with, as its stage recorded it; None where it has none."""
    manifest = trained / "stage.json"
    gamma = read_json(manifest)["key"]["config"].get("gamma") if manifest.is_file() else None
    return None if gamma is None else float(gamma)


def _copy_rate(fold: FoldResult) -> str:
    """A line on how many of all synthetic images count as copies; nothing where that is not known."""
    rate = fold.fidelity.get("copy_rate")
    return "" if rate is None else f"\nOf all synthetic images compared, {rate:.1%} count as copies"
