"""Examples of what a mixer makes, for figures (GenMix, figure 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.data.image_set import ImageSet
from trainables.mixers.base import Augment, Mixer

BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixedExamples:
    """Some of a mixer's images, class by class.

    Args:
        images: labelled with the class of the largest weight, the first of equals; without patients.
        weight_N: float32, that class's weight in the target, at least 1 / K.
    """

    images: ImageSet
    weight_N: Tensor


def mixed_examples(
    mixer: Mixer,
    real: ImageSet,
    synthetic: ImageSet | None,
    *,
    per_class: int,
    augment: Augment,
    rng: torch.Generator,
) -> MixedExamples:
    """The first images of each class in one epoch of a mixer, in the epoch's random order.

    Args:
        mixer: whose images are wanted; one with a consistency loss shows its augmented versions.
        real: the training fold's real images.
        synthetic: this trial's share of the pool; None for mixers that use none.
        per_class: how many of each class; fewer where the epoch has fewer.
        augment: applied to every source image, as in training.
        rng: CPU generator; with equal state the examples are equal.

    Returns:
        The examples, sorted by class.

    Raises:
        EmptyPoolError: the mixer needs synthetic images and there are none.
        DataError: fewer than two real images.
    """
    batches = list(mixer.epoch(real, synthetic, batch_size=BATCH, augment=augment, rng=rng))
    images_NCHW = torch.cat([batch.views[0] if batch.views else batch.images_NCHW for batch in batches])
    weight_N, label_N = torch.cat([batch.targets_NK for batch in batches]).max(dim=1)
    chosen_M = torch.cat([(label_N == label).nonzero().flatten()[:per_class] for label in range(len(real.classes))])
    images = ImageSet(
        images_NCHW=images_NCHW[chosen_M],
        labels_N=label_N[chosen_M],
        ids=tuple(f"mixed/{position}" for position in chosen_M.tolist()),
        patients=("",) * len(chosen_M),
        classes=real.classes,
    )
    return MixedExamples(images=images, weight_N=weight_N[chosen_M])
