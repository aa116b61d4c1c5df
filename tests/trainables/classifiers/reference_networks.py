"""The three big networks, computed from named weights alone: no module of the project has a part in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, linear, max_pool2d, relu

from trainables.seeding import generator

State: TypeAlias = Mapping[str, Tensor]


def _norm(state: State, name: str, values: Tensor) -> Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return batch_norm(values, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"])


def vgg16(state: State, images: Tensor) -> Tensor:
    """The 4096 features before the head."""
    for index in (0, 2, None, 5, 7, None, 10, 12, 14, None, 17, 19, 21, None, 24, 26, 28, None):
        if index is None:
            images = max_pool2d(images, 2)
        else:
            weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            images = relu(conv2d(images, weight, bias, padding=1))
    values = adaptive_avg_pool2d(images, 7).flatten(1)
    for index in (0, 3):
        values = relu(linear(values, state[f"classifier.{index}.weight"], state[f"classifier.{index}.bias"]))
    return values


def resnet50(state: State, images: Tensor) -> Tensor:
    """The 2048 features before the head."""
    values = relu(_norm(state, "bn1", conv2d(images, state["conv1.weight"], stride=2, padding=3)))
    values = max_pool2d(values, 3, stride=2, padding=1)
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = relu(_norm(state, f"{at}.bn1", conv2d(values, state[f"{at}.conv1.weight"])))
            inner = conv2d(inner, state[f"{at}.conv2.weight"], stride=stride, padding=1)
            inner = conv2d(relu(_norm(state, f"{at}.bn2", inner)), state[f"{at}.conv3.weight"])
            if block == 0:
                values = conv2d(values, state[f"{at}.downsample.0.weight"], stride=stride)
                values = _norm(state, f"{at}.downsample.1", values)
            values = relu(_norm(state, f"{at}.bn3", inner) + values)
    return values.mean(dim=(2, 3))


def _separable(state: State, name: str, values: Tensor) -> Tensor:
    values = conv2d(values, state[f"{name}.conv1.weight"], padding=1, groups=values.shape[1])
    return conv2d(values, state[f"{name}.pointwise.weight"])


def xception(state: State, images: Tensor) -> Tensor:
    """The 2048 features before the head."""
    values = relu(_norm(state, "bn1", conv2d(images, state["conv1.weight"], stride=2)))
    values = relu(_norm(state, "bn2", conv2d(values, state["conv2.weight"])))
    for block in range(1, 13):
        inner, at = values, f"block{block}"
        first = 0 if block == 1 else 1
        for index in (first, first + 3, first + 6) if 4 <= block <= 11 else (first, first + 3):
            inner = inner if index == 0 else relu(inner)
            inner = _norm(state, f"{at}.rep.{index + 1}", _separable(state, f"{at}.rep.{index}", inner))
        if block in (1, 2, 3, 12):
            inner = max_pool2d(inner, 3, stride=2, padding=1)
            values = _norm(state, f"{at}.skipbn", conv2d(values, state[f"{at}.skip.weight"], stride=2))
        values = values + inner
    values = relu(_norm(state, "bn3", _separable(state, "conv3", values)))
    return relu(_norm(state, "bn4", _separable(state, "conv4", values))).mean(dim=(2, 3))


FEATURES: Mapping[str, Callable[[State, Tensor], Tensor]] = {"vgg16": vgg16, "resnet50": resnet50, "xception": xception}
HEADS = {"vgg16": "classifier.6", "resnet50": "fc", "xception": "fc"}


def published(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Weights with these names and shapes such as one downloads: in half precision, so that they are quick to write."""
    pattern = torch.randn(1009, generator=generator(7))
    state = {}
    for name, shape in shapes.items():
        values = pattern.repeat(shape.numel() // len(pattern) + 1)[: shape.numel()].view(shape)
        if len(shape) > 1:
            values = values * (2 / shape[1:].numel()) ** 0.5
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            values = 0.5 + values.abs()
        state[name] = values.long() if name.endswith("num_batches_tracked") else values.half()
    return state
