"""How the weights of a classifier move: its optimiser and its learning rate from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import nn

from spaces.config import ClassifierConfig

Schedule: TypeAlias = Callable[[int, int], float]
"""Factor of the learning rate for the step (from 0) of so many steps in all."""

MOMENTUM = 0.9
"""Of ``sgd``; Simonyan & Zisserman 2015, section 3.1, trained VGG-16 with it."""
RMSPROP_DECAY, RMSPROP_EPSILON = 0.9, 1e-7
"""Keras' own, which paper 1 trained with; Tieleman & Hinton's lecture gives the same decay. PyTorch's are others."""
RISE, START, END = 0.3, 1 / 25, 1 / 25e4
"""One cycle: the share of the steps in which the rate rises, its first and its last factor."""


def optimizer(config: ClassifierConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of a configuration, which takes a step in as few passes over the weights as PyTorch can.

    ``weight_decay`` is decoupled from the gradient in "adamw" (Loshchilov & Hutter 2019), an L2 penalty in the others.

    Args:
        config: its name and settings.
        parameters: of a network, on the device where it computes. On a GPU the learning rate and all counts lie there
            too: nothing waits for the device, and a CUDA graph can hold the step. See ``training.adam.set_rate``.
    """
    parameters = list(parameters)
    on_gpu, decay = parameters[0].is_cuda, config.weight_decay
    rate = torch.tensor(config.learning_rate, device=parameters[0].device) if on_gpu else config.learning_rate
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=rate, alpha=RMSPROP_DECAY, eps=RMSPROP_EPSILON, weight_decay=decay, capturable=on_gpu
        )
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=decay, fused=True)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, weight_decay=decay, fused=True, capturable=on_gpu)


def cosine_decay(done: float) -> float:
    """Factor of the learning rate after the share ``done`` in [0, 1] of the training: from 1 to 0.

    Source: Loshchilov & Hutter 2017, equation 5, without restarts.
    """
    return 0.5 * (1 + math.cos(math.pi * done))


def one_cycle(step: int, steps: int) -> float:
    """Factor of the learning rate: up from 1/25 to 1 over three tenths of the training, then down to nearly nothing.

    Half cosines both ways, in the numbers of PyTorch's ``OneCycleLR``; the momentum stays as it is.

    Args:
        step: from 0.
        steps: in all.

    Source: Smith & Topin 2019, section 3.
    """
    top, last = RISE * steps - 1, steps - 1
    if step <= top:
        return 1 + (START - 1) * cosine_decay(step / top)
    return END + (1 - END) * cosine_decay((step - top) / (last - top))


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "cosine": lambda step, steps: cosine_decay(step / steps),
        "constant": lambda step, steps: 1.0,
        "one_cycle": one_cycle,
    }
)
"""The names are those of ``spaces.config.SCHEDULES``."""
