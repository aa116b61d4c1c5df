"""Finds images of different patients that show the same: a sign that one patient has two names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = 32
MIN_CORRELATION = 0.99
"""Of thumbnails. Chest X-rays of different patients reach .96, cardiac slices .82; copies stay above .99."""
MAX_PAIRS = 1000
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
    flat_ND = thumbnails_NHW.reshape(count, -1).astype(np.float64)
    flat_ND -= flat_ND.mean(axis=1, keepdims=True)
    flat_ND /= np.maximum(np.linalg.norm(flat_ND, axis=1, keepdims=True), 1e-12)
    unit_ND = flat_ND.astype(np.float32)
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


def _block_starts(size: int) -> NDArray[np.intp]:
    return (np.arange(THUMBNAIL) * size // THUMBNAIL).astype(np.intp)
