"""Preprocessed, labelled images in memory: what generators, mixers and classifiers take and give."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    Args:
        images_NCHW: float32 in [-1, 1], C = 1, on the CPU.
        labels_N: int64 class indices into ``classes``.
        ids: N unique names; a synthetic image's says which class and index it has.
        patients: N patient names; empty strings for synthetic images.
        classes: the class names, in the order of the indices.

    Raises: ValueError if the lengths differ or a label has no class.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.images_NCHW)
        if self.images_NCHW.ndim != 4 or not count == len(self.labels_N) == len(self.ids) == len(self.patients):
            raise ValueError(
                f"an image set needs N images NCHW with N labels, ids and patients; got images "
                f"{tuple(self.images_NCHW.shape)}, {len(self.labels_N)} labels, {len(self.ids)} ids, "
                f"{len(self.patients)} patients."
            )
        if count and not 0 <= int(self.labels_N.min()) <= int(self.labels_N.max()) < len(self.classes):
            raise ValueError(f"labels must be indices of the {len(self.classes)} classes {self.classes}.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pixels(self) -> int:
        """Height (and width) of the images."""
        return int(self.images_NCHW.shape[-1])

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of images of each class."""
        return tuple(int(count) for count in torch.bincount(self.labels_N, minlength=len(self.classes)))

    def subset(self, indices_M: Tensor) -> ImageSet:
        """The images at the given positions (int64), in that order."""
        positions = indices_M.tolist()
        return ImageSet(
            images_NCHW=self.images_NCHW[indices_M],
            labels_N=self.labels_N[indices_M],
            ids=tuple(self.ids[position] for position in positions),
            patients=tuple(self.patients[position] for position in positions),
            classes=self.classes,
        )

    @property
    def digest(self) -> str:
        """32 hexadecimal digits over pixels, labels, ids, patients and classes."""
        hasher = hashlib.blake2b(digest_size=16)
        hasher.update(repr((self.ids, self.patients, self.classes, tuple(self.images_NCHW.shape))).encode())
        hasher.update(self.labels_N.numpy().tobytes())
        hasher.update(self.images_NCHW.contiguous().numpy().tobytes())
        return hasher.hexdigest()
