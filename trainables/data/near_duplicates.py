"""Finds images of different patients that show the same: a sign that one patient has two names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trainables.data.cohort import Cohort

THUMBNAIL = 32
MIN_CORRELATION = 0.99
"""Of thumbnails. Chest X-rays of different patients reach .96, cardiac slices .82; copies stay above .99."""
MAX_PAIRS = 1000
"""A cohort lists no more: n images that are nearly equal are n^2 / 2 pairs."""
BLOCK = 512

Array: TypeAlias = NDArray[np.float32]


def thumbnail(pixels_HW: Array) -> Array:
    """Mean values of a 32 x 32 grid over the image, float32 (32, 32); sides below 32 repeat pixels."""
    rows = _block_starts(pixels_HW.shape[0])
    columns = _block_starts(pixels_HW.shape[1])
    sums = np.add.reduceat(pixels_HW.astype(np.float64), rows, axis=0)
    sums = np.add.reduceat(sums, columns, axis=1)
    heights = np.maximum(1, np.diff([*rows, pixels_HW.shape[0]]))
    widths = np.maximum(1, np.diff([*columns, pixels_HW.shape[1]]))
    return (sums / heights[:, None] / widths[None, :]).astype(np.float32)


def near_duplicates(thumbnails_NHW: Array, patients: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of images of different patients whose thumbnails correlate at ``MIN_CORRELATION`` or more.

    Brightness and contrast do not matter. At most ``MAX_PAIRS`` pairs are returned.

    Args:
        thumbnails_NHW: float32 (N, 32, 32).
        patients: N names.

    Returns:
        Index pairs (i, j), i < j, in order.
    """
    count = len(thumbnails_NHW)
    unit_ND = _standardized(thumbnails_NHW).astype(np.float32)
    codes_N = np.unique(np.asarray(patients), return_inverse=True)[1]
    pairs: list[tuple[int, int]] = []
    for start in range(0, count, BLOCK):
        stop = min(count, start + BLOCK)
        alike = unit_ND[start:stop] @ unit_ND[start:].T >= MIN_CORRELATION
        alike &= codes_N[start:stop, None] != codes_N[None, start:]
        left, right = np.nonzero(np.triu(alike, k=1))
        pairs += [(int(i) + start, int(j) + start) for i, j in zip(left, right, strict=True)]
        if len(pairs) >= MAX_PAIRS:
            break
    return pairs[:MAX_PAIRS]


def alike_across(cohort: Cohort, ids: Collection[str]) -> frozenset[str]:
    """Which images nearly equal one of another patient on the other side.

    The pairs that the cohort lists tell, unless there may be more than it lists: then its images are compared again.

    Args:
        cohort: the data set.
        ids: the images of one side; all others are the other one.

    Returns:
        Ids, of both sides.
    """
    inside = frozenset(ids)
    if not inside or len(cohort.near_duplicates) < MAX_PAIRS:
        across = [pair for pair in cohort.near_duplicates if (pair[0] in inside) != (pair[1] in inside)]
        return frozenset(name for pair in across for name in pair)
    names = [entry.id for entry in cohort.entries]
    thumbnails_NHW = np.stack([thumbnail(cohort.pixels(index)) for index in range(len(names))])
    alike_N = _alike_across(
        thumbnails_NHW, [entry.patient for entry in cohort.entries], np.array([name in inside for name in names])
    )
    return frozenset(names[index] for index in np.flatnonzero(alike_N))


def _alike_across(thumbnails_NHW: Array, patients: Sequence[str], inside_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which thumbnails have a near duplicate of another patient on the other side."""
    unit_ND = _standardized(thumbnails_NHW)  # float64: every process that asks must find the same
    codes_N = np.unique(np.asarray(patients), return_inverse=True)[1]
    inside_M, found_N = np.flatnonzero(inside_N), np.zeros(len(unit_ND), dtype=np.bool_)
    for start in range(0, len(inside_M), BLOCK):
        block_B = inside_M[start : start + BLOCK]
        alike_BN = unit_ND[block_B] @ unit_ND.T >= MIN_CORRELATION
        alike_BN &= (codes_N[block_B, None] != codes_N) & ~inside_N
        found_N[block_B] = alike_BN.any(axis=1)
        found_N |= alike_BN.any(axis=0)
    return found_N


def _standardized(thumbnails_NHW: Array) -> NDArray[np.float64]:
    """Rows (N, D) with mean 0 and length 1, whose products are correlations; 0 where a thumbnail is uniform."""
    flat_ND = thumbnails_NHW.reshape(len(thumbnails_NHW), -1).astype(np.float64)
    flat_ND -= flat_ND.mean(axis=1, keepdims=True)
    flat_ND /= np.maximum(np.linalg.norm(flat_ND, axis=1, keepdims=True), 1e-12)
    return flat_ND


def _block_starts(size: int) -> NDArray[np.intp]:
    return (np.arange(THUMBNAIL) * size // THUMBNAIL).astype(np.intp)
