"""A score with its interval; cheap to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A score with its interval.

    Args:
        estimate: the score of all images.
        low: lower end.
        high: upper end.
        resamples: number of resamples in which the score was defined.
    """

    estimate: float
    low: float
    high: float
    resamples: int
