"""The only classifier loop: train one architecture on the batches of one mixer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from spaces.config import ClassifierConfig
from trainables import seeding
from trainables.classifiers.registry import ARCHITECTURES
from trainables.data.image_set import ImageSet
from trainables.errors import DivergedError
from trainables.generators.base import OnStep
from trainables.mixers.base import Augment, Batch, Mixer

CLASSIFIER_STAGE_VERSION = 1
"""Raised by hand when the loop, an architecture or the augmentation computes other numbers than before."""

EVALUATION_BATCH = 256


def soft_cross_entropy(logits_NK: Tensor, targets_NK: Tensor, class_weights_K: Tensor) -> Tensor:
    """Cross-entropy with soft labels and class weights: mean_i sum_c w_c y_ic (-log p_ic).

    The mean is over samples, not over weights, so that it means the same for hard and for mixed labels.

    Args:
        logits_NK: float32.
        targets_NK: float32, rows sum to 1.
        class_weights_K: float32, 1 for every class where there are no weights.

    Returns:
        A scalar, at least 0.

    Source: methods, "Order of things in a fold", 5.
    """
    return -(class_weights_K * targets_NK * log_softmax(logits_NK, dim=1)).sum(dim=1).mean()


def class_weights(counts: tuple[int, ...]) -> Tensor:
    """Weights that let every class count alike: w_c = N / (C N_c).

    Args:
        counts: real images of each class, before synthesis. A class without images is weighted as if it had one.

    Returns:
        float32 (K,).

    Source: methods, "Order of things in a fold", 5.
    """
    counts_K = torch.tensor(counts, dtype=torch.float64)
    return (counts_K.sum() / (len(counts) * counts_K.clamp(min=1))).float()


def cosine_decay(done: float) -> float:
    """Factor of the learning rate after the share ``done`` in [0, 1] of the training: from 1 to 0.

    Source: Loshchilov & Hutter 2017, equation 5, without restarts.
    """
    return 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedClassifier:
    """A network with its training's record; a ``FittedClassifier``."""

    network: nn.Module
    history: Mapping[str, list[float]]
    device: torch.device

    @torch.no_grad()
    def probabilities(self, images_NCHW: Tensor) -> Tensor:
        """Class probabilities, float64 (N, K) on the CPU, for float32 images NCHW in [-1, 1]."""
        self.network.eval()
        logits = [self.network(chunk.to(self.device)).cpu() for chunk in torch.split(images_NCHW, EVALUATION_BATCH)]
        return torch.cat(logits).double().softmax(dim=1)

    def state(self) -> dict[str, Tensor]:
        """The weights as named CPU tensors for safetensors."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}


def train_classifier(
    config: ClassifierConfig,
    mixer: Mixer,
    real: ImageSet,
    synthetic: ImageSet | None,
    *,
    augment: Augment,
    balanced: bool,
    seed: int,
    device: torch.device,
    on_step: OnStep,
) -> TrainedClassifier:
    """Train a classifier; the weights of the last epoch are kept.

    AdamW with cosine decay over the whole training. Initial weights come from the stream "weights" of ``seed``, the
    draws of epoch e from the stream "epoch{e}": they do not depend on how many epochs there are.

    Args:
        config: architecture and settings.
        mixer: composes the epochs.
        real: the training fold's real images.
        synthetic: this trial's share of the pool, or None.
        augment: applied to every source image before mixing.
        balanced: whether the synthetic images balance the classes; class weights are then 1.
        seed: every random draw descends from it.
        device: where to compute.
        on_step: called after every batch with (batches done, batches in all).

    Returns:
        The classifier; its history has the mean loss of each epoch as "loss".

    Raises:
        DivergedError: a non-finite loss.
        EmptyPoolError: the mixer needs synthetic images and there are none.
        StopRequested: passed on from ``on_step``.
    """
    n_classes = len(real.classes)
    network = ARCHITECTURES[config.name](n_classes=n_classes, rng=seeding.generator(seed, "weights")).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    weighted = config.class_weights and not balanced
    weights_K = (class_weights(real.counts) if weighted else torch.ones(n_classes)).to(device)
    losses: list[float] = []
    network.train()
    for epoch in range(config.epochs):
        rng = seeding.generator(seed, f"epoch{epoch}")
        batches = list(mixer.epoch(real, synthetic, batch_size=config.batch_size, augment=augment, rng=rng))
        total = 0.0
        for index, batch in enumerate(batches):
            step, steps = epoch * len(batches) + index, config.epochs * len(batches)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * cosine_decay(step / steps)
            loss = _step(network, optimizer, batch, weights_K, device)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the classifier's loss is not finite: {loss} in epoch {epoch + 1} of {config.epochs}, batch "
                    f"{index + 1} of {len(batches)}. Lower classifier.learning_rate ({config.learning_rate})."
                )
            total += loss * len(batch.images_NCHW)
            on_step(step + 1, steps)
        losses.append(total / sum(len(batch.images_NCHW) for batch in batches))
    return TrainedClassifier(network=network.eval(), history={"loss": losses}, device=device)


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, weights_K: Tensor, device: torch.device
) -> float:
    """One update; returns the loss before it."""
    logits_NK = network(batch.images_NCHW.to(device))
    loss = soft_cross_entropy(logits_NK, batch.targets_NK.to(device), weights_K)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


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
        config: the configuration that it was trained with; only the architecture matters.
        state: named weights.
        n_classes: classes of the head.
        device: where to compute.
        history: its recorded curves, where they are known.
    """
    network = ARCHITECTURES[config.name](n_classes=n_classes, rng=torch.Generator())
    network.load_state_dict(dict(state))
    return TrainedClassifier(network=network.to(device).eval(), history=dict(history or {}), device=device)
