"""The optimiser of every generator: Adam in one kernel, whose steps a CUDA graph can hold."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def adam(parameters: Iterable[Tensor], *, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) for parameters that all lie on one device.

    Args:
        parameters: to optimise.
        rate: learning rate; see ``set_rate``.
        betas: decay of the first and of the second moment.
    """
    held = list(parameters)
    device = held[0].device
    on_gpu = device.type == "cuda"
    # A graph holds the addresses of tensors and the values of numbers: there the rate is a tensor.
    learning_rate = torch.tensor(rate, device=device) if on_gpu else rate
    return torch.optim.Adam(held, lr=learning_rate, betas=betas, fused=True, capturable=on_gpu)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step; on a GPU in the tensor that holds it, without waiting for the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
