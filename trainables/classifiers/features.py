"""The features that a classifier decides by: what its last linear layer, the head, reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def head_name(network: nn.Module) -> str:
    """The name of a classifier's head: its last linear layer, such as "fc" or "classifier.6"."""
    names: list[str] = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1]


def features(network: nn.Module, images_NCHW: Tensor) -> Tensor:
    """The penultimate features of images; one rule for every architecture.

    Args:
        network: images to logits, as every ``Architecture`` builds; in the mode (training or evaluation) that it is in.
        images_NCHW: float32 in [-1, 1], where the network computes.

    Returns:
        (N, F): 128 features of small_cnn, 2048 of resnet50 and xception, 4096 of vgg16. Gradients flow.
    """
    seen: list[Tensor] = []

    def keep(head: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    hook = network.get_submodule(head_name(network)).register_forward_pre_hook(keep)
    try:
        network(images_NCHW)
    finally:
        hook.remove()
    return seen[-1]
