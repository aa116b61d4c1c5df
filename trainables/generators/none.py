"""The generator that makes no images: real images only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spaces.generators import NoGeneratorConfig
from trainables.data.image_set import ImageSet
from trainables.errors import EmptyPoolError
from trainables.generators.base import History, OnStep

STAGE_VERSION = 1


class FittedNone:
    """Makes no images; remembers only their size."""

    def __init__(self, *, pixels: int) -> None:
        self._pixels = pixels

    @property
    def history(self) -> History:
        """Nothing."""
        return {}

    def sample(self, class_index: int, start: int, count: int, *, seed: int) -> Tensor:
        """No images, float32 (0, 1, P, P). Raises: EmptyPoolError if any are asked for."""
        if count:
            raise EmptyPoolError(
                f"generator.name=none makes no images; {count} of class {class_index} were asked for. "
                "Set generator.name to a generator, or a mixer that uses real images only."
            )
        return torch.empty(0, 1, self._pixels, self._pixels)

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class NoGenerator:
    """Learns nothing."""

    def __init__(self, config: NoGeneratorConfig) -> None:
        self._config = config

    def fit(self, train: ImageSet, *, seed: int, device: torch.device, on_step: OnStep) -> FittedNone:
        """Nothing to learn: done in no steps."""
        return FittedNone(pixels=train.pixels)

    def load(
        self, state: Mapping[str, Tensor], history: History, *, n_classes: int, pixels: int, device: torch.device
    ) -> FittedNone:
        """The fitted generator of images of this size."""
        return FittedNone(pixels=pixels)
