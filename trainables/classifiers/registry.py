"""The classifier architectures by name, and the networks of configurations."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from spaces.config import ClassifierConfig, as_dict
from spaces.generators import SCRATCH
from trainables.classifiers.base import Architecture
from trainables.classifiers.imagenet import ImageNetInput, start_from_imagenet
from trainables.classifiers.pretrained import content_digest
from trainables.classifiers.resnet50 import resnet50
from trainables.classifiers.small_cnn import small_cnn
from trainables.classifiers.vgg16 import vgg16
from trainables.classifiers.xception import xception

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {"small_cnn": small_cnn, "resnet50": resnet50, "xception": xception, "vgg16": vgg16}
)
"""The names are those of ``spaces.config.CLASSIFIERS``."""


def build(config: ClassifierConfig, *, n_classes: int, rng: torch.Generator) -> nn.Module:
    """The network that a training starts from: random weights, or ImageNet's below a random head.

    Raises: DataError where the ImageNet weights cannot be used.
    """
    network = ARCHITECTURES[config.name](n_classes=n_classes, rng=rng)
    if config.pretrained == SCRATCH:
        return network
    return start_from_imagenet(network, config.name, config.pretrained)


def restore(config: ClassifierConfig, state: Mapping[str, Tensor], *, n_classes: int) -> nn.Module:
    """The network with this state; the weights that its training started from are not needed any more."""
    network = ARCHITECTURES[config.name](n_classes=n_classes, rng=torch.Generator())
    if config.pretrained != SCRATCH:
        network = ImageNetInput(network)
    network.load_state_dict(dict(state))
    return network


def training_slice(config: ClassifierConfig) -> Mapping[str, Any]:
    """What a training's numbers depend on: the configuration, weights named by their content, wherever they lie.

    Raises: DataError where these are not here.
    """
    settings = as_dict(config)
    if config.pretrained != SCRATCH:
        settings["pretrained"] = content_digest(config.pretrained)
    return settings
