"""What a generator is: it learns from a training fold and then makes images of any class it saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from trainables.data.image_set import ImageSet

OnStep: TypeAlias = Callable[[int, int], None]
"""Called with (steps done, steps in all); may raise StopRequested. Cheap enough to call at every step."""

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


class Generator(Protocol):
    """An untrained generator with its configuration."""

    def fit(self, train: ImageSet, *, seed: int, device: torch.device, on_step: OnStep) -> FittedGenerator:
        """Learn from the training fold.

        Args:
            train: the only images it may ever see.
            seed: every random draw descends from it.
            device: where to compute.
            on_step: called after every step.

        Raises:
            DivergedError: non-finite losses.
            StopRequested: passed on from ``on_step``.
        """

    def load(
        self, state: Mapping[str, Tensor], history: History, *, n_classes: int, pixels: int, device: torch.device
    ) -> FittedGenerator:
        """The fitted generator whose ``state()`` and ``history`` these are."""
