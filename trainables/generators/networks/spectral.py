"""Spectral normalisation: weights divided by their largest singular value (Miyato et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

FIRST_ITERATIONS = 15
"""Power iterations before the first step, so that the first weights are normalised too."""


class SpectralNorm(nn.Module):
    """The parametrisation W -> W / sigma(W), sigma by one power iteration for each forward pass in training mode.

    In evaluation mode the vectors stand still, and the weight is the same function of W at every call.

    Args:
        weight: (outputs, ...), read as a matrix with one row per output.
        rng: CPU generator of the first vector.

    Source: Miyato et al. 2018, algorithm 1.
    """

    def __init__(self, weight: Tensor, *, rng: torch.Generator) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        left = torch.randn(matrix.shape[0], generator=rng).to(matrix)
        for _ in range(FIRST_ITERATIONS):
            right = normalize(matrix.T @ left, dim=0)
            left = normalize(matrix @ right, dim=0)
        self.left: Tensor
        self.right: Tensor
        self.register_buffer("left", left)
        self.register_buffer("right", right)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, with a largest singular value of about 1; in the weight's precision, whatever a network's is."""
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self.iterate(weight)
            matrix = weight.flatten(1)
            # cloned: autograd keeps them for the backward pass, and the next forward pass changes them in place
            return weight / torch.dot(self.left.clone(), matrix @ self.right.clone())

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One power iteration, in place."""
        matrix = weight.flatten(1)
        self.left.copy_(normalize(matrix @ self.right, dim=0))
        self.right.copy_(normalize(matrix.T @ self.left, dim=0))


def normalised(network: nn.Module, *, rng: torch.Generator) -> nn.Module:
    """Put spectral normalisation on every convolution, linear layer and embedding of a network, in place.

    Args:
        network: its weights are filled already.
        rng: CPU generator of the first vectors.

    Returns:
        The network.
    """
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight, rng=rng))
    return network


def follow(network: nn.Module) -> None:
    """One power iteration for every weight that is normalised, after a step without a forward pass in training mode."""
    for each in network.modules():
        if isinstance(each, parametrize.ParametrizationList):
            (norm,) = each
            assert isinstance(norm, SpectralNorm)  # noqa: S101 - what ``normalised`` puts there
            norm.iterate(each.original)
