"""How faithful synthetic images are to a fold's real images: KID, density and coverage, precision and recall, copies.

Everything is measured against the training fold; no function here has a use for test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from trainables import seeding
from trainables.data.image_set import ImageSet
from trainables.files import read_json, write_json
from trainables.metrics.copies import ClosePair, find_copies
from trainables.metrics.extractor import RECIPE_DIGEST, Extractor

STAGE_VERSION = 3
"""Raised by hand when fidelity or copies come out as other numbers than before, or other images are refused.

2: equal images of several patients count as one patient's where copies are sought. 3: noise is refused.
"""

NEIGHBOURS = 5
"""For all four neighbourhood scores, as Naeem et al. 2020; the 3 of Kynkaanniemi et al. 2019 were chosen for 50,000
images: of a hundred, the third neighbour's distance says more about chance than about the distribution."""

KID_SUBSETS = 100
KID_MAX_SUBSET = 1000
DRAWS = 10
"""Random subsets of the larger set, where real and synthetic images of a class differ in number."""

Floats: TypeAlias = npt.NDArray[np.float64]

_FILE = "fidelity.json"
_PAIRS = "pairs.json"
_PICTURES = "pairs.npy"
_NOT_VALUES = ("counts", "extractor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kid:
    """Kernel Inception Distance: mean and standard deviation over subsets. The mean can be slightly negative."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhoods:
    """Scores of two sets by their nearest neighbours; all in [0, 1] but density, which has no upper limit.

    Args:
        precision: share of synthetic images within the neighbourhood of a real image.
        recall: share of real images within the neighbourhood of a synthetic image.
        density: mean number of real neighbourhoods that a synthetic image lies in, over k; 1 for equal distributions.
        coverage: share of real images with a synthetic image in their neighbourhood; about 1 - 2^-k for equal
            distributions and numbers.
    """

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fidelity:
    """What was found about a set of synthetic images.

    Args:
        values: kid, kid_std, precision, recall, density, coverage, ``density_<class>`` and ``coverage_<class>`` of
            each class, copy_rate, copy_rate_pixels, copy_rate_features; None where the numbers of images leave a
            value undefined.
        counts: images of each class, of "real" and "synthetic".
        pairs: up to five closest pairs of a synthetic and a training image.
    """

    values: Mapping[str, float | None]
    counts: Mapping[str, tuple[int, ...]]
    pairs: tuple[ClosePair, ...]


def squared_mmd(real_ND: Floats, synthetic_MD: Floats) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy, kernel (x.y / D + 1)^3.

    Args:
        real_ND: features, N >= 2.
        synthetic_MD: features, M >= 2.

    Returns:
        Zero in expectation for equal distributions, so that it may be negative.

    Source: Gretton et al. 2012, equation 3; kernel: Binkowski et al. 2018, section 4.
    """
    n, m = len(real_ND), len(synthetic_MD)
    real_NN, synthetic_MM, both_NM = (
        polynomial_kernel(left, right, degree=3, gamma=1 / left.shape[1], coef0=1)
        for left, right in ((real_ND, real_ND), (synthetic_MD, synthetic_MD), (real_ND, synthetic_MD))
    )
    within_real = (real_NN.sum() - np.trace(real_NN)) / (n * (n - 1))
    within_synthetic = (synthetic_MM.sum() - np.trace(synthetic_MM)) / (m * (m - 1))
    return float(within_real + within_synthetic - 2 * both_NM.mean())


def kid(real_ND: Floats, synthetic_MD: Floats, *, rng: torch.Generator) -> Kid | None:
    """Kernel Inception Distance over random subsets, drawn without replacement.

    Small-sample rule: subsets hold half of the smaller set, at most 1,000 images. With subsets as large as the set
    every subset would be the same and the deviation 0; with half of it, and sets of equal size, the deviation over
    subsets estimates the standard error of the mean (the jackknife that deletes half).

    Args:
        real_ND: features of all classes.
        synthetic_MD: features of all classes, in about the same proportions: a shift of these counts as distance.
        rng: CPU generator.

    Returns:
        None where the smaller set has fewer than 4 images.

    Source: Binkowski et al. 2018, section 4; the jackknife that deletes many: Shao & Wu 1989.
    """
    size = min(KID_MAX_SUBSET, min(len(real_ND), len(synthetic_MD)) // 2)
    if size < 2:
        return None
    estimates = [squared_mmd(_subset(real_ND, size, rng), _subset(synthetic_MD, size, rng)) for _ in range(KID_SUBSETS)]
    return Kid(mean=float(np.mean(estimates)), std=float(np.std(estimates)))


def neighbourhoods(real_ND: Floats, synthetic_MD: Floats, *, k: int) -> Neighbourhoods:
    """Precision, recall, density and coverage.

    An image's neighbourhood is the ball that reaches to its k-th nearest neighbour in its own set.

    Args:
        real_ND: features, N > k.
        synthetic_MD: features, M > k.
        k: the neighbour, not counting the image itself.

    Source: Kynkaanniemi et al. 2019, equations 1 and 2; Naeem et al. 2020, section 3.
    """
    distance_NM = euclidean_distances(real_ND, synthetic_MD)
    in_real_NM = distance_NM <= _radii(real_ND, k)[:, None]
    in_synthetic_NM = distance_NM <= _radii(synthetic_MD, k)
    return Neighbourhoods(
        precision=float(in_real_NM.any(axis=0).mean()),
        recall=float(in_synthetic_NM.any(axis=1).mean()),
        density=float(in_real_NM.sum(axis=0).mean() / k),
        coverage=float(in_real_NM.any(axis=1).mean()),
    )


def equal_neighbourhoods(real_ND: Floats, synthetic_MD: Floats, *, rng: torch.Generator) -> Neighbourhoods | None:
    """``neighbourhoods`` of equally many real and synthetic images.

    Small-sample rule: coverage and recall grow with the number of images, so the larger set is cut to the size of
    the smaller at random, ten times, and the scores are averaged. What equal distributions score then depends little
    on the number.

    Args:
        real_ND: features of one class.
        synthetic_MD: features of the same class.
        rng: CPU generator.

    Returns:
        None where the smaller set has no more than ``NEIGHBOURS`` images.
    """
    size = min(len(real_ND), len(synthetic_MD))
    if size <= NEIGHBOURS:
        return None
    draws = 1 if len(real_ND) == len(synthetic_MD) else DRAWS
    found = [
        neighbourhoods(_subset(real_ND, size, rng), _subset(synthetic_MD, size, rng), k=NEIGHBOURS)
        for _ in range(draws)
    ]
    return Neighbourhoods(
        precision=float(np.mean([each.precision for each in found])),
        recall=float(np.mean([each.recall for each in found])),
        density=float(np.mean([each.density for each in found])),
        coverage=float(np.mean([each.coverage for each in found])),
    )


def _radii(features_ND: Floats, k: int) -> Floats:
    neighbours = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(features_ND)
    radii_N: Floats = neighbours.kneighbors()[0][:, -1]
    return radii_N


def _subset(features_ND: Floats, size: int, rng: torch.Generator) -> Floats:
    chosen: Floats = features_ND[torch.randperm(len(features_ND), generator=rng)[:size].numpy()]
    return chosen


def fidelity(real: ImageSet, synthetic: ImageSet, extractor: Extractor, *, seed: int) -> Fidelity:
    """Compare synthetic images with the real images of the training fold.

    Precision, recall, density and coverage are computed within each class; their means are over the classes where
    they are defined: those with more than ``NEIGHBOURS`` real and synthetic images.

    Args:
        real: the training fold's real images, those that the extractor and the generator were trained on.
        synthetic: images of the same size and classes, in about the same proportions of classes.
        extractor: of the same fold.
        seed: every random subset descends from it.

    Raises:
        ValueError: the sets differ in classes or in the size of their images, or there are no real images.

    Source: methods, evaluation.
    """
    if real.classes != synthetic.classes:
        raise ValueError(
            f"fidelity compares images of the same classes; got real images of {real.classes} and synthetic images "
            f"of {synthetic.classes}. Sample the pool with the training fold's classes."
        )
    copies = find_copies(real, synthetic, extractor.features, device=extractor.device)
    real_ND, synthetic_MD = (extractor.features(each.images_NCHW).double().numpy() for each in (real, synthetic))
    distance = kid(real_ND, synthetic_MD, rng=seeding.generator(seed, "kid"))
    by_class = {
        name: equal_neighbourhoods(
            real_ND[(real.labels_N == label).numpy()],
            synthetic_MD[(synthetic.labels_N == label).numpy()],
            rng=seeding.generator(seed, f"neighbourhoods/{name}"),
        )
        for label, name in enumerate(real.classes)
    }
    values: dict[str, float | None] = {
        "kid": distance.mean if distance else None,
        "kid_std": distance.std if distance else None,
        **_means([each for each in by_class.values() if each]),
        **{f"density_{name}": each.density if each else None for name, each in by_class.items()},
        **{f"coverage_{name}": each.coverage if each else None for name, each in by_class.items()},
        "copy_rate": copies.rate,
        "copy_rate_pixels": copies.rate_pixels,
        "copy_rate_features": copies.rate_features,
    }
    return Fidelity(values=values, counts={"real": real.counts, "synthetic": synthetic.counts}, pairs=copies.pairs)


def _means(defined: list[Neighbourhoods]) -> dict[str, float | None]:
    names = ("precision", "recall", "density", "coverage")
    return {name: float(np.mean([getattr(each, name) for each in defined])) if defined else None for name in names}


def write_fidelity(folder: Path, found: Fidelity, classes: tuple[str, ...]) -> None:
    """Write the values with their counts as ``fidelity.json`` and the pairs as ``pairs.json`` and ``pairs.npy``.

    ``pairs.npy`` is uint8 (pairs, 2, P, P): the synthetic image, then the training image turned the way that matched.
    """
    counts = {kind: dict(zip(classes, numbers, strict=True)) for kind, numbers in found.counts.items()}
    write_json(folder / _FILE, {**found.values, "counts": counts, "extractor": RECIPE_DIGEST})
    write_json(
        folder / _PAIRS,
        [
            {
                "synthetic": pair.synthetic,
                "training": pair.training,
                "distance": pair.distance,
                "threshold": pair.threshold,
                "space": pair.space,
            }
            for pair in found.pairs
        ],
    )
    pictures = np.array([pair.images_2HW for pair in found.pairs], dtype=np.uint8)
    np.save(folder / _PICTURES, pictures, allow_pickle=False)


def read_fidelity(folder: Path) -> Mapping[str, float | None]:
    """The values that ``write_fidelity`` wrote, without the counts. Raises: OSError or ValueError, as ``json`` does."""
    return {name: value for name, value in read_json(folder / _FILE).items() if name not in _NOT_VALUES}


def read_pairs(folder: Path) -> tuple[ClosePair, ...]:
    """The closest pairs that ``write_fidelity`` wrote. Raises: OSError or ValueError, as ``json`` and numpy do."""
    pictures = np.load(folder / _PICTURES, allow_pickle=False)
    return tuple(
        ClosePair(**pair, images_2HW=images_2HW)
        for pair, images_2HW in zip(read_json(folder / _PAIRS), pictures, strict=True)
    )
