"""The only classifier loop: train one architecture on the batches of one mixer, epoch by epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from spaces.config import ClassifierConfig
from trainables import seeding
from trainables.classifiers.dropout import seed_dropout
from trainables.classifiers.early_stopping import EarlyStopping
from trainables.classifiers.learner import Learner
from trainables.classifiers.losses import class_weights
from trainables.classifiers.registry import build
from trainables.classifiers.trained import TrainedClassifier
from trainables.data.image_set import ImageSet
from trainables.errors import DataError
from trainables.mixers.base import Augment, Batch, Mixer
from trainables.training.determinism import deterministic
from trainables.training.loop import OnStep, advance
from trainables.training.parts import Part, pack, unpack

CLASSIFIER_STAGE_VERSION = 2
"""Raised by hand when the loop, an architecture or the augmentation computes other numbers than before.

2: networks lie channels last and optimisers take fused steps, which round otherwise.
"""
READ_EVERY = 25
"""Batches whose losses stay on the device until they are looked at, since looking waits for the device."""

Compose: TypeAlias = Callable[[int], Sequence[Batch]]
"""The batches of an epoch (from 0), the same whenever it is asked for them."""


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
    """Train a classifier from its first epoch to its last, without checkpoints. See ``begin_classifier``.

    Args:
        on_step: called after every batch with (batches done, batches in all).

    Raises:
        What ``begin_classifier`` and ``ClassifierTraining.step`` do.
    """
    training = begin_classifier(
        config,
        mixer,
        real,
        synthetic,
        validation=validation,
        augment=augment,
        balanced=balanced,
        seed=seed,
        device=device,
        on_batch=on_step,
    )
    advance(training, config.epochs, on_step=lambda done, epochs: None)
    return training.fitted()


def begin_classifier(
    config: ClassifierConfig,
    mixer: Mixer,
    real: ImageSet,
    synthetic: ImageSet | None,
    *,
    validation: ImageSet | None,
    augment: Augment,
    balanced: bool,
    seed: int,
    device: torch.device,
    on_batch: OnStep,
) -> ClassifierTraining:
    """Begin to train a classifier.

    Initial weights come from the stream "weights" of ``seed``, the draws of epoch e from the stream "epoch{e}", its
    dropout from "dropout{e}": they do not depend on how many epochs there are, nor does anything else but a schedule
    that is laid over all of them (``config.schedule_epochs``). All images are brought to the device once, and epochs
    are composed there.

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
        on_batch: called after every batch with (batches done, batches of ``config.epochs``); may raise StopRequested.

    Returns:
        The training before its first epoch, to be advanced to ``config.epochs``.

    Raises:
        DataError: early stopping without validation images, or ImageNet weights that cannot be used.
    """
    if config.patience and (validation is None or len(validation) == 0):
        raise DataError(
            f"classifier.patience is {config.patience}, and there are no validation images; expected some patients of "
            "the training fold to be set aside for early stopping. Add patients, or set classifier.patience=0."
        )
    n_classes = len(real.classes)
    network = build(config, n_classes=n_classes, rng=seeding.generator(seed, "weights")).to(device)
    weighted = config.class_weights and not balanced
    weights_K = class_weights(real.counts) if weighted else torch.ones(n_classes)
    sources, pool = _on(device, real), _on(device, synthetic) if synthetic is not None else None

    def compose(epoch: int) -> Sequence[Batch]:
        rng = seeding.generator(seed, f"epoch{epoch}")
        return list(mixer.epoch(sources, pool, batch_size=config.batch_size, augment=augment, rng=rng))

    watched = _on(device, validation) if validation is not None and config.patience else None
    learner = Learner(network, config, weights_K.to(device))
    return ClassifierTraining(learner, compose, validation=watched, seed=seed, on_batch=on_batch)


def _on(device: torch.device, images: ImageSet) -> ImageSet:
    return replace(images, images_NCHW=images.images_NCHW.to(device), labels_N=images.labels_N.to(device))


class ClassifierTraining:
    """A training in progress: a position, in epochs, on a trajectory that does not depend on where it will end.

    So more epochs continue fewer ones, and a training that was killed or stopped, also between two batches, goes on
    from its last checkpoint, to the byte. Made by ``begin_classifier``.
    """

    def __init__(
        self, learner: Learner, compose: Compose, *, validation: ImageSet | None, seed: int, on_batch: OnStep
    ) -> None:
        self._learner = learner
        self._compose = compose
        self._validation = validation
        self._stopping = EarlyStopping(learner.config.patience) if validation is not None else None
        self._seed = seed
        self._on_batch = on_batch
        self._dropout = torch.Generator()
        seed_dropout(learner.network, self._dropout)
        self._losses: list[float] = []
        self._batches = self._in_epoch = 0
        """Done of the epoch that has begun, and how many it has."""
        self._total = 0.0
        """Sum over their images of the losses that were looked at."""
        self._unread: list[tuple[Tensor, int]] = []
        """The losses of the last batches, on the device, with the batches' images."""

    @property
    def done(self) -> int:
        """Whole epochs done; with early stopping fewer than asked for, where it has ended the training."""
        return len(self._losses)

    def step(self) -> None:
        """One more epoch, or what is left of it; nothing where early stopping has ended the training.

        Raises:
            DivergedError: a non-finite loss, at the latest ``READ_EVERY`` batches later.
            EmptyPoolError: the mixer needs synthetic images and there are none.
            StopRequested: passed on from ``on_batch``.
        """
        if self._has_ended:
            return
        with deterministic(self._learner.device):
            loss = self._finish_epoch()
            if self._stopping is not None and self._validation is not None:
                self._stopping.record(self._learner.validation_loss(self.done, self._validation), self._learner.network)
        self._losses.append(loss)
        self._batches, self._total = 0, 0.0

    def _finish_epoch(self) -> float:
        """Train on the batches left; returns the epoch's mean loss."""
        epoch, epochs = self.done, self._learner.config.epochs
        if not self._batches:
            self._dropout.manual_seed(seeding.stream(self._seed, f"dropout{epoch}"))
        batches = self._compose(epoch)
        self._in_epoch = len(batches)
        self._learner.network.train()
        for batch in batches[self._batches :]:
            loss = self._learner.learn(batch, epoch, self._batches, len(batches))
            self._unread.append((loss, len(batch.images_NCHW)))
            self._batches += 1
            if len(self._unread) == READ_EVERY:
                self._read_losses()
            self._on_batch(epoch * len(batches) + self._batches, epochs * len(batches))
        self._read_losses()
        return self._total / sum(len(batch.images_NCHW) for batch in batches)

    def _read_losses(self) -> None:
        """Wait for the device, and add up what it has computed. Raises: DivergedError."""
        if not self._unread:
            return
        losses = torch.stack([loss for loss, _ in self._unread]).tolist()
        first = self._batches - len(losses) + 1
        for batch, (loss, (_, images)) in enumerate(zip(losses, self._unread, strict=True), start=first):
            self._learner.check(loss, "loss", self.done, f", batch {batch} of {self._in_epoch}")
            self._total += loss * images
        self._unread.clear()

    def state(self) -> dict[str, Tensor]:
        """Everything that ``restore`` needs to go on, as named contiguous CPU tensors for safetensors.

        Its ``done`` counts an epoch that has begun, since nothing of it belongs to a training that ends before. Of one
        that early stopping has ended there are the best weights, and no last ones that anything would go on from.

        Raises:
            DivergedError: a batch of that epoch had a non-finite loss.
        """
        self._read_losses()
        return {
            "done": torch.tensor(self.done + (self._batches > 0)),
            "batches": torch.tensor(self._batches),
            "total": torch.tensor(self._total, dtype=torch.float64),
            "losses": torch.tensor(self._losses, dtype=torch.float64),
            **pack(self._watching),
            **({} if self._has_ended else pack(self._changing)),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where ``state`` was taken; the training was begun with the same images, settings and seed."""
        unpack(self._watching, state)
        if not self._has_ended:
            unpack(self._changing, state)
        self._learner.forget()
        self._batches = int(state["batches"])
        self._total = float(state["total"])
        self._losses = state["losses"].tolist()
        self._unread.clear()

    @property
    def _has_ended(self) -> bool:
        return self._stopping is not None and self._stopping.stops

    @property
    def _watching(self) -> Mapping[str, Part]:
        return {} if self._stopping is None else {"stopping": self._stopping}

    @property
    def _changing(self) -> Mapping[str, Part]:
        return {**self._learner.parts, "dropout": self._dropout}

    def fitted(self) -> TrainedClassifier:
        """The classifier after the epochs done, with early stopping after the best of them.

        The training itself stays as it is.

        Returns:
            The classifier; its history has the mean loss of each epoch as "loss", with early stopping also
            "validation_loss" (class weights as in training, no label smoothing) and the epoch kept, from 1, as
            "kept_epoch".
        """
        network = copy.deepcopy(self._learner.network)
        history = {"loss": list(self._losses)}
        if self._stopping is not None:
            self._stopping.load_best(network)
            kept = float(self._stopping.kept + 1)
            history |= {"validation_loss": list(self._stopping.losses), "kept_epoch": [kept]}
        return TrainedClassifier(network=network.eval(), history=history, device=self._learner.device)
