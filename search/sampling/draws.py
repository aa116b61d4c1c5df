"""Proposals without a model: what a proposer is, independent draws from a space, and a grid of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from spaces.space import Assignment, Space
from trainables.results import TrialResult
from trainables.seeding import stream

STARTUP_TRIALS = 8
"""Trials told, reference policies included, before anything is modelled."""
_REDRAWS = 10
GRID_LIMIT = 100_000
GRID_POINTS = 3
"""Values per number on a grid: both bounds and the middle of the parameter's own scale."""


class Proposer(Protocol):
    """Suggests what to try next."""

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """The configuration of proposal ``number`` (from 0, reference policies counted), or None if none is left.

        Args:
            number: how many trials have been proposed before.
            trials: all of them, as the ledger has them now.
        """


class RandomProposer:
    """Independent draws from the space."""

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        return untried(self._draw, number, trials)

    def _draw(self, name: str) -> Assignment:
        return self._space.sample(random.Random(stream(self._seed, name)))  # noqa: S311 - no secret


def untried(draw: Callable[[str], Assignment], number: int, trials: Sequence[TrialResult]) -> Assignment:
    """A draw that is no trial yet, or one that is after a few attempts, as in a space with few configurations."""
    tried = [trial.config for trial in trials]
    names = [f"proposal{number}", *(f"proposal{number}/again{attempt}" for attempt in range(_REDRAWS))]
    drawn: Assignment = {}
    for name in names:
        drawn = draw(name)
        if drawn not in tried:
            break
    return drawn


class GridProposer:
    """Every configuration of a grid, each once, in an order shuffled by the seed so that a part of it is fair.

    Of a grid with more than ``GRID_LIMIT`` configurations as many are drawn as trials are wanted: branch by branch, so
    that a generator with many settings is not tried more often than one with few.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._grid = list(itertools.islice(space.grid(GRID_POINTS), GRID_LIMIT + 1))
        self._is_whole = len(self._grid) <= GRID_LIMIT
        random.Random(stream(seed, "grid")).shuffle(self._grid)  # noqa: S311 - no secret

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        if not self._is_whole:
            return untried(self._draw, number, trials)
        tried = [trial.config for trial in trials]
        return next((config for config in self._grid if config not in tried), None)

    def _draw(self, name: str) -> Assignment:
        rng = random.Random(stream(self._seed, name))  # noqa: S311 - no secret
        drawn: Assignment = {}
        for dimension in self._space.dimensions:
            if dimension.exists(drawn):
                drawn[dimension.name] = rng.choice(dimension.parameter.grid(GRID_POINTS))
        return drawn
