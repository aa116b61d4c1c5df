"""Building networks whose initial weights come from a given random generator alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def initialised(construct: Callable[[], nn.Module], *, rng: torch.Generator) -> nn.Module:
    """Construct a network and draw its weights.

    The network is constructed on the meta device, where PyTorch's own initialisation draws nothing, and then
    filled here: the global random state is neither read nor changed.

    Args:
        construct: builds the network from convolutions, batch normalisations and linear layers.
        rng: CPU generator.

    Returns:
        The network on the CPU. Convolutions: He normal by fan-out (a group's own where there are groups); linear
        layers: U(-1, 1) / sqrt(inputs), the bias alike; batch normalisations: the identity.

    Raises:
        TypeError: if a layer of another kind has weights.

    Source: He et al. 2015, equation 14; PyTorch's ``Linear.reset_parameters``.
    """
    with torch.device("meta"):
        network = construct()
    network.to_empty(device="cpu")
    for name, layer in network.named_modules():
        _fill(name, layer, rng)
    return network


@torch.no_grad()
def _fill(name: str, layer: nn.Module, rng: torch.Generator) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=rng)
        if layer.groups > 1:
            layer.weight.mul_(layer.groups**0.5)  # PyTorch counts the outputs of all groups
        if layer.bias is not None:
            layer.bias.zero_()
    elif isinstance(layer, nn.BatchNorm2d):
        layer.reset_running_stats()
        layer.weight.fill_(1)
        layer.bias.zero_()
    elif isinstance(layer, nn.Linear):
        bound = layer.in_features**-0.5
        layer.weight.uniform_(-bound, bound, generator=rng)
        layer.bias.uniform_(-bound, bound, generator=rng)
    elif (
        next(layer.parameters(recurse=False), None) is not None or next(layer.buffers(recurse=False), None) is not None
    ):
        raise TypeError(
            f"layer '{name}' is a {type(layer).__name__}; expected a convolution, batch norm or linear layer."
        )
