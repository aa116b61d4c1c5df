"""Synthetic images as files that say what they are: by their names, inside, in the labels and in a manifest."""

from __future__ import annotations

import csv
import hashlib
import re
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from search.settings import SettingsError
from trainables.data.image_set import ImageSet
from trainables.data.labels import LABELS_FILE, SYNTHETIC, SYNTHETIC_YES
from trainables.data.resampling import Scaling
from trainables.files import write_json

MANIFEST = "manifest.json"
PREFIX = "synthetic_"
"""Begins the name of every file that shows a synthetic image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How files are written.

    Args:
        file_format: "mha": float32 in the units of the training files, with a pixel spacing where these had one; or
            "png": 8 bits, the generator's whole range.
        scaling: what -1 and 1 are in these units.
        marks: what every file says of itself, by the field that says it.
    """

    file_format: str
    scaling: Scaling
    marks: Mapping[str, str]


def write_folder(out: Path, images: ImageSet, writing: Writing, manifest: Mapping[str, Any]) -> None:
    """Write images, their labels and a manifest; they appear when all of it is there, the manifest last.

    Args:
        out: a folder that is empty or does not exist.
        images: the synthetic images.
        writing: how.
        manifest: what they are; the digests of the files are added.

    Raises:
        SettingsError: the folder cannot be written, or is no longer empty.
    """
    place = out.resolve()
    is_there = place.exists()
    building = (place if is_there else place.parent) / f".{place.name}-{secrets.token_hex(4)}"
    try:
        building.mkdir()
        names = file_names(images, writing.file_format)
        write = _WRITERS[writing.file_format]
        for name, image_HW in zip(names, images.images_NCHW[:, 0].numpy(), strict=True):
            write(building / name, image_HW, writing)
        labels = [images.classes[label] for label in images.labels_N.tolist()]
        _write_labels(building / LABELS_FILE, names, labels)
        files = {
            name: {"label": label, "sha256": _sha256(building / name)}
            for name, label in zip(names, labels, strict=True)
        }
        write_json(building / MANIFEST, {**manifest, "files": files})
        if not is_there:
            building.rename(place)
        elif list(place.iterdir()) != [building]:
            raise SettingsError(f"--out '{out}' is not empty any more; name a new folder.")
        else:
            for name in (*names, LABELS_FILE, MANIFEST):
                (building / name).rename(place / name)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def unwritable(out: Path, error: Exception) -> SettingsError:
    """The sentence for a folder that cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return SettingsError(f"--out '{out}' cannot be written ({reason}); name a new folder where there is room.")


def file_names(images: ImageSet, file_format: str) -> list[str]:
    """A name for each image: that it is synthetic, its class in plain letters, its number within the class."""
    plain = [_plain(name) for name in images.classes]
    words = [word if plain.count(word) == 1 else f"{word}-{index}" for index, word in enumerate(plain)]
    seen = [0] * len(words)
    names = []
    for label in images.labels_N.tolist():
        names.append(f"{PREFIX}{words[label]}_{seen[label]:06d}.{file_format}")
        seen[label] += 1
    return names


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", letters).strip("-")[:60] or "class"


def _write_mha(path: Path, image_HW: NDArray[np.float32], writing: Writing) -> None:
    scaling, pixels = writing.scaling, len(image_HW)
    values_HW = scaling.low + (image_HW.astype(np.float64) + 1) * (scaling.high - scaling.low) / 2
    image = sitk.GetImageFromArray(values_HW.astype(np.float32))
    if scaling.field_of_view is not None:
        image.SetSpacing((scaling.field_of_view / pixels,) * 2)
    for field, text in writing.marks.items():
        image.SetMetaData(field, text)
    sitk.WriteImage(image, str(path))


def _write_png(path: Path, image_HW: NDArray[np.float32], writing: Writing) -> None:
    fields = PngInfo()
    for field, text in writing.marks.items():
        fields.add_text(field, text)
    Image.fromarray(((image_HW + 1) * 127.5).round().clip(0, 255).astype(np.uint8)).save(path, pnginfo=fields)


_WRITERS: Mapping[str, Callable[[Path, NDArray[np.float32], Writing], None]] = {"mha": _write_mha, "png": _write_png}


def _write_labels(path: Path, names: Sequence[str], labels: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", SYNTHETIC))
        writer.writerows((name, label, SYNTHETIC_YES) for name, label in zip(names, labels, strict=True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
