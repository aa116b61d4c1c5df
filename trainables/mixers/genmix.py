"""GenMix: mix real images with synthetic and real ones (Lee et al. 2024, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from spaces.config import GenMixConfig
from trainables.data.image_set import ImageSet
from trainables.mixers.base import Augment, Batch
from trainables.mixers.epochs import in_batches, required, sources
from trainables.mixers.interpolation import beta_one, mix


class GenMix:
    """Each real image meets one partner per epoch, drawn uniformly from synthetic and real images together.

    Partners are drawn without replacement within an epoch, as mixup's permutation does. The weight
    lambda ~ Beta(alpha, 1) is the partner's: small values of alpha stay close to the real image.
    """

    def __init__(self, config: GenMixConfig) -> None:
        self._config = config

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of one epoch. See ``Mixer.epoch``."""
        pool = required(synthetic, self._config.name)
        count = len(real)
        order_N = torch.randperm(count, generator=rng)
        source = sources(real, pool, augment=augment, rng=rng)
        partner_N = torch.randperm(count + len(pool), generator=rng)[:count]
        weight_N = beta_one(self._config.genmix_alpha, count, rng=rng)
        mixed = Batch(
            images_NCHW=mix(source.images_NCHW[partner_N], source.images_NCHW[:count], weight_N),
            targets_NK=mix(source.targets_NK[partner_N], source.targets_NK[:count], weight_N),
        )
        return in_batches(mixed, order_N, batch_size)
