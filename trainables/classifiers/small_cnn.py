"""A small convolutional network for CPU use and for features of small medical images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.classifiers.weights import initialised

WIDTHS = (16, 32, 64, 128)
"""Channels of the blocks; the last is the number of features."""


class SmallCnn(nn.Module):
    """Four blocks of convolution, batch normalisation, ReLU and 2x2 maximum; global mean; a linear head."""

    def __init__(self, *, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((1, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(WIDTHS[-1], n_classes)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """float32 (N, 128): what the head reads."""
        features_NCHW: Tensor = self.blocks(images_NCHW)
        return features_NCHW.mean(dim=(2, 3))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits (N, K) of images (N, 1, P, P) in [-1, 1], any P from 32."""
        logits_NK: Tensor = self.head(self.features(images_NCHW))
        return logits_NK


def small_cnn(*, n_classes: int, rng: torch.Generator) -> nn.Module:
    """An initialised ``SmallCnn``. See ``Architecture``."""
    return initialised(lambda: SmallCnn(n_classes=n_classes), rng=rng)
