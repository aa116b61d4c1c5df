"""What a generator makes of the same noise as its training goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.files import write_json

FIRST = 25
PREVIEWED = 4
"""Images of each class."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Previews:
    """Images on fixed noise over training time.

    Args:
        steps: T numbers of steps done.
        images_TKMHW: uint8, M images of each of K classes; 0 is black (-1), 255 white (1). A class without training
            images is black.
    """

    steps: tuple[int, ...]
    images_TKMHW: Tensor


def is_due(done: int) -> bool:
    """Whether to look after ``done`` steps: at 0, 25, 50, 100, 200, 400, ..., whatever the length of the training."""
    rounds, rest = divmod(done, FIRST)
    return done == 0 or (rest == 0 and rounds & (rounds - 1) == 0)


def to_uint8(images_NCHW: Tensor) -> Tensor:
    """float32 images (N, 1, P, P) in [-1, 1] as uint8 (N, P, P)."""
    return ((images_NCHW[:, 0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def write_previews(folder: Path, previews: Previews, classes: tuple[str, ...]) -> None:
    """Write ``previews.npy`` (uint8, T x K x M x P x P) and ``previews.json`` into an existing folder."""
    np.save(folder / "previews.npy", previews.images_TKMHW.numpy(), allow_pickle=False)
    write_json(folder / "previews.json", {"steps": previews.steps, "classes": classes})
