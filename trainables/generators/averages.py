"""The moving average of a network's weights over training, which makes better images than the last weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """A network whose weights follow another's: average <- decay x average + (1 - decay) x weights.

    Args:
        network: the network to follow; it is copied.
        decay: per update, in [0, 1); at first less, as by (1 + t) / (10 + t) after t updates, so that the initial
            weights are soon forgotten.

    Source: Yazici et al. 2019, equation 1; the warm-up is that of TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, network: Network, *, decay: float) -> None:
        self.network: Network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Take one step towards the network's weights, and its buffers as they are."""
        weight = 1 - decay_after(self._updates, self._decay)
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)
        for average, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)
        self._updates += 1

    def state(self) -> dict[str, Tensor]:
        """The average and how many updates it had."""
        return {**self.network.state_dict(), "updates": torch.tensor(self._updates)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self._updates = int(state["updates"])
        self.network.load_state_dict({name: value for name, value in state.items() if name != "updates"})


def decay_after(updates: int, decay: float) -> float:
    """The decay of update number ``updates`` (from 0): rising to ``decay``."""
    return min(decay, (1 + updates) / (10 + updates))
