"""What a mixer is: it composes the training batches of one epoch from real and synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from trainables.data.image_set import ImageSet

Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""Transforms float32 images NCHW in [-1, 1], each on its own, on their device; the draws come from a CPU generator. The
identity where ``affine`` is off."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One training batch with soft labels, all of it on one device.

    Args:
        images_NCHW: float32 in [-1, 1].
        targets_NK: float32, rows sum to 1: the weight of each class.
        views: further versions of the same images, float32 NCHW in [-1, 1] each, for a consistency loss; empty where
            there is none.
        consistency: weight of the Jensen-Shannon divergence between the images' and the views' predictions.
    """

    images_NCHW: Tensor
    targets_NK: Tensor
    views: tuple[Tensor, ...] = ()
    consistency: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.images_NCHW.device


class Mixer(Protocol):
    """Composes epochs; holds its configuration and nothing else."""

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of one epoch, composed on the device that the images lie on.

        Args:
            real: the training fold's real images.
            synthetic: this trial's share of the pool, on the same device; None for mixers that use none.
            batch_size: images per batch; the last may be smaller but never a single image.
            augment: applied to every source image, real and synthetic, before mixing.
            rng: CPU generator; every draw of the epoch comes from it.

        Raises:
            EmptyPoolError: if the mixer needs synthetic images and there are none.
        """
