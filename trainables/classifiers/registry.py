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
    """The network that a training starts from, channels last: random weights, or ImageNet's below a random head.

    Raises: DataError where the ImageNet weights cannot be used.
    """
    network = ARCHITECTURES[config.name](n_classes=n_classes, rng=rng)
    if config.pretrained != SCRATCH:
        network = start_from_imagenet(network, config.name, config.pretrained)
    return _channels_last(network)


def restore(config: ClassifierConfig, state: Mapping[str, Tensor], *, n_classes: int) -> nn.Module:
    """The network with this state, channels last; what its training started from is not needed any more."""
    network = ARCHITECTURES[config.name](n_classes=n_classes, rng=torch.Generator())
    if config.pretrained != SCRATCH:
        network = ImageNetInput(network)
    network.load_state_dict(dict(state))
    return _channels_last(network)


def _channels_last(network: nn.Module) -> nn.Module:
    """The same network in the layout that convolutions, normalisations and maxima are fastest in.

    Weights that lie so are enough: every layer then computes so, whatever the layout of one-channel images.
    """
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def training_slice(config: ClassifierConfig) -> Mapping[str, Any]:
    """What a training's numbers depend on: the configuration, weights named by their content, wherever they lie.

    Raises: DataError where these are not here.
    """
    settings = as_dict(config)
    if not config.schedule_epochs:
        del settings["schedule_epochs"]  # what was recorded before there was this setting keeps its digest
    if config.pretrained != SCRATCH:
        settings["pretrained"] = content_digest(config.pretrained)
    return settings


def trajectory_slice(config: ClassifierConfig) -> Mapping[str, Any]:
    """What a training's numbers depend on, except how many epochs it is asked for.

    Two configurations with the same slice are positions on one trajectory. How long the schedule is belongs to it
    where that matters, and so does early stopping, which decides where a trajectory ends.

    Raises: DataError where the weights that it starts from are not here.
    """
    settings = {**training_slice(config), "schedule_epochs": config.span}
    del settings["epochs"]
    return settings


def position(config: ClassifierConfig) -> int:
    """How far along its trajectory a training is asked to go, in epochs."""
    return config.epochs


def goes_on(config: ClassifierConfig) -> bool:
    """Whether a longer training can continue this one; only then the state at its end is worth keeping."""
    return config.span is None or config.span > config.epochs
