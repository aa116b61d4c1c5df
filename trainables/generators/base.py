"""What a generator is: it learns from a training fold step by step, and then makes images of any class it saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from trainables.data.image_set import ImageSet
from trainables.generators.previews import Previews

History: TypeAlias = Mapping[str, Sequence[float] | Sequence[Sequence[float]]]
"""Recorded curves by name, one entry per step (losses) or per generation (selected mutation, fitness)."""


class FittedGenerator(Protocol):
    """A trained generator."""

    @property
    def history(self) -> History:
        """What was recorded while it trained, plain numbers."""

    def sample(self, class_index: int, start: int, count: int, *, seed: int) -> Tensor:
        """Images ``start`` to ``start + count`` of one class.

        Args:
            class_index: the class, as in the training set's labels.
            start: index of the first image.
            count: how many.
            seed: the pool's seed; image i of class c depends on (weights, seed, c, i) only, to the bit, not on
                ``start``, ``count`` or any batching.

        Returns:
            float32 images (count, 1, P, P) in [-1, 1] on the CPU.
        """

    def state(self) -> dict[str, Tensor]:
        """Everything that ``sample`` needs, as named CPU tensors for safetensors."""


class Training(Protocol):
    """A training in progress: a position on a trajectory that does not depend on where it will end.

    So more steps continue fewer ones, and a training that was killed goes on from its last checkpoint, to the byte.
    """

    @property
    def done(self) -> int:
        """Steps done."""

    def step(self) -> None:
        """One more step. Raises: DivergedError if it leads nowhere."""

    def state(self) -> dict[str, Tensor]:
        """Everything that ``restore`` needs to go on, as named contiguous CPU tensors for safetensors."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where ``state`` was taken; the training was begun with the same images, settings and seed."""

    def previews(self) -> Previews | None:
        """Images of each class on fixed noise over training time; None where there are none."""

    def fitted(self, *, checked: bool = True) -> FittedGenerator:
        """The generator as it is now; the training itself stays as it is.

        Raises: DivergedError if its images are all alike, or noise; only where they are ``checked``, and not where
            trials sample with settings of their own, whose pools are judged instead.
        """


class Generator(Protocol):
    """An untrained generator with its configuration."""

    def begin(self, train: ImageSet, *, seed: int, device: torch.device) -> Training:
        """Begin to learn from the training fold.

        Args:
            train: the only images it may ever see.
            seed: every random draw descends from it.
            device: where to compute.

        Raises:
            DataError: the fold has no images.
        """

    def load(
        self, state: Mapping[str, Tensor], history: History, *, n_classes: int, pixels: int, device: torch.device
    ) -> FittedGenerator:
        """The fitted generator whose ``state()`` and ``history`` these are."""
