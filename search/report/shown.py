"""What the images of the best trial look like: sheets, closest pairs, a generator's course, the feature map."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from mlflow_tracking import names
from mlflow_tracking.notes import trial_name
from mlflow_tracking.pictures import PicturesMissing, draw_map, draw_pictures, has_map
from search.report.charts import Figure, Picture
from search.report.facts import Facts, generator
from trainables.feature_map import FOLDER
from trainables.ledger import Ledger
from trainables.results import TrialResult

_KINDS = {
    names.SHEET_FILE: (
        "Real and synthetic images",
        "For each class real images above synthetic ones: look for synthetic images that no radiologist would take "
        "for the class, and for all of them looking alike.",
    ),
    names.MIXED_FILE: (
        "Real, synthetic and mixed images",
        "What the classifier was trained on; a mixed image should still show the class that weighs most in its label.",
    ),
    names.PAIRS_FILE: (
        "Closest pairs",
        "The synthetic images that are closest to a training image, beside it: if they look the same, the generator "
        "copies patients.",
    ),
    names.SAMPLES_FILE: (
        "Samples over training",
        "The same noise at several moments of the training: images that still change at the end could have been "
        "trained for longer.",
    ),
    names.CURVES_FILE: (
        "Training of the generator",
        "Losses and, of an evolved generator, which mutation was selected: one that is never selected is not needed, "
        "a loss that runs off is a training that fell apart.",
    ),
    names.MAP_FILE: (
        "Feature map (t-SNE)",
        "How the trained classifier sees training images: synthetic ones that stand apart from the real ones of "
        "their class are told from them at a glance.",
    ),
}


def pictures(facts: Facts, ledger: Ledger) -> list[Figure]:
    """A figure for each kind of picture, of the best trial that has a generator, else of the best; drawn anew."""
    trial = subject(facts)
    if trial is None:
        return [Figure(name="images", heading="Images", caption="No trial is complete, so no images are shown.")]
    title, record = trial_name(trial), facts.record
    kept: dict[str, bytes] = {}
    missing: list[str] = []

    def draw(make: Callable[[Path], list[Path]]) -> None:
        with tempfile.TemporaryDirectory(prefix="genmix-") as folder:
            try:
                kept.update({path.name: path.read_bytes() for path in make(Path(folder))})
            except PicturesMissing as error:
                missing.append(str(error))

    draw(lambda folder: draw_pictures(ledger.storage, record, trial, title, folder))
    stored = ledger.trial_folder(trial.id) / FOLDER
    if has_map(stored):
        draw(lambda folder: draw_map(stored, record, title, folder))
    figures = [_figure(name, kept[name], trial) for name in _KINDS if name in kept]
    figures += [
        Figure(name="images", heading="Images", caption=f"Of {trial.id} there are no pictures: {reason}.")
        for reason in missing[:1]
    ]
    if not record.show_images:
        figures.append(
            Figure(
                name="images",
                heading="Images",
                caption="The search was run with --no-images: no patient's image is shown, and no synthetic one, as it "
                "may be a copy.",
            )
        )
    return figures


def subject(facts: Facts) -> TrialResult | None:
    """The trial whose images are shown."""
    with_generator = (trial for trial in facts.ranked if generator(trial) != "none" and trial.folds)
    return next(with_generator, facts.ranked[0] if facts.ranked else None)


def _figure(name: str, png: bytes, trial: TrialResult) -> Figure:
    heading, caption = _KINDS[name]
    picture = Picture(name=Path(name).stem, png=png, meaning=f"{heading} of {trial.id}")
    return Figure(name=Path(name).stem, heading=heading, caption=f"{caption} Trial {trial.id}.", pictures=(picture,))
