"""What every network that makes images has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class ImageNetwork(nn.Module, ABC):
    """A network from noise and labels to images; all that is random in an image is in its noise."""

    replayable = True
    """Whether its forward pass is the same operations on tensors at every call, so that a GPU can replay it."""

    @abstractmethod
    def noise(self, count: int, *, rng: torch.Generator) -> Tensor:
        """The noise of ``count`` images, drawn row by row on the CPU.

        Returns:
            float32 (count, M), what ``forward`` takes.
        """

    @abstractmethod
    def forward(self, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        """Images float32 (N, 1, P, P) of noise (N, M) and int64 labels (N,); in [-1, 1] in evaluation mode.

        In evaluation mode an image depends on its own row of noise and its own label only.
        """
