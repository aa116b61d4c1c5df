"""Whether a training has led to something: a collapsed pool or a pool of noise is a failure, not a result."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.data.image_set import ImageSet
from trainables.errors import DivergedError
from trainables.generators.base import FittedGenerator

COLLAPSED_BELOW = 0.05
"""A pool is collapsed where a class's images differ less than this share of how much its real images differ."""
NOISE_ABOVE = 1.0
"""A pool is noise where its mean image is further from the real mean than real images are (``displacement``)."""
JUDGED_AFTER = 3200
"""Images shown from which noise is a failure, not a training that has hardly begun."""
CHECKED_IMAGES = 64


def spread(images_NCHW: Tensor) -> float:
    """How much images differ: the standard deviation over images, averaged over pixels; 0 if all are alike."""
    return float(images_NCHW.std(dim=0, correction=0).mean())


def displacement(images_NCHW: Tensor, real_NCHW: Tensor) -> float:
    """How far images lie off: the distance between the two mean images, relative to real images' own distances.

    Returns:
        Root mean square distance of the mean images, divided by that of the real images from their mean; about 0
        to 0.8 for images that resemble the real ones, more than 1 for noise.
    """
    mean_CHW = real_NCHW.mean(dim=0)
    own = float((real_NCHW - mean_CHW).square().mean().sqrt())
    off = float((images_NCHW.mean(dim=0) - mean_CHW).square().mean().sqrt())
    return off / own if own else 0.0


def check_preview(
    images_by_class: Mapping[int, Tensor], train: ImageSet, *, steps: int, were_alike: frozenset[int]
) -> frozenset[int]:
    """Look at a training in progress, so that a collapsed one ends early.

    Args:
        images_by_class: a few images NCHW of each class that has training images.
        train: the real images.
        steps: done so far.
        were_alike: what the last look found: one look alone may be a passing state.

    Returns:
        The classes whose images are all alike now.

    Raises:
        DivergedError: those of one are, and were before.
    """
    alike = set()
    for index, images_NCHW in images_by_class.items():
        real, found = spread(train.images_NCHW[train.labels_N == index]), spread(images_NCHW)
        if not found >= COLLAPSED_BELOW * real:
            alike.add(index)
            if index in were_alike:
                raise DivergedError(_alike(train.classes[index], found, real, len(images_NCHW), f"after {steps} steps"))
    return frozenset(alike)


def check_class(
    images_NCHW: Tensor,
    train: ImageSet,
    class_index: int,
    *,
    when: str,
    sampling: Mapping[str, object] | None = None,
) -> None:
    """Check that images of one class are not all alike, as far as its real images are not.

    Args:
        images_NCHW: of the class.
        train: the real images.
        class_index: the class.
        when: in what state the generator made them, for the message.
        sampling: the trial's own settings that they were made with, for the message.

    Raises:
        DivergedError: they are.
    """
    found, real = spread(images_NCHW), spread(train.images_NCHW[train.labels_N == class_index])
    if not found >= COLLAPSED_BELOW * real:
        when += _made_with(sampling)
        raise DivergedError(_alike(train.classes[class_index], found, real, len(images_NCHW), when, sampling))


def check_images(fitted: FittedGenerator, train: ImageSet, *, steps: int, batch_size: int, seed: int) -> None:
    """Check that a generator makes something, as it samples.

    Args:
        fitted: the trained generator.
        train: the real images; a class of identical images may have identical images generated.
        steps: of the training.
        batch_size: real images of a step.
        seed: of the images looked at.

    Raises:
        DivergedError: the images of a class are all alike (``check_class``), or all of them noise (``check_noise``).
    """
    pools = []
    for index in range(len(train.classes)):
        real_NCHW = train.images_NCHW[train.labels_N == index]
        if not len(real_NCHW):
            continue
        pool_NCHW = fitted.sample(index, 0, CHECKED_IMAGES, seed=seed)
        pools.append(pool_NCHW[torch.arange(len(real_NCHW)) % CHECKED_IMAGES])
        check_class(pool_NCHW, train, index, when="at the end")
    check_noise(torch.cat(pools), train, steps=steps, batch_size=batch_size)


def check_noise(
    images_NCHW: Tensor, train: ImageSet, *, steps: int, batch_size: int, sampling: Mapping[str, object] | None = None
) -> None:
    """Check that images are not far off the real ones, as a whole.

    Args:
        images_NCHW: as many of each class as there are real ones.
        train: the real images.
        steps: of the training.
        batch_size: real images of a step; a generator that was shown fewer than ``JUDGED_AFTER`` is not expected to
            resemble anything.
        sampling: the trial's own settings that the images were made with, for the message.

    Raises:
        DivergedError: their mean is ``NOISE_ABOVE`` as far off as a real image is from the mean.
    """
    off = displacement(images_NCHW, train.images_NCHW)
    if steps * batch_size < JUDGED_AFTER or off <= NOISE_ABOVE:
        return
    raise DivergedError(
        f"the generator makes noise: after {steps} steps{_made_with(sampling)}, its mean image is {off:.2f} times as "
        f"far from the mean real image as real images are; expected at most {NOISE_ABOVE}. It has not got there yet or "
        f"left again: raise generator.steps, or change generator.learning_rate{_or_others(sampling)}."
    )


def _alike(
    name: str, found: float, real: float, count: int, when: str, sampling: Mapping[str, object] | None = None
) -> str:
    return (
        f"the generator makes images that are all alike: {when}, those of class '{name}' differ by {found:.4f} "
        f"(standard deviation over {count} images, mean over pixels), real ones by {real:.4f}; expected at least "
        f"{COLLAPSED_BELOW:.0%} of that. Lower generator.learning_rate, or change generator.steps"
        f"{_or_others(sampling)}."
    )


def _made_with(sampling: Mapping[str, object] | None) -> str:
    return f", sampled with {dict(sampling)}" if sampling else ""


def _or_others(sampling: Mapping[str, object] | None) -> str:
    return "".join(f" or generator.{name}" for name in sampling or ())
