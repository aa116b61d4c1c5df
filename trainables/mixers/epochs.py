"""What every mixer's epoch is made of: augmented sources with one-hot targets, and their split into batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from trainables.data.image_set import ImageSet
from trainables.errors import DataError, EmptyPoolError
from trainables.mixers.base import Augment, Batch


def sources(*sets: ImageSet, augment: Augment, rng: torch.Generator) -> Batch:
    """All images of the sets, one after the other, each augmented once, with one-hot targets, where the images are.

    Raises: ValueError if the sets do not share their classes.
    """
    classes = sets[0].classes
    if any(each.classes != classes for each in sets):
        raise ValueError(f"sets to be mixed need the same classes; got {[each.classes for each in sets]}.")
    images_NCHW = torch.cat([each.images_NCHW for each in sets])
    labels_N = torch.cat([each.labels_N for each in sets])
    return Batch(images_NCHW=augment(images_NCHW, rng), targets_NK=one_hot(labels_N, len(classes)).float())


def required(synthetic: ImageSet | None, mixer: str) -> ImageSet:
    """The synthetic images. Raises: EmptyPoolError if there are none."""
    if synthetic is None or len(synthetic) == 0:
        raise EmptyPoolError(
            f"a mixer that needs synthetic images was given none: mixer.name={mixer}. "
            "Set generator.name to a generator and raise synthetic.ratio, or use a mixer that needs none, such as "
            "mixer.name=real or mixup."
        )
    return synthetic


def in_batches(samples: Batch, order_N: Tensor, batch_size: int) -> Iterator[Batch]:
    """Split an epoch's samples into batches.

    Args:
        samples: all samples of the epoch, on any device.
        order_N: int64 permutation of their positions, on any device.
        batch_size: samples per batch, at least 2. The last batch is smaller where the number does not divide;
            a single remaining sample joins the batch before it, as batch normalisation needs two.

    Raises:
        DataError: if the epoch has fewer than two samples.
    """
    count = len(order_N)
    if count < 2:
        raise DataError(f"an epoch needs at least 2 training images; got {count}. Add images or use fewer folds.")
    order_N = order_N.to(samples.images_NCHW.device)
    images_NCHW, targets_NK = samples.images_NCHW[order_N], samples.targets_NK[order_N]
    views = [view_NCHW[order_N] for view_NCHW in samples.views]
    starts = [start for start in range(0, count, batch_size) if count - start >= 2]
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        yield Batch(
            images_NCHW=images_NCHW[start:stop],
            targets_NK=targets_NK[start:stop],
            views=tuple(view_NCHW[start:stop] for view_NCHW in views),
            consistency=samples.consistency,
        )
