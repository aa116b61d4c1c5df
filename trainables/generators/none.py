"""The generator that makes no images: real images only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spaces.generators import NoGeneratorConfig
from trainables.data.image_set import ImageSet
from trainables.errors import EmptyPoolError
from trainables.generators.base import History
from trainables.generators.previews import Previews

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


class NoTraining:
    """Learns nothing, in any number of steps."""

    def __init__(self, *, pixels: int) -> None:
        self._pixels = pixels
        self._done = 0

    @property
    def done(self) -> int:
        """Steps done."""
        return self._done

    def step(self) -> None:
        """Nothing to learn."""
        self._done += 1

    def state(self) -> dict[str, Tensor]:
        """The number of steps."""
        return {"done": torch.tensor(self._done)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back the number of steps."""
        self._done = int(state["done"])

    def previews(self) -> Previews | None:
        """None: there are no images."""
        return None

    def fitted(self, *, checked: bool = True) -> FittedNone:
        """The generator that makes no images."""
        return FittedNone(pixels=self._pixels)


class NoGenerator:
    """Learns nothing."""

    def __init__(self, config: NoGeneratorConfig) -> None:
        self._config = config

    def begin(self, train: ImageSet, *, seed: int, device: torch.device) -> NoTraining:
        """A training that learns nothing."""
        return NoTraining(pixels=train.pixels)

    def load(
        self, state: Mapping[str, Tensor], history: History, *, n_classes: int, pixels: int, device: torch.device
    ) -> FittedNone:
        """The fitted generator of images of this size."""
        return FittedNone(pixels=pixels)
