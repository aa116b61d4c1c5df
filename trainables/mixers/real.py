"""Real images only: the papers' baseline."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from spaces.config import RealConfig
from trainables.data.image_set import ImageSet
from trainables.mixers.base import Augment, Batch
from trainables.mixers.epochs import in_batches, sources


class Real:
    """An epoch visits each real image once."""

    def __init__(self, config: RealConfig) -> None:
        self._config = config

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of one epoch; ``synthetic`` is not used. See ``Mixer.epoch``."""
        order_N = torch.randperm(len(real), generator=rng)
        return in_batches(sources(real, augment=augment, rng=rng), order_N, batch_size)
