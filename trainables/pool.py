"""The pool of synthetic images: which of them a trial takes, and how they are made and stored in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from spaces.config import SyntheticConfig
from trainables.data.image_set import ImageSet
from trainables.errors import EmptyPoolError
from trainables.files import write_json
from trainables.generators.base import FittedGenerator

STAGE_VERSION = 2
CHUNK = 64
"""Images of one class in one pool stage."""


def shares(real_counts: Sequence[int], config: SyntheticConfig) -> tuple[int, ...]:
    """How many synthetic images of each class a trial takes.

    Args:
        real_counts: real training images of each class.
        config: ``ratio`` of synthetic to real images in all; with ``balance`` the smallest classes are filled up to a
            common level first, without it the classes keep their proportions.

    Returns:
        One number per class; they sum to round(ratio x real images). Rounded by largest remainder, earlier class first.

    Raises:
        EmptyPoolError: they are all 0.

    Source: methods, order of things in a fold, step 4.
    """
    total = round(config.ratio * sum(real_counts))
    if not total:
        raise EmptyPoolError(
            f"synthetic.ratio is {config.ratio:g}, of {sum(real_counts)} real training images, which gives no "
            f"synthetic image; expected at least one. "
            f"Raise synthetic.ratio, to {1 / sum(real_counts):.2g} for one image."
        )
    if not config.balance:
        return largest_remainder([total * count / sum(real_counts) for count in real_counts], total)
    level = _water_level(sorted(real_counts), total)
    return largest_remainder([max(0.0, level - count) for count in real_counts], total)


def _water_level(ascending: Sequence[int], total: int) -> float:
    """The level up to which ``total`` images fill the classes, smallest first."""
    for filled in range(1, len(ascending)):
        level = (total + sum(ascending[:filled])) / filled
        if level <= ascending[filled]:
            return level
    return (total + sum(ascending)) / len(ascending)


def largest_remainder(exact: Sequence[float], total: int) -> tuple[int, ...]:
    """Whole numbers near those given that sum to ``total``; of equal remainders the earlier one is rounded up."""
    rounded = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: (rounded[index] - exact[index], index))
    for index in by_remainder[: total - sum(rounded)]:
        rounded[index] += 1
    return tuple(rounded)


def chunks(counts: Sequence[int]) -> list[tuple[int, int]]:
    """The chunks, as (class index, index of the first image), that hold the first ``counts`` images of each class."""
    return [(label, start) for label, count in enumerate(counts) for start in range(0, count, CHUNK)]


def write_chunk(folder: Path, generator: FittedGenerator, class_index: int, start: int, *, seed: int) -> torch.Tensor:
    """Make one chunk of the pool and write it as ``images.npy`` (float32, CHUNK x 1 x P x P) and ``chunk.json``.

    Returns: its images.
    """
    images_NCHW = generator.sample(class_index, start, CHUNK, seed=seed)
    np.save(folder / "images.npy", images_NCHW.numpy(), allow_pickle=False)
    write_json(folder / "chunk.json", {"class_index": class_index, "start": start})
    return images_NCHW


def take(folders: Sequence[Path], counts: Sequence[int], classes: tuple[str, ...]) -> ImageSet:
    """The first ``counts`` images of each class from the chunks that ``chunks(counts)`` names, in that order."""
    images: list[torch.Tensor] = []
    labels: list[int] = []
    ids: list[str] = []
    for folder, (label, start) in zip(folders, chunks(counts), strict=True):
        count = min(CHUNK, counts[label] - start)
        stored = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        images.append(torch.from_numpy(np.array(stored[:count])))
        labels += [label] * count
        ids += [f"synthetic/{classes[label]}/{start + index:06d}" for index in range(count)]
    return ImageSet(
        images_NCHW=torch.cat(images),
        labels_N=torch.tensor(labels, dtype=torch.int64),
        ids=tuple(ids),
        patients=("",) * len(ids),
        classes=classes,
    )
