"""Dropout whose masks come from a given random generator, not from the global random state."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SeededDropout(nn.Module):
    """Drops each value with probability ``share`` while training, and scales up the others; else the identity.

    Source: Srivastava et al. 2014, in the scaling of PyTorch's ``Dropout``.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.rng: torch.Generator | None = None
        """CPU generator that the next masks are drawn from; set by ``seed_dropout``."""

    def forward(self, values: Tensor) -> Tensor:
        """Values of the same shape. Raises: RuntimeError in training without a generator."""
        if not self.training:
            return values
        if self.rng is None:
            raise RuntimeError("dropout has no random generator; call seed_dropout(network, rng) before training.")
        kept = torch.rand(values.shape, generator=self.rng) >= self.share  # on the CPU: the same masks on each device
        if values.is_cuda:
            kept = kept.pin_memory().to(values.device, non_blocking=True)  # the host goes on meanwhile
        return values * kept / (1 - self.share)


def seed_dropout(network: nn.Module, rng: torch.Generator | None) -> None:
    """Let all masks of a network be drawn from ``rng`` from now on, in the order of its layers."""
    for layer in network.modules():
        if isinstance(layer, SeededDropout):
            layer.rng = rng
