"""Proposals without a model: what a proposer is, independent draws from a space, and a grid of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from spaces.parameter import Value
from spaces.space import Assignment, Space
from trainables.results import TrialResult
from trainables.seeding import stream

STARTUP_TRIALS = 8
"""Trials told, reference policies included, before anything is modelled."""
_REDRAWS = 10
_OTHERS = 100
"""Draws from a space with very many configurations among which one that is no trial yet is looked for at last."""
_FEW = 10_000
"""Configurations that a space may have for all of them to be looked through."""
GRID_LIMIT = 100_000
GRID_POINTS = 3
"""Values per number on a grid: both bounds and the middle of the parameter's own scale."""

Key: TypeAlias = tuple[tuple[str, Value], ...]


def key_of(config: Mapping[str, Value]) -> Key:
    """A configuration as something that can be looked up, whatever the order of its settings."""
    return tuple(sorted(config.items()))


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
        self._draws = Draws(space, seed=seed)

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        return self._draws.untried(number, trials)


class Draws:
    """Draws of configurations that no trial has.

    Args:
        space: what is searched.
        seed: the search's.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._few = space.configurations(_FEW)

    def untried(
        self, number: int, trials: Sequence[TrialResult], draw: Callable[[str], Assignment] | None = None
    ) -> Assignment | None:
        """A configuration that is no trial yet.

        Args:
            number: of the proposal.
            trials: all of the search.
            draw: what is asked first, a few times, with the name of a random stream; None: the space itself is.

        Returns:
            What ``draw`` gave, or, where it gave tried ones alone, one drawn from the space; None where all
            configurations have been tried.
        """
        name = f"proposal{number}"
        for again in ("", *(f"/again{attempt}" for attempt in range(_REDRAWS))):
            drawn = (draw or self._sample)(name + again)
            if all(trial.config != drawn for trial in trials):
                return drawn
        tried = {key_of(trial.config) for trial in trials}
        return next((other for other in self._others(name) if key_of(other) not in tried), None)

    def _others(self, name: str) -> Iterable[Assignment]:
        """All configurations of the space in any order, or many draws where it has very many."""
        if self._few is None:
            return (self._sample(f"{name}/other{attempt}") for attempt in range(_OTHERS))
        return random.Random(stream(self._seed, f"{name}/others")).sample(self._few, len(self._few))  # noqa: S311

    def _sample(self, name: str) -> Assignment:
        return self._space.sample(random.Random(stream(self._seed, name)))  # noqa: S311 - no secret


class GridProposer:
    """Every configuration of a grid, each once, in an order shuffled by the seed so that a part of it is fair.

    Of a grid with more than ``GRID_LIMIT`` configurations as many are drawn as trials are wanted: branch by branch, so
    that a generator with many settings is not tried more often than one with few.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._draws = Draws(space, seed=seed)
        self._grid = list(itertools.islice(space.grid(GRID_POINTS), GRID_LIMIT + 1))
        self._is_whole = len(self._grid) <= GRID_LIMIT
        random.Random(stream(seed, "grid")).shuffle(self._grid)  # noqa: S311 - no secret

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``."""
        if not self._is_whole:
            return self._draws.untried(number, trials, self._draw)
        tried = [trial.config for trial in trials]
        return next((config for config in self._grid if config not in tried), None)

    def _draw(self, name: str) -> Assignment:
        rng = random.Random(stream(self._seed, name))  # noqa: S311 - no secret
        drawn: Assignment = {}
        for dimension in self._space.dimensions:
            if dimension.exists(drawn):
                drawn[dimension.name] = rng.choice(dimension.parameter.grid(GRID_POINTS))
        return drawn
