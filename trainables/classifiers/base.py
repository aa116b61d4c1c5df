"""What a classifier is: a network from one-channel images to class logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Architecture(Protocol):
    """Builds an initialised network."""

    def __call__(self, *, n_classes: int, rng: torch.Generator) -> torch.nn.Module:
        """A network float32 (N, 1, P, P) in [-1, 1] -> logits (N, n_classes), any P from 32.

        All initial weights are drawn from ``rng``; the global random state is neither read nor changed.
        """


class FittedClassifier(Protocol):
    """A trained classifier."""

    @property
    def history(self) -> Mapping[str, list[float]]:
        """Training loss per epoch and whatever else was recorded."""

    def probabilities(self, images_NCHW: Tensor) -> Tensor:
        """Class probabilities, float64 (N, K), rows sum to 1, for float32 images NCHW in [-1, 1]."""

    def features(self, images_NCHW: Tensor) -> Tensor:
        """What the head decides by, float32 (N, F), for float32 images NCHW in [-1, 1]."""

    def state(self) -> dict[str, Tensor]:
        """The weights as named CPU tensors for safetensors."""
