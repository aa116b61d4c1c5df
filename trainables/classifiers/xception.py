"""Xception, under the key names of timm's ``legacy_xception`` (Chollet 2017, figure 5)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from trainables.classifiers.weights import initialised

MIDDLE = 728
"""Channels of the eight blocks of the middle flow."""
FEATURES = 2048


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel on its own, then a 1x1 convolution across channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, values_NCHW: Tensor) -> Tensor:
        """Values of the same height and width."""
        mixed_NCHW: Tensor = self.pointwise(self.conv1(values_NCHW))
        return mixed_NCHW


class Block(nn.Module):
    """Separable convolutions with batch normalisation, and a shortcut past them.

    Args:
        widths: channels before the first convolution and after each.
        halve: whether a 3x3 maximum with stride 2 ends the block; the shortcut is then a 1x1 convolution.
        relu_first: whether a ReLU comes before the first convolution too; off where the input has just met one.
    """

    def __init__(self, widths: tuple[int, ...], *, halve: bool, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.ReLU(), SeparableConv(inputs, outputs), nn.BatchNorm2d(outputs)]
        layers = layers if relu_first else layers[1:]
        if halve:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            self.skip = nn.Conv2d(widths[0], widths[-1], 1, stride=2, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])
        self.halve = halve
        self.rep = nn.Sequential(*layers)

    def forward(self, values_NCHW: Tensor) -> Tensor:
        """The block's output, of half the height and width (rounded up) where it halves."""
        shortcut_NCHW = self.skipbn(self.skip(values_NCHW)) if self.halve else values_NCHW
        sum_NCHW: Tensor = self.rep(values_NCHW) + shortcut_NCHW
        return sum_NCHW


class Xception(nn.Module):
    """Entry flow, eight middle blocks, exit flow, global mean, a linear head."""

    def __init__(self, *, n_classes: int, n_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_channels, 32, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.block1 = Block((64, 128, 128), halve=True, relu_first=False)
        self.block2 = Block((128, 256, 256), halve=True)
        self.block3 = Block((256, MIDDLE, MIDDLE), halve=True)
        for index in range(4, 12):
            self.add_module(f"block{index}", Block((MIDDLE,) * 4, halve=False))
        self.block12 = Block((MIDDLE, MIDDLE, 1024), halve=True)
        self.conv3 = SeparableConv(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = SeparableConv(1536, FEATURES)
        self.bn4 = nn.BatchNorm2d(FEATURES)
        self.fc = nn.Linear(FEATURES, n_classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, P, P), any P from 32: the last grid of 32 px is a single cell."""
        values_NCHW = self.bn1(self.conv1(images_NCHW)).relu()
        values_NCHW = self.bn2(self.conv2(values_NCHW)).relu()
        for index in range(1, 13):
            values_NCHW = self.get_submodule(f"block{index}")(values_NCHW)
        values_NCHW = self.bn3(self.conv3(values_NCHW)).relu()
        values_NCHW = self.bn4(self.conv4(values_NCHW)).relu()
        logits_NK: Tensor = self.fc(values_NCHW.mean(dim=(2, 3)))
        return logits_NK


def xception(*, n_classes: int, rng: torch.Generator) -> nn.Module:
    """An initialised one-channel Xception: 20,810,474 parameters with two classes. See ``Architecture``."""
    return initialised(lambda: construct(n_classes=n_classes, n_channels=1), rng=rng)


def construct(*, n_classes: int, n_channels: int) -> nn.Module:
    """The layers, with timm's parameters: 22,855,952 with 3 channels and 1000 classes."""
    return Xception(n_classes=n_classes, n_channels=n_channels)
