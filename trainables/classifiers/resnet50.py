"""ResNet-50 from MONAI: torchvision's layers and key names, without torchvision (He et al. 2016)."""

from __future__ import annotations

import torch
from torch import nn

from trainables.classifiers.weights import initialised


def resnet50(*, n_classes: int, rng: torch.Generator) -> nn.Module:
    """An initialised one-channel ResNet-50. See ``Architecture``."""
    return initialised(lambda: construct(n_classes=n_classes, n_channels=1), rng=rng)


def construct(*, n_classes: int, n_channels: int) -> nn.Module:
    """The layers, with torchvision's parameters: 25,557,032 with 3 channels and 1000 classes."""
    from monai.networks.nets.resnet import resnet50 as monai_resnet50  # imported here: it takes seconds

    network: nn.Module = monai_resnet50(
        spatial_dims=2,
        n_input_channels=n_channels,
        num_classes=n_classes,
        conv1_t_size=7,
        conv1_t_stride=2,
        bias_downsample=False,
        shortcut_type="B",
    )
    return network
