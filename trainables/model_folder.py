"""A model as a folder: the weights of a classifier, and all that is needed to use it on new images.

    FOLDER/classifier.safetensors   the weights
    FOLDER/model.json               what they are, how images are prepared for them, where they come from

Reading one runs no code that is in it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from spaces.config import ClassifierConfig, PreprocessConfig
from spaces.errors import InputError
from trainables.classifiers.trained import TrainedClassifier, load_classifier
from trainables.data.readers import Pixels, SliceRule
from trainables.data.resampling import Preparation, Scaling
from trainables.errors import DataError
from trainables.files import read_json, write_json

FORMAT = 1
"""Raised by hand when an older reader would misunderstand what is written."""
MODEL = "model"
"""The folder's name, in that of a search and among MLflow's artifacts."""
CARD = "model.json"
WEIGHTS = "classifier.safetensors"
WARNING = "A research model, trained to compare augmentation policies; not for clinical use."
_BEFORE = "-before"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A classifier with its own preparation of images.

    Args:
        search: name of the search that it comes from.
        trial: id of the trial whose policy it was trained by.
        key: names the training: two models with the same key have the same weights.
        classes: in the order of the probabilities.
        preprocess: the size of its images.
        scaling: field of view and intensities, fitted on its training images.
        slice_rule: which slice of a volume its training images were.
        has_regions: whether its training images were cut to regions of interest.
        seen: the pixel digests of the images that it was trained or stopped on.
        classifier: the network.
        card: all of ``model.json``.
    """

    search: str
    trial: str
    key: str
    classes: tuple[str, ...]
    preprocess: PreprocessConfig
    scaling: Scaling
    slice_rule: SliceRule
    has_regions: bool
    seen: frozenset[str]
    classifier: TrainedClassifier
    card: Mapping[str, Any]

    @property
    def preparation(self) -> Preparation:
        """What makes an image what the classifier sees, as its training images were made."""
        return Preparation(scaling=self.scaling, pixels=self.preprocess.pixels)

    def probabilities(self, prepared: Sequence[Pixels]) -> Tensor:
        """Class probabilities, float64 (N, K), of images (P, P) as ``preparation`` makes them, N >= 1."""
        return self.classifier.probabilities(torch.from_numpy(np.stack(prepared)[:, None]))


def write_model(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write a model; a reader sees the one that was there before, or the whole new one.

    Args:
        folder: where it lies; one that is there is replaced.
        weights: the classifier's state.
        card: what ``load_model`` reads and whatever else is to be known; the format, the warning and the digest of
            the weights are added.
    """
    put_back(folder)
    building = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    building.mkdir(parents=True)
    try:
        save_file(dict(weights), building / WEIGHTS)
        with (building / WEIGHTS).open("rb") as file:
            os.fsync(file.fileno())
        head = {"format": FORMAT, "what": "classifier of images", "warning": WARNING}
        write_json(building / CARD, {**head, **card, "weights": {"file": WEIGHTS, "blake2b": _digest(building)}})
        _put(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    for left in (*_aside(folder), *_aside(folder, _BEFORE)):
        shutil.rmtree(left, ignore_errors=True)


def put_back(folder: Path) -> None:
    """Give a model its place again where a writer was killed that had just taken it away."""
    with suppress(OSError):  # another process was faster, or nothing may be written here
        if not folder.exists() and (found := _aside(folder, _BEFORE)):
            max(found, key=lambda each: each.stat().st_mtime).rename(folder)


def _put(building: Path, folder: Path) -> None:
    """Give a whole folder its place, and move the one that was there aside."""
    while True:
        if folder.exists():
            folder.rename(building.with_name(building.name + _BEFORE))
        try:
            building.rename(folder)
        except OSError as error:  # a reader has put back what was moved aside
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return


def _aside(folder: Path, ending: str = "") -> list[Path]:
    """What writers of a model have beside it."""
    return list(folder.parent.glob(f".{escape(folder.name)}-{'[0-9a-f]' * 8}{ending}"))


def read_card(folder: Path) -> dict[str, Any]:
    """What a model's ``model.json`` says.

    Raises:
        DataError: there is none, or it is of another format.
    """
    put_back(folder)
    try:
        card = read_json(folder / CARD)
    except (OSError, ValueError) as error:
        raise _unusable(folder, f"{CARD}: {error}") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else None
        raise DataError(
            f"the model in '{folder}' has the format {found}; expected {FORMAT}. Use the version of this program that "
            f"wrote it, or refit the search."
        )
    return card


def load_model(folder: Path, device: torch.device) -> Model:
    """The model in a folder.

    Args:
        folder: as ``write_model`` wrote it.
        device: where the classifier computes.

    Raises:
        DataError: there is none, it is of another format, or it is damaged.
    """
    card = read_card(folder)
    try:
        if card["weights"]["blake2b"] != _digest(folder):
            raise ValueError(f"{WEIGHTS} is not the file that was written")
        settings, training, preparation = card["settings"], card["training"], card["preprocess"]
        classes = tuple(str(name) for name in card["classes"])
        config = ClassifierConfig(**settings["classifier"])
        return Model(
            search=str(card["search"]["name"]),
            trial=str(card["search"]["trial"]),
            key=str(training["key"]),
            classes=classes,
            preprocess=PreprocessConfig(**settings["preprocess"]),
            scaling=Scaling.from_dict(preparation),
            slice_rule=card["slice"],
            has_regions=bool(training["regions"]),
            seen=frozenset(training["seen"]),
            classifier=load_classifier(config, load_file(folder / WEIGHTS), len(classes), device),
            card=card,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, InputError) as error:
        raise _unusable(folder, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from None


def _unusable(folder: Path, reason: str) -> DataError:
    return DataError(
        f"'{folder}' holds no usable model ({reason}); expected {CARD} and {WEIGHTS} as they were written. Refit the "
        f"search, or copy the folder again."
    )


def _digest(folder: Path) -> str:
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
