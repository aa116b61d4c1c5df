"""A classifier's network and how it learns from one batch, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from spaces.config import ClassifierConfig
from trainables.classifiers.dropout import SeededDropout
from trainables.classifiers.losses import jensen_shannon, smoothed, soft_cross_entropy
from trainables.classifiers.optimisation import SCHEDULES, optimizer
from trainables.classifiers.trained import in_chunks
from trainables.data.image_set import ImageSet
from trainables.errors import DivergedError
from trainables.mixers.base import Batch
from trainables.training.adam import set_rate
from trainables.training.graphs import Graphs
from trainables.training.parts import Part


class Learner:
    """A network in training.

    On a GPU, the forward pass computes in bfloat16 where ``config.amp`` says so, the loss in float32, and whole updates
    by batches of ``config.batch_size`` images are recorded and replayed, unless the network draws masks in them.

    Args:
        network: on the device.
        config: how it learns.
        weights_K: of the classes, float32 on the device.
    """

    def __init__(self, network: nn.Module, config: ClassifierConfig, weights_K: Tensor) -> None:
        self.network = network
        self.config = config
        self.device = weights_K.device
        self._weights_K = weights_K
        self._optimizer = optimizer(config, network.parameters())
        self._replays = self.device.type == "cuda" and not any(
            isinstance(layer, SeededDropout) for layer in network.modules()
        )
        self._recorded: _RecordedUpdate | None = None

    @property
    def parts(self) -> Mapping[str, Part]:
        """All that changes in it. See ``forget``."""
        return {"network": self.network, "optimizer": self._optimizer}

    def forget(self) -> None:
        """To be called where a part was restored: a recorded update works on the tensors that were there before."""
        self._recorded = None

    def learn(self, batch: Batch, epoch: int, index: int, count: int) -> Tensor:
        """One update by batch ``index`` (from 0) of ``count``; returns the loss before it, a scalar on the device."""
        config = self.config
        factor = SCHEDULES[config.schedule](epoch * count + index, (config.span or config.epochs) * count)
        set_rate(self._optimizer, config.learning_rate * factor)
        if not self._replays or len(batch.images_NCHW) != config.batch_size:
            return self._update(batch)
        if self._recorded is None:
            self._recorded = _RecordedUpdate(batch)
        return self._recorded(self._update, batch)

    def _update(self, batch: Batch) -> Tensor:
        images_MCHW = torch.cat((batch.images_NCHW, *batch.views)) if batch.views else batch.images_NCHW
        targets_NK = batch.targets_NK
        mixed_precision = self.config.amp and self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed_precision):
            logits_MK = self.network(images_MCHW)
        logits_VNK = logits_MK.float().unflatten(0, (-1, len(targets_NK)))
        loss = soft_cross_entropy(logits_VNK[0], smoothed(targets_NK, self.config.label_smoothing), self._weights_K)
        if batch.views:
            loss = loss + batch.consistency * jensen_shannon(logits_VNK)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()

    def validation_loss(self, epoch: int, validation: ImageSet) -> float:
        """The loss on images as they are, weighted by class as in training, without label smoothing.

        Raises: DivergedError.
        """
        logits_NK = in_chunks(self.network, self.network, validation.images_NCHW, self.device)
        targets_NK = one_hot(validation.labels_N.cpu(), len(validation.classes)).float()
        loss = soft_cross_entropy(logits_NK, targets_NK, self._weights_K.cpu()).item()
        self.check(loss, "validation loss", epoch, "")
        return loss

    def check(self, loss: float, what: str, epoch: int, where: str) -> None:
        """Raises: DivergedError if a loss is not finite."""
        if not math.isfinite(loss):
            raise DivergedError(
                f"the classifier's {what} is not finite: {loss} in epoch {epoch + 1} of {self.config.epochs}{where}. "
                f"Lower classifier.learning_rate ({self.config.learning_rate})."
            )


class _RecordedUpdate:
    """An update on a GPU by batches that all look like the first one, brought to fixed places."""

    def __init__(self, like: Batch) -> None:
        self._places = replace(
            like,
            images_NCHW=torch.empty_like(like.images_NCHW),
            targets_NK=torch.empty_like(like.targets_NK),
            views=tuple(torch.empty_like(view_NCHW) for view_NCHW in like.views),
        )
        self._graphs = Graphs(like.device)

    def __call__(self, update: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        places = self._places
        places.images_NCHW.copy_(batch.images_NCHW)
        places.targets_NK.copy_(batch.targets_NK)
        for place_NCHW, view_NCHW in zip(places.views, batch.views, strict=True):
            place_NCHW.copy_(view_NCHW)
        return self._graphs.run(lambda drawn: (update(places),), {})[0]
