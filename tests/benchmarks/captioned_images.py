"""Images and captions that say what they show and how they look beside others of their kind, and nothing else.

The looks are measured on each image itself; classes are read for one thing only, to halve a data set evenly.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from spaces.config import PreprocessConfig
from trainables.data.cohort import Cohort
from trainables.data.preprocess import fit_scaling, preprocess
from trainables.data.reading import read_cohort
from trainables.data.splits import make_folds

PIXELS = 32
VARIANTS = 8
"""The image itself and copies shifted, darker or brighter; each is captioned anew."""
EMPTY = 0.1
"""Share of empty captions, for classifier-free guidance (Ho & Salimans 2022, section 3.2)."""
LOOKS: dict[tuple[str, str, str], Callable[[Tensor], Tensor]] = {
    ("dark", "grey", "bright"): lambda images: images.mean(dim=(1, 2)),
    ("flat", "even", "stark"): lambda images: images.std(dim=(1, 2)),
    ("smooth", "plain", "rough"): lambda images: _edges(images, 1) + _edges(images, 2),
    ("upright", "square", "wide"): lambda images: _edges(images, 1) - _edges(images, 2),
    ("hollow", "level", "full"): lambda images: images[:, 8:-8, 8:-8].mean(dim=(1, 2)) - images.mean(dim=(1, 2)),
    ("heavy", "poised", "light"): lambda images: (images[:, :16] - images[:, 16:]).mean(dim=(1, 2)),
    ("left", "central", "right"): lambda images: (images[:, :, 16:] - images[:, :, :16]).mean(dim=(1, 2)),
    ("deep", "mild", "pale"): lambda images: images.flatten(1).quantile(0.1, dim=1),
}
"""Words for the lowest, middle and highest third of each measure of images (N, 32, 32), among those of one kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """Images to learn from: float32 (N, 1, 32, 32) in [-1, 1], what each shows, and the words for its looks."""

    images_NCHW: Tensor
    nouns: list[str]
    looks: list[list[str]]

    def caption(self, index: int, *, rng: torch.Generator) -> str:
        """A text with some of its words, in any order; or none at all."""
        if float(torch.rand(1, generator=rng)) < EMPTY:
            return ""
        order = torch.randperm(len(LOOKS), generator=rng)[: int(torch.randint(5, (1,), generator=rng))]
        return " ".join(["a photo of", *(self.looks[index][look] for look in order), self.nouns[index]])


def _edges(images_NHW: Tensor, dim: int) -> Tensor:
    return images_NHW.diff(dim=dim).abs().mean(dim=(1, 2))


def looks_of(images_NHW: Tensor) -> list[list[str]]:
    """For each image a word from each of ``LOOKS``."""
    columns = []
    for words, measure in LOOKS.items():
        values_N = measure(images_NHW)
        thirds_N = torch.bucketize(values_N, values_N.quantile(torch.tensor([1 / 3, 2 / 3])))
        columns.append([words[int(third)] for third in thirds_N])
    return [list(row) for row in zip(*columns, strict=True)]


def varied(images_NCHW: Tensor, *, rng: torch.Generator) -> Tensor:
    """The images shifted by up to two pixels, with up to 15 % more or less contrast, and as much brightness."""
    count = len(images_NCHW)
    padded_NHW = functional.pad(images_NCHW, (2, 2, 2, 2), mode="replicate")[:, 0]
    rows_NP, columns_NP = (torch.randint(5, (count, 1), generator=rng) + torch.arange(PIXELS) for _ in range(2))
    shifted_NHW = padded_NHW[torch.arange(count)[:, None, None], rows_NP[:, :, None], columns_NP[:, None, :]]
    gain_N1, offset_N1 = (0.3 * torch.rand(count, 1, 1, generator=rng) - 0.15 for _ in range(2))
    return (shifted_NHW * (1 + gain_N1) + offset_N1).clamp(-1, 1)[:, None]


def captioned(kinds: dict[str, Tensor], *, rng: torch.Generator) -> Captioned:
    """Every kind's images and their variants, with words."""
    images, nouns, looks = [], [], []
    for noun, own_NCHW in kinds.items():
        all_NCHW = torch.cat([own_NCHW, *(varied(own_NCHW, rng=rng) for _ in range(VARIANTS - 1))])
        images.append(all_NCHW)
        nouns += [noun] * len(all_NCHW)
        looks += looks_of(all_NCHW[:, 0])
    return Captioned(images_NCHW=torch.cat(images), nouns=nouns, looks=looks)


def read_kinds(named: Sequence[str], out: Path, *, seed: int) -> dict[str, Tensor]:
    """Images by what they show; of the first, half the patients, while the others go into ``out``/rest.csv."""
    kinds: dict[str, Tensor] = {}
    for text in named:
        noun, _, data = text.partition("=")
        with tempfile.TemporaryDirectory() as cache:
            cohort = read_cohort(Path(data), cache=Path(cache))
            seen = range(len(cohort)) if kinds else _half(cohort, out / "rest.csv", seed=seed)
            config = PreprocessConfig(pixels=PIXELS)
            kinds[noun] = preprocess(cohort, seen, fit_scaling(cohort, seen, config), config).images_NCHW
        print(f"{noun}: learns from {len(seen)} of {len(cohort)} images", flush=True)
    return kinds


def _half(cohort: Cohort, rest: Path, *, seed: int) -> Sequence[int]:
    halves = make_folds(cohort, folds=2, seed=seed)[0]
    with rest.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("path", "label", "patient"))
        for index in halves.test:
            entry = cohort.entries[index]
            writer.writerow((entry.id, cohort.classes[entry.label], entry.patient))
    return halves.train
