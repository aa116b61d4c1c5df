"""An image set as files in a folder: arrays that can be memory-mapped, and names as JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from trainables.data.image_set import ImageSet
from trainables.files import read_json, write_json


def save_image_set(folder: Path, images: ImageSet) -> None:
    """Write ``images.npy``, ``labels.npy`` and ``names.json`` into an existing folder."""
    np.save(folder / "images.npy", images.images_NCHW.numpy(), allow_pickle=False)
    np.save(folder / "labels.npy", images.labels_N.numpy(), allow_pickle=False)
    names = {"ids": images.ids, "patients": images.patients, "classes": images.classes}
    write_json(folder / "names.json", names)


def load_image_set(folder: Path) -> ImageSet:
    """Read what ``save_image_set`` wrote; the images are a memory map, one for all processes that read them.

    Writing into them changes this process's copy of the page alone. Raises: OSError, ValueError on missing or malformed
    files.
    """
    names = read_json(folder / "names.json")
    return ImageSet(
        images_NCHW=torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)),
        labels_N=torch.from_numpy(np.load(folder / "labels.npy", allow_pickle=False)),
        ids=tuple(names["ids"]),
        patients=tuple(names["patients"]),
        classes=tuple(names["classes"]),
    )
