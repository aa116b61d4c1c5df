"""VGG-16 without batch normalisation, under torchvision's key names (Simonyan & Zisserman 2015, configuration D)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from trainables.classifiers.dropout import SeededDropout
from trainables.classifiers.weights import initialised

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 3x3 convolutions of each block; a 2x2 maximum ends a block."""
GRID = 7
"""Side of the grid that the first linear layer reads, whatever the images' size."""
HIDDEN = 4096


class Vgg16(nn.Module):
    """Thirteen convolutions, a mean over a 7x7 grid, and three linear layers with dropout of one half."""

    def __init__(self, *, n_classes: int, n_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = n_channels
        for block in WIDTHS:
            for outputs in block:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * GRID**2, HIDDEN),
            nn.ReLU(inplace=True),
            SeededDropout(0.5),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            SeededDropout(0.5),
            nn.Linear(HIDDEN, n_classes),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, P, P), any P from 32."""
        grid_NCGG = adaptive_mean(self.features(images_NCHW), GRID)
        logits_NK: Tensor = self.classifier(grid_NCGG.flatten(start_dim=1))
        return logits_NK


def adaptive_mean(values_NCHW: Tensor, side: int) -> Tensor:
    """Means over a grid of ``side`` x ``side`` cells, as ``AdaptiveAvgPool2d`` takes them.

    By two matrix products: on a GPU, PyTorch's own layer adds its gradients in the order in which threads finish.

    Args:
        values_NCHW: any H and W from 1.
        side: cells of the result along each axis.

    Returns:
        (N, C, side, side).
    """
    given = values_NCHW.device, values_NCHW.dtype
    rows_GH, columns_GW = (_averages(size, side, *given) for size in values_NCHW.shape[2:])
    return rows_GH @ values_NCHW @ columns_GW.T


@cache  # each batch takes the same ones: drawing them up anew would wait for the device
def _averages(size: int, side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Row g averages the positions from floor(g size / side) up to, not including, ceil((g + 1) size / side)."""
    averages_GS = torch.zeros(side, size)
    for cell in range(side):
        start, stop = cell * size // side, -(-(cell + 1) * size // side)
        averages_GS[cell, start:stop] = 1 / (stop - start)
    return averages_GS.to(device, dtype)


def vgg16(*, n_classes: int, rng: torch.Generator) -> nn.Module:
    """An initialised one-channel VGG-16: 134,267,586 parameters with two classes. See ``Architecture``."""
    return initialised(lambda: construct(n_classes=n_classes, n_channels=1), rng=rng)


def construct(*, n_classes: int, n_channels: int) -> nn.Module:
    """The layers, with torchvision's parameters: 138,357,544 with 3 channels and 1000 classes."""
    return Vgg16(n_classes=n_classes, n_channels=n_channels)
