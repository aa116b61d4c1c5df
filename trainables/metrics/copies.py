"""Copies: synthetic images that lie nearer to a training image than images of different patients lie to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.data.cohort_building import group_names
from trainables.data.digests import pixel_digest
from trainables.data.image_set import ImageSet

ORIENTATIONS = 8
QUANTILE = 0.01
CLOSEST = 5
_QUERIES = 512
"""Rows of the distance matrix held at a time: 12 MB against 6,000 training images."""

Space: TypeAlias = Literal["pixels", "features"]
Features: TypeAlias = Callable[[Tensor], Tensor]
"""float32 images NCHW to features (N, D); an image's depend on that image alone, as ``Extractor.features``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearest:
    """For each of Q queries the nearest reference image that it may be compared with.

    Args:
        distance_Q: float64; infinite where there is none.
        index_Q: int64 positions among the references.
        orientation_Q: int64 in [0, 8): how the reference is turned, see ``turned``.
    """

    distance_Q: Tensor
    index_Q: Tensor
    orientation_Q: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClosePair:
    """A synthetic image and the training image nearest to it.

    Args:
        synthetic: id of the synthetic image.
        training: id of the training image.
        distance: Euclidean, in ``space``.
        threshold: a synthetic image at this distance or nearer counts as a copy.
        space: where the distance is measured.
        images_2HW: uint8, the synthetic image and the training image turned the way that matched.
    """

    synthetic: str
    training: str
    distance: float
    threshold: float
    space: Space
    images_2HW: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Copies:
    """How many synthetic images are copies, and the pairs that come closest.

    Args:
        rate: the larger of the two rates; None where they are undefined.
        rate_pixels: share of copies in [0, 1] by distance of pixels.
        rate_features: the same by distance of features.
        pairs: up to five different synthetic images, nearest first, in the space whose rate counts (pixels where
            both are equal); empty where the rates are undefined.
    """

    rate: float | None
    rate_pixels: float | None
    rate_features: float | None
    pairs: tuple[ClosePair, ...]


def turned(images_NCHW: Tensor, orientation: int) -> Tensor:
    """Turn images of equal sides into one of the eight orientations of a square.

    Args:
        images_NCHW: any type.
        orientation: 0 to 3: that many quarter turns; 4 to 7: the same after a horizontal flip. 0 is the identity.
    """
    flipped_NCHW = images_NCHW.flip(3) if orientation >= 4 else images_NCHW
    return torch.rot90(flipped_NCHW, orientation % 4, dims=(2, 3))


def nearest(
    queries_QD: Tensor,
    references: Callable[[int], Tensor],
    *,
    query_groups_Q: Tensor,
    reference_groups_R: Tensor,
) -> Nearest:
    """The nearest reference of another group, over all orientations of the references.

    Candidates are found by matrix products in chunks, in the type of the vectors; the distances of those found are
    then computed from differences in float64, so that a copy's is not lost in cancellation.

    Args:
        queries_QD: vectors of the queries, float32 or float64.
        references: gives, for an orientation, the vectors (R, D) of the references so turned, R >= 1.
        query_groups_Q: int64; a query is not compared with references of its own group.
        reference_groups_R: int64.
    """
    count, device = len(queries_QD), queries_QD.device
    distance_Q = torch.full((count,), torch.inf, dtype=torch.float64, device=device)
    index_Q = torch.zeros(count, dtype=torch.int64, device=device)
    orientation_Q = torch.zeros(count, dtype=torch.int64, device=device)
    for orientation in range(ORIENTATIONS):
        references_RD = references(orientation)
        squares_R = references_RD.square().sum(dim=1)
        for start in range(0, count, _QUERIES):
            chunk = slice(start, start + _QUERIES)
            found_B, found_index_B = _nearest_in_chunk(
                queries_QD[chunk], references_RD, squares_R, query_groups_Q[chunk, None] == reference_groups_R
            )
            closer_B = found_B < distance_Q[chunk]
            distance_Q[chunk] = torch.where(closer_B, found_B, distance_Q[chunk])
            index_Q[chunk] = torch.where(closer_B, found_index_B, index_Q[chunk])
            orientation_Q[chunk].masked_fill_(closer_B, orientation)
    return Nearest(distance_Q=distance_Q.cpu(), index_Q=index_Q.cpu(), orientation_Q=orientation_Q.cpu())


def _nearest_in_chunk(
    queries_BD: Tensor, references_RD: Tensor, squares_R: Tensor, excluded_BR: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances, float64, and positions of the nearest references that are not excluded; infinite where all are."""
    # squared distance but for the query's own square, which changes no order
    scores_BR = torch.addmm(squares_R, queries_BD, references_RD.T, alpha=-2).masked_fill_(excluded_BR, torch.inf)
    lowest_B, index_B = scores_BR.min(dim=1)
    distance_B = (queries_BD.double() - references_RD[index_B].double()).norm(dim=1)
    return distance_B.masked_fill_(lowest_B.isinf(), torch.inf), index_B


def threshold(nearest_N: Tensor) -> float:
    """The distance at or below which a synthetic image counts as a copy: the 1st percentile.

    Args:
        nearest_N: float64, each training image's distance to the nearest training image of another patient.

    Source: methods, copy rate.
    """
    return float(nearest_N.quantile(QUANTILE))


def find_copies(train: ImageSet, synthetic: ImageSet, features: Features, *, device: torch.device) -> Copies:
    """How many synthetic images are copies of training images.

    A synthetic image is a copy if its distance to the nearest training image, over the eight flips and rotations, is
    at or below the 1st percentile of the training images' distances, computed alike, to images of other patients.
    Leaving out only the image itself would miss copies: a patient's adjacent slices make that percentile nearly zero.
    Where patients are not known (each image counts as its own) the rate errs to the low side for that reason. Images
    that are equal in some orientation show one patient under several names: as of others they would make the
    percentile zero. Of independent real images about one in a hundred lies within the threshold.

    Args:
        train: the training fold's real images, with their patients; at least one.
        synthetic: images of the same size.
        features: the extractor's.
        device: where the distances are computed.

    Returns:
        The rates and the closest pairs; rates are None where there are no synthetic images or all training images are
        of one patient.

    Raises:
        ValueError: no training images, or images of another size.

    Source: methods, copy rate.
    """
    if not len(train) or train.images_NCHW.shape[1:] != synthetic.images_NCHW.shape[1:]:
        raise ValueError(
            f"copies are sought among images of one shape; got training images {tuple(train.images_NCHW.shape)} and "
            f"synthetic images {tuple(synthetic.images_NCHW.shape)}. Preprocess both alike."
        )
    spaces: dict[Space, Features] = {
        "pixels": lambda images_NCHW: images_NCHW.flatten(1).to(device),
        "features": lambda images_NCHW: features(images_NCHW).to(device).double(),
    }
    codes_N = _codes(train)
    if not len(synthetic) or not codes_N.any():
        return Copies(rate=None, rate_pixels=None, rate_features=None, pairs=())
    found = {space: _search(train, codes_N, synthetic, vectors) for space, vectors in spaces.items()}
    rates = {space: float((each.distance_M <= each.limit).double().mean()) for space, each in found.items()}
    space: Space = "features" if rates["features"] > rates["pixels"] else "pixels"
    return Copies(
        rate=rates[space],
        rate_pixels=rates["pixels"],
        rate_features=rates["features"],
        pairs=_closest(train, synthetic, found[space], space),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """The nearest training image of each of M synthetic images, and the distance that makes a copy."""

    distance_M: Tensor
    index_M: Tensor
    orientation_M: Tensor
    limit: float


def _search(train: ImageSet, codes_N: Tensor, synthetic: ImageSet, vectors: Features) -> _Found:
    """Search for training and synthetic images in one go, so that their distances are computed alike."""
    count, upright_ND = len(train), vectors(train.images_NCHW)
    codes_N = codes_N.to(upright_ND.device)
    found = nearest(
        torch.cat([upright_ND, vectors(synthetic.images_NCHW)]),
        lambda orientation: vectors(turned(train.images_NCHW, orientation)),
        query_groups_Q=torch.cat([codes_N, codes_N.new_full((len(synthetic),), -1)]),
        reference_groups_R=codes_N,
    )
    return _Found(
        distance_M=found.distance_Q[count:],
        index_M=found.index_Q[count:],
        orientation_M=found.orientation_Q[count:],
        limit=threshold(found.distance_Q[:count]),
    )


def _codes(train: ImageSet) -> Tensor:
    """int64 (N,), from 0: equal for images of one patient, for images that are equal in some orientation, and so on."""
    digests_ON = [
        [pixel_digest(image_HW) for image_HW in turned(train.images_NCHW, orientation)[:, 0].numpy()]
        for orientation in range(ORIENTATIONS)
    ]
    groups = group_names(train.patients, [min(each) for each in zip(*digests_ON, strict=True)])
    return torch.from_numpy(np.unique(groups, return_inverse=True)[1])


def _closest(train: ImageSet, synthetic: ImageSet, found: _Found, space: Space) -> tuple[ClosePair, ...]:
    pairs: list[ClosePair] = []
    for position in found.distance_M.argsort(stable=True)[:CLOSEST].tolist():
        index = int(found.index_M[position])
        twin_1CHW = turned(train.images_NCHW[index : index + 1], int(found.orientation_M[position]))
        images_2HW = torch.cat([synthetic.images_NCHW[position : position + 1], twin_1CHW])[:, 0]
        pairs.append(
            ClosePair(
                synthetic=synthetic.ids[position],
                training=train.ids[index],
                distance=float(found.distance_M[position]),
                threshold=found.limit,
                space=space,
                images_2HW=((images_2HW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy(),
            )
        )
    return tuple(pairs)
