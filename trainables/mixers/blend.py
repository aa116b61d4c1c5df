"""Real and synthetic images together, unmixed: the papers' "DCGAN (50%)" rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from spaces.config import BlendConfig
from trainables.data.image_set import ImageSet
from trainables.mixers.base import Augment, Batch
from trainables.mixers.epochs import in_batches, required, sources


class Blend:
    """An epoch visits each real and each synthetic image once."""

    def __init__(self, config: BlendConfig) -> None:
        self._config = config

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of one epoch. See ``Mixer.epoch``."""
        pool = required(synthetic, self._config.name)
        order_N = torch.randperm(len(real) + len(pool), generator=rng)
        return in_batches(sources(real, pool, augment=augment, rng=rng), order_N, batch_size)
