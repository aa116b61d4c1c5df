"""A trained classifier: what it says of images, and how it is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from spaces.config import ClassifierConfig
from trainables.classifiers.features import features
from trainables.classifiers.registry import restore
from trainables.training.determinism import deterministic

EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedClassifier:
    """A network with its training's record; a ``FittedClassifier``."""

    network: nn.Module
    history: Mapping[str, list[float]]
    device: torch.device

    def probabilities(self, images_NCHW: Tensor) -> Tensor:
        """Class probabilities, float64 (N, K) on the CPU, for float32 images NCHW in [-1, 1]."""
        return in_chunks(self.network, self.network, images_NCHW, self.device).double().softmax(dim=1)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """What the head reads, float32 (N, F) on the CPU, for float32 images NCHW in [-1, 1]. See ``features``."""
        return in_chunks(self.network, partial(features, self.network), images_NCHW, self.device)

    def state(self) -> dict[str, Tensor]:
        """The weights as named contiguous CPU tensors for safetensors."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.network.state_dict().items()
        }


@torch.no_grad()
def in_chunks(
    network: nn.Module, compute: Callable[[Tensor], Tensor], images_NCHW: Tensor, device: torch.device
) -> Tensor:
    """What ``compute`` gives of images with the network in evaluation mode, batch by batch, in full float32 precision.

    Returns:
        It all, on the CPU, where it is brought at once: no batch waits until the one before it has come back.
    """
    network.eval()
    chunks = torch.split(images_NCHW, EVALUATION_BATCH)
    with deterministic(device):
        return torch.cat([compute(chunk_NCHW.to(device)) for chunk_NCHW in chunks]).cpu()


def load_classifier(
    config: ClassifierConfig,
    state: Mapping[str, Tensor],
    n_classes: int,
    device: torch.device,
    *,
    history: Mapping[str, list[float]] | None = None,
) -> TrainedClassifier:
    """The classifier whose ``state()`` this is.

    Args:
        config: the configuration that it was trained with; the architecture and the scale of its input matter.
        state: named weights.
        n_classes: classes of the head.
        device: where to compute.
        history: its recorded curves, where they are known.
    """
    network = restore(config, state, n_classes=n_classes)
    return TrainedClassifier(network=network.to(device).eval(), history=dict(history or {}), device=device)
