"""Mixup of real with real images (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from spaces.config import MixupConfig
from trainables.data.image_set import ImageSet
from trainables.mixers.base import Augment, Batch
from trainables.mixers.epochs import in_batches, sources
from trainables.mixers.interpolation import beta_symmetric, mix


class Mixup:
    """Each real image meets one real partner per epoch: the partners are a permutation of the images."""

    def __init__(self, config: MixupConfig) -> None:
        self._config = config

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of one epoch; ``synthetic`` is not used. See ``Mixer.epoch``."""
        order_N = torch.randperm(len(real), generator=rng)
        source = sources(real, augment=augment, rng=rng)
        partner_N = torch.randperm(len(real), generator=rng).to(source.device)
        weight_N = beta_symmetric(self._config.mixup_alpha, len(real), rng=rng).to(source.device)
        mixed = Batch(
            images_NCHW=mix(source.images_NCHW, source.images_NCHW[partner_N], weight_N),
            targets_NK=mix(source.targets_NK, source.targets_NK[partner_N], weight_N),
        )
        return in_batches(mixed, order_N, batch_size)
