"""Early stopping: train until the validation loss has stopped falling, and keep the best epoch's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.training.parts import under


class EarlyStopping:
    """The validation losses of a training so far, and the weights of its best epoch; a ``Stateful``.

    Source: Prechelt 1998; "patience" as in paper 2, section 3.1.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best: dict[str, Tensor] = {}
        self.losses: list[float] = []

    @property
    def kept(self) -> int:
        """The epoch (from 0) with the lowest loss, the first of equals."""
        return self.losses.index(min(self.losses))

    @property
    def stops(self) -> bool:
        """Whether ``patience`` epochs have gone by without a lower loss."""
        return bool(self.losses) and len(self.losses) - 1 - self.kept >= self._patience

    @torch.no_grad()
    def record(self, loss: float, network: nn.Module) -> None:
        """Take note of an epoch.

        Args:
            loss: on the validation images, after the epoch.
            network: whose weights are copied where the loss is the lowest so far.
        """
        self.losses.append(loss)
        if self.kept == len(self.losses) - 1:
            self._best = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def load_best(self, network: nn.Module) -> None:
        """Give the network the weights of the best epoch."""
        network.load_state_dict(self._best)

    def state(self) -> dict[str, Tensor]:
        """The losses, and the best epoch's weights."""
        best = {f"best/{name}": tensor for name, tensor in self._best.items()}
        return {"losses": torch.tensor(self.losses, dtype=torch.float64), **best}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self.losses = state["losses"].tolist()
        self._best = under("best", state)
