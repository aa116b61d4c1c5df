"""The only classifier loop: train one architecture on the batches of one mixer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from spaces.config import ClassifierConfig
from trainables import seeding
from trainables.classifiers.dropout import seed_dropout
from trainables.classifiers.early_stopping import EarlyStopping
from trainables.classifiers.features import features
from trainables.classifiers.losses import jensen_shannon
from trainables.classifiers.optimisation import SCHEDULES, optimizer
from trainables.classifiers.registry import build, restore
from trainables.data.image_set import ImageSet
from trainables.errors import DataError, DivergedError
from trainables.generators.base import OnStep
from trainables.generators.determinism import deterministic
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


def smoothed(targets_NK: Tensor, share: float) -> Tensor:
    """Label smoothing of hard or mixed labels: (1 - share) y + share / K.

    Args:
        targets_NK: rows sum to 1.
        share: in [0, 1); 0 leaves the labels as they are.

    Returns:
        The same shape; rows sum to 1.

    Source: Szegedy et al. 2016, section 7.
    """
    return (1 - share) * targets_NK + share / targets_NK.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedClassifier:
    """A network with its training's record; a ``FittedClassifier``."""

    network: nn.Module
    history: Mapping[str, list[float]]
    device: torch.device

    def probabilities(self, images_NCHW: Tensor) -> Tensor:
        """Class probabilities, float64 (N, K) on the CPU, for float32 images NCHW in [-1, 1]."""
        return _in_chunks(self.network, self.network, images_NCHW, self.device).double().softmax(dim=1)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """What the head reads, float32 (N, F) on the CPU, for float32 images NCHW in [-1, 1]. See ``features``."""
        return _in_chunks(self.network, partial(features, self.network), images_NCHW, self.device)

    def state(self) -> dict[str, Tensor]:
        """The weights as named CPU tensors for safetensors."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}


@torch.no_grad()
def _in_chunks(
    network: nn.Module, compute: Callable[[Tensor], Tensor], images_NCHW: Tensor, device: torch.device
) -> Tensor:
    """What ``compute`` gives with the network in evaluation mode, on the CPU."""
    network.eval()
    return torch.cat([compute(chunk.to(device)).cpu() for chunk in torch.split(images_NCHW, EVALUATION_BATCH)])


def train_classifier(
    config: ClassifierConfig,
    mixer: Mixer,
    real: ImageSet,
    synthetic: ImageSet | None,
    *,
    validation: ImageSet | None = None,
    augment: Augment,
    balanced: bool,
    seed: int,
    device: torch.device,
    on_step: OnStep,
) -> TrainedClassifier:
    """Train a classifier; the last epoch's weights are kept, with early stopping the best epoch's.

    The schedule is laid over all of ``config.epochs``. Initial weights come from the stream "weights" of ``seed``, the
    draws of epoch e from the stream "epoch{e}", its dropout from "dropout{e}": they do not depend on how many epochs
    there are. On a GPU, the forward pass computes in bfloat16 where ``config.amp`` says so, the loss in float32.

    Args:
        config: architecture and settings.
        mixer: composes the epochs.
        real: the training fold's real images.
        synthetic: this trial's share of the pool, or None.
        validation: real images of other patients than those of ``real`` and of the test fold; only early stopping
            (``config.patience``) looks at them, and never trains on them.
        augment: applied to every source image before mixing.
        balanced: whether the synthetic images balance the classes; class weights are then 1.
        seed: every random draw descends from it.
        device: where to compute.
        on_step: called after every batch with (batches done, batches in all).

    Returns:
        The classifier; its history has the mean loss of each epoch as "loss", with early stopping also
        "validation_loss" (class weights as in training, no label smoothing) and the epoch kept, from 1, as
        "kept_epoch".

    Raises:
        DataError: early stopping without validation images, or ImageNet weights that cannot be used.
        DivergedError: a non-finite loss.
        EmptyPoolError: the mixer needs synthetic images and there are none.
        StopRequested: passed on from ``on_step``.
    """
    stopping = EarlyStopping(config.patience) if config.patience else None
    if stopping is not None and (validation is None or len(validation) == 0):
        raise DataError(
            f"classifier.patience is {config.patience}, and there are no validation images; expected some patients of "
            "the training fold to be set aside for early stopping. Add patients, or set classifier.patience=0."
        )
    n_classes = len(real.classes)
    network = build(config, n_classes=n_classes, rng=seeding.generator(seed, "weights")).to(device)
    weighted = config.class_weights and not balanced
    loop = _Loop(
        network=network,
        optimizer=optimizer(config, network.parameters()),
        config=config,
        weights_K=(class_weights(real.counts) if weighted else torch.ones(n_classes)).to(device),
        device=device,
    )
    losses: list[float] = []
    with deterministic(device):
        for epoch in range(config.epochs):
            rng = seeding.generator(seed, f"epoch{epoch}")
            batches = list(mixer.epoch(real, synthetic, batch_size=config.batch_size, augment=augment, rng=rng))
            seed_dropout(network, seeding.generator(seed, f"dropout{epoch}"))
            losses.append(loop.run(epoch, batches, on_step))
            if stopping is None or validation is None:
                continue
            if stopping.record(loop.validation_loss(epoch, validation), network):
                break
    history = {"loss": losses}
    if stopping is not None:
        stopping.restore(network)
        history |= {"validation_loss": stopping.losses, "kept_epoch": [float(stopping.kept + 1)]}
    return TrainedClassifier(network=network.eval(), history=history, device=device)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Loop:
    """What stays the same from epoch to epoch of one training."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    config: ClassifierConfig
    weights_K: Tensor
    device: torch.device

    def run(self, epoch: int, batches: Sequence[Batch], on_step: OnStep) -> float:
        """Train one epoch; returns its mean loss."""
        self.network.train()
        total = 0.0
        for index, batch in enumerate(batches):
            step, steps = epoch * len(batches) + index, self.config.epochs * len(batches)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * SCHEDULES[self.config.schedule](step, steps)
            loss = self._step(batch)
            self._check(loss, "loss", epoch, f", batch {index + 1} of {len(batches)}")
            total += loss * len(batch.images_NCHW)
            on_step(step + 1, steps)
        return total / sum(len(batch.images_NCHW) for batch in batches)

    def _step(self, batch: Batch) -> float:
        """One update; returns the loss before it."""
        images_NCHW = torch.cat((batch.images_NCHW, *batch.views)).to(self.device)
        mixed_precision = self.config.amp and self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed_precision):
            logits_VNK = self.network(images_NCHW).unflatten(0, (1 + len(batch.views), -1))
        logits_VNK = logits_VNK.float()
        targets_NK = smoothed(batch.targets_NK.to(self.device), self.config.label_smoothing)
        loss = soft_cross_entropy(logits_VNK[0], targets_NK, self.weights_K)
        if batch.views:
            loss = loss + batch.consistency * jensen_shannon(logits_VNK)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    def validation_loss(self, epoch: int, validation: ImageSet) -> float:
        """The loss on images as they are, weighted by class as in training, without label smoothing."""
        logits_NK = _in_chunks(self.network, self.network, validation.images_NCHW, self.device)
        targets_NK = one_hot(validation.labels_N, len(validation.classes)).float()
        loss = soft_cross_entropy(logits_NK, targets_NK, self.weights_K.cpu()).item()
        self._check(loss, "validation loss", epoch, "")
        return loss

    def _check(self, loss: float, what: str, epoch: int, where: str) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the classifier's {what} is not finite: {loss} in epoch {epoch + 1} of {self.config.epochs}{where}. "
                f"Lower classifier.learning_rate ({self.config.learning_rate})."
            )


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
