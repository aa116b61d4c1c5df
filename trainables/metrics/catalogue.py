"""The scores that a trial reports and a search can optimise; cheap to import, for command lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One score: its name, which direction is better, and what it means in one line."""

    name: str
    direction: Literal["maximize", "minimize"]
    meaning: str


def _catalogue(*scores: Score) -> Mapping[str, Score]:
    return MappingProxyType({score.name: score for score in scores})


IMAGE_SCORES: Mapping[str, Score] = _catalogue(
    Score(
        name="accuracy",
        direction="maximize",
        meaning="share of images whose most probable class is the true one",
    ),
    Score(
        name="balanced_accuracy",
        direction="maximize",
        meaning="mean sensitivity of the classes that occur; chance is 1 / classes whatever the imbalance",
    ),
    Score(
        name="macro_f1",
        direction="maximize",
        meaning="mean F1 of the classes that occur or are predicted",
    ),
    Score(
        name="auroc",
        direction="maximize",
        meaning="area under the ROC curve of the positive class; more than two classes: mean of one against the rest",
    ),
    Score(
        name="auprc",
        direction="maximize",
        meaning="average precision of the positive class; more than two classes: mean of one against the rest",
    ),
    Score(
        name="sensitivity",
        direction="maximize",
        meaning="TP / (TP + FN) of the positive class; more than two classes: mean of one against the rest",
    ),
    Score(
        name="specificity",
        direction="maximize",
        meaning="TN / (TN + FP) of the positive class; more than two classes: mean of one against the rest",
    ),
    Score(
        name="calibration_error",
        direction="minimize",
        meaning=f"expected calibration error of the predicted class, {CALIBRATION_BINS} bins of equal width",
    ),
)
"""Every score of ``classification.scores`` but the per-class ones, by name."""

OF_PATIENTS = "patient_"
"""What the name of a score over patients begins with."""

PATIENT_SCORES: Mapping[str, Score] = _catalogue(
    *(
        Score(
            name=f"{OF_PATIENTS}{name}",
            direction=IMAGE_SCORES[name].direction,
            meaning=f"{name} of patients, each judged by the mean probability over their images",
        )
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "auprc", "sensitivity", "specificity")
    )
)
"""Every score of ``patients.patient_scores``, by name; they exist where the patients of the images are known."""

SCORES: Mapping[str, Score] = MappingProxyType({**IMAGE_SCORES, **PATIENT_SCORES})
"""Every score that a search can optimise but the per-class ones, by name."""


WITH_INTERVALS = (
    "balanced_accuracy",
    "auroc",
    "accuracy",
    "macro_f1",
    f"{OF_PATIENTS}balanced_accuracy",
    f"{OF_PATIENTS}auroc",
)
"""The scores of which a completed trial has an interval over patients; the last two where patients are known."""


SECONDS = "seconds"
"""What a fold costs, as an objective of a search: the seconds of its stages, as if none had been found in the store."""


def maximizes(name: str) -> bool:
    """Whether more of a score is better; scores per class (``sensitivity_CLASS``) are all of that kind."""
    return name != SECONDS and (name not in SCORES or SCORES[name].direction == "maximize")
