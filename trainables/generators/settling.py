"""Batch normalisation statistics of the final weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.generators.networks.image_network import ImageNetwork

BATCHES = 16
BATCH = 64


@torch.no_grad()
def settle(network: ImageNetwork, labels_N: Tensor, *, batches: int | None = None, rng: torch.Generator) -> None:
    """Estimate the batch normalisation statistics of a network's weights anew, and switch it to evaluation.

    The running averages of a short training lag behind its weights, and images would come out flat.

    Args:
        network: the trained network; its buffers are replaced. One without batch normalisation stays as it is.
        labels_N: labels of the training images, to draw from.
        batches: how many batches the statistics are the mean of; None for all ``BATCHES``.
        rng: of labels and noise.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for _ in range((batches or BATCHES) if norms else 0):
        positions_N = torch.randint(len(labels_N), (BATCH,), generator=rng).to(labels_N.device)
        noise_NM = network.noise(BATCH, rng=rng).to(labels_N.device)
        network(noise_NM, labels_N[positions_N])
    network.eval()
