"""Trainings from their beginning to their end, for tests that care for the result alone."""

from __future__ import annotations

import torch

from trainables.data.image_set import ImageSet
from trainables.generators.base import FittedGenerator, Generator, OnStep
from trainables.generators.fitting import advance


def fit(
    generator: Generator, steps: int, train: ImageSet, *, seed: int, device: torch.device, on_step: OnStep
) -> FittedGenerator:
    training = generator.begin(train, seed=seed, device=device)
    advance(training, steps, on_step=on_step)
    return training.fitted()
