"""Whether a training has led to something: a collapsed pool or a pool of noise is a failure, not a result."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data.image_set import ImageSet
from trainables.errors import DivergedError
from trainables.generators.base import History
from trainables.generators.fitted import FittedGan

COLLAPSED_BELOW = 0.05
"""A pool is collapsed where a class's images differ less than this share of how much its real images differ."""
NOISE_ABOVE = 1.0
"""A pool is noise where its mean image is further from the real mean than real images are (``displacement``)."""
WON_BELOW = 1e-3
"""A discriminator that has this loss over the last quarter of a training has left the generator nothing to learn."""
JUDGED_FROM = 100
"""Steps from which noise is a failure, not a training that has hardly begun."""
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


def check_contest(curves: History) -> None:
    """Check that the discriminator has not won.

    Args:
        curves: of one training, with ``discriminator_loss``; fewer steps than ``JUDGED_FROM`` are not judged.

    Raises:
        DivergedError: in the last quarter it tells every generated image from the real ones (``WON_BELOW``).
    """
    losses_T = torch.tensor(curves["discriminator_loss"], dtype=torch.float64)
    last = len(losses_T) // 4
    if len(losses_T) >= JUDGED_FROM and float(losses_T[-last:].mean()) < WON_BELOW:
        raise DivergedError(
            f"the discriminator has won and the generator makes noise: over the last {last} steps the mean "
            f"discriminator_loss was {float(losses_T[-last:].mean()):.2g}; expected at least {WON_BELOW}. "
            "Lower generator.learning_rate."
        )


def check_images(fitted: FittedGan, train: ImageSet, *, steps: int, seed: int) -> None:
    """Check that the training has led to something.

    Args:
        fitted: the trained generator.
        train: the real images; a class of identical images may have identical images generated.
        steps: of the training; shorter ones than ``JUDGED_FROM`` are not expected to resemble anything.
        seed: of the images looked at.

    Raises:
        DivergedError: a class's images differ less than ``COLLAPSED_BELOW`` of how much its real images differ, or
            the images as a whole are ``NOISE_ABOVE`` as far off as a real image is from the mean.
    """
    pools = []
    for index, name in enumerate(train.classes):
        real_NCHW = train.images_NCHW[train.labels_N == index]
        if not len(real_NCHW):
            continue
        pool_NCHW = fitted.sample(index, 0, CHECKED_IMAGES, seed=seed)
        pools.append(pool_NCHW[torch.arange(len(real_NCHW)) % CHECKED_IMAGES])
        found, real = spread(pool_NCHW), spread(real_NCHW)
        if not found >= COLLAPSED_BELOW * real:
            raise DivergedError(
                f"the generator makes images that are all alike: those of class '{name}' differ by {found:.4f} "
                f"(standard deviation over {CHECKED_IMAGES} images, mean over pixels), real ones by {real:.4f}; "
                f"expected at least {COLLAPSED_BELOW:.0%} of that. Lower generator.learning_rate or change "
                "generator.steps."
            )
    off = displacement(torch.cat(pools), train.images_NCHW)
    if steps >= JUDGED_FROM and not off <= NOISE_ABOVE:
        raise DivergedError(
            f"the generator makes noise: after {steps} steps its mean image is {off:.2f} times as far from the mean "
            f"real image as real images are; expected at most {NOISE_ABOVE}. Lower generator.learning_rate."
        )
