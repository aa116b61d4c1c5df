"""The copy rate on the cardiac set, whose patients have many slices: noisy copies are found, held-out patients not."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spaces.config import PreprocessConfig
from trainables.data.image_set import ImageSet
from trainables.data.preprocess import fit_scaling, preprocess
from trainables.data.reading import read_cohort
from trainables.data.splits import make_folds
from trainables.metrics.copies import find_copies, turned
from trainables.metrics.extractor import Extractor, train_extractor
from trainables.seeding import generator

FOLDER = os.environ.get("GENMIX_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER, reason="GENMIX_REAL_DATA names no folder with the real image sets"),
]
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fold:
    train: ImageSet
    test: ImageSet
    extractor: Extractor


@pytest.fixture(scope="module", params=[0, 1])
def fold(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fold:
    cohort = read_cohort(
        Path(FOLDER or "") / "cardiac_sunnybrook", "labels.csv", cache=tmp_path_factory.mktemp("cache")
    )
    split, config = make_folds(cohort, folds=5, seed=0)[request.param], PreprocessConfig(pixels=32)
    scaling = fit_scaling(cohort, split.train, config)
    train, test = (preprocess(cohort, indices, scaling, config) for indices in (split.train, split.test))
    extractor = train_extractor(train, seed=0, device=CPU, on_step=lambda done, total: None)
    return Fold(train=train, test=test, extractor=extractor)


def copies_of(train: ImageSet, *, noise: float) -> ImageSet:
    """Every training image once, turned at random, with noise."""
    rng = generator(1)
    orientations = torch.randint(8, (len(train),), generator=rng).tolist()
    images: list[Tensor] = [turned(train.images_NCHW[i : i + 1], each) for i, each in enumerate(orientations)]
    images_NCHW = torch.cat(images) + noise * torch.randn(train.images_NCHW.shape, generator=rng)
    return replace(train, images_NCHW=images_NCHW.clamp(-1, 1), patients=("",) * len(train))


@pytest.mark.parametrize("noise", [0.05, 0.1])
def test_copies_with_noise_are_found(fold: Fold, noise: float) -> None:
    found = find_copies(fold.train, copies_of(fold.train, noise=noise), fold.extractor.features, device=CPU)
    assert found.rate is not None
    assert found.rate > 0.99


def test_held_out_patients_are_no_copies(fold: Fold) -> None:
    """One in a hundred is expected within the threshold, and the slices of one patient tend to be so together."""
    found = find_copies(fold.train, fold.test, fold.extractor.features, device=CPU)
    assert found.rate_pixels is not None
    assert found.rate_pixels <= 0.03
    assert found.rate is not None
    assert found.rate <= 0.1


def test_leaving_out_only_the_image_itself_would_miss_the_copies(fold: Fold) -> None:
    each_its_own = replace(fold.train, patients=fold.train.ids)
    copies = copies_of(fold.train, noise=0.1)
    found = find_copies(each_its_own, copies, fold.extractor.features, device=CPU)
    assert found.rate_pixels is not None
    assert found.rate_pixels < 0.1
