"""GenMix: mix real images with synthetic and real ones (Lee et al. 2024, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spaces.config import GenMixConfig
from trainables.data.image_set import ImageSet
from trainables.mixers.base import Augment, Batch
from trainables.mixers.epochs import in_batches, required, sources
from trainables.mixers.interpolation import beta_one, mix


def draw_partners(count: int, candidates: int, *, rng: torch.Generator) -> Tensor:
    """Draw one partner for each of ``count`` images, all candidates as evenly as can be.

    Random permutations of the candidates follow one another until everyone has a partner: nobody is drawn twice where
    there are candidates enough, and otherwise the numbers of draws of any two candidates differ by at most one.

    Args:
        count: partners to draw.
        candidates: how many there are to draw from, at least 1.
        rng: CPU generator.

    Returns:
        int64 (count,), positions of candidates; each is uniform over them.
    """
    rounds = -(-count // candidates)
    return torch.cat([torch.randperm(candidates, generator=rng) for _ in range(rounds)])[:count]


class GenMix:
    """Each real image meets one partner per epoch.

    Partners come uniformly from synthetic and real images together (``partner`` "pool", without replacement within an
    epoch, as mixup's permutation) or from synthetic images alone ("synthetic", the paper's equation 1; where there are
    fewer of them than real images, each is drawn as often as any other, give or take one). The weight
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
        if self._config.partner == "synthetic":
            partner_N = count + draw_partners(count, len(pool), rng=rng)
        else:
            partner_N = draw_partners(count, count + len(pool), rng=rng)
        weight_N = beta_one(self._config.genmix_alpha, count, rng=rng)
        partner_N, weight_N = partner_N.to(source.device), weight_N.to(source.device)
        mixed = Batch(
            images_NCHW=mix(source.images_NCHW[partner_N], source.images_NCHW[:count], weight_N),
            targets_NK=mix(source.targets_NK[partner_N], source.targets_NK[:count], weight_N),
        )
        return in_batches(mixed, order_N, batch_size)
