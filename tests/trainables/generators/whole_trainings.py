"""Trainings from their beginning to their end, for tests that care for the result alone."""

from __future__ import annotations

import torch

from trainables.data.image_set import ImageSet
from trainables.generators.base import FittedGenerator, Generator
from trainables.training.loop import OnStep, advance


def fit(
    generator: Generator, steps: int, train: ImageSet, *, seed: int, device: torch.device, on_step: OnStep
) -> FittedGenerator:
    training = generator.begin(train, seed=seed, device=device)
    advance(training, steps, on_step=on_step)
    return training.fitted()


def toy() -> ImageSet:
    """24 images of noise in two classes, one dark, one bright."""
    rng = torch.Generator().manual_seed(0)
    labels_N = torch.arange(24) % 2
    noise_NCHW = 0.2 * torch.randn(24, 1, 32, 32, generator=rng)
    names = tuple(f"image{index}" for index in range(24))
    return ImageSet(
        images_NCHW=(0.8 * labels_N[:, None, None, None] - 0.4 + noise_NCHW).clamp(-1, 1),
        labels_N=labels_N,
        ids=names,
        patients=names,
        classes=("dark", "bright"),
    )
