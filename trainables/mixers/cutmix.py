"""CutMix of real with real images (Yun et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spaces.config import CutmixConfig
from trainables.data.image_set import ImageSet
from trainables.mixers.base import Augment, Batch
from trainables.mixers.epochs import in_batches, sources
from trainables.mixers.interpolation import beta_symmetric, mix


def boxes(weight_N: Tensor, centre_2N: Tensor, *, height: int, width: int) -> Tensor:
    """The pixels that each image takes from its partner: a box of the share ``1 - weight`` of the area.

    The box has the image's aspect; half its sides are rounded down to whole pixels, and it is cut off at the borders.

    Args:
        weight_N: float32 in [0, 1], the share that an image keeps.
        centre_2N: int64 rows and columns of the boxes' centres.
        height: rows of an image.
        width: columns of an image.

    Returns:
        bool (N, height, width), true inside the box.

    Source: CutMix, equation 2, with the rounding and clipping of the authors' code.
    """
    side_N = (1 - weight_N.double()).sqrt()
    inside_NH = _within((height * side_N).long() // 2, centre_2N[0], height)
    inside_NW = _within((width * side_N).long() // 2, centre_2N[1], width)
    return inside_NH[:, :, None] & inside_NW[:, None, :]


def _within(half_N: Tensor, centre_N: Tensor, size: int) -> Tensor:
    """Which positions lie in [centre - half, centre + half): bool (N, size)."""
    offset_NL = torch.arange(size, device=centre_N.device) - centre_N[:, None]
    return (offset_NL >= -half_N[:, None]) & (offset_NL < half_N[:, None])


class Cutmix:
    """Each real image meets one real partner per epoch, a permutation of the images, which replaces a box of it.

    Box area ``1 - lambda`` with lambda ~ Beta(alpha, alpha), its centre uniform over the pixels, both drawn for each
    image. The labels are mixed by the share of pixels that was in fact replaced.
    """

    def __init__(self, config: CutmixConfig) -> None:
        self._config = config

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of one epoch; ``synthetic`` is not used. See ``Mixer.epoch``."""
        order_N = torch.randperm(len(real), generator=rng)
        source = sources(real, augment=augment, rng=rng)
        partner_N = torch.randperm(len(real), generator=rng).to(source.device)
        height, width = source.images_NCHW.shape[-2:]
        drawn_N = beta_symmetric(self._config.cutmix_alpha, len(real), rng=rng)
        centre_2N = torch.stack([torch.randint(size, (len(real),), generator=rng) for size in (height, width)])
        box_NHW = boxes(drawn_N.to(source.device), centre_2N.to(source.device), height=height, width=width)
        kept_N = 1 - box_NHW.float().mean(dim=(1, 2))
        mixed = Batch(
            images_NCHW=torch.where(box_NHW[:, None], source.images_NCHW[partner_N], source.images_NCHW),
            targets_NK=mix(source.targets_NK, source.targets_NK[partner_N], kept_N),
        )
        return in_batches(mixed, order_N, batch_size)
