"""Where configurations come from: each proposal is a function of the seed, its number and the ledger, nothing else.

So a resumed search proposes what the undisturbed one would have, and no state of a sampler needs to be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.objectives import Objective
from search.reuse import ReuseProposer
from search.sampling.draws import GridProposer, Proposer, RandomProposer
from search.sampling.earlier import EarlierTrial
from search.sampling.tpe import TpeProposer
from spaces.budget import Budget
from spaces.space import Space

__all__ = ["EarlierTrial", "GridProposer", "Proposer", "RandomProposer", "ReuseProposer", "TpeProposer"]


def build_proposer(
    name: str,
    space: Space,
    *,
    seed: int,
    objectives: tuple[Objective, ...],
    budget: Budget,
    max_copy_rate: float | None = None,
    earlier: Sequence[EarlierTrial] = (),
    in_order: bool = False,
) -> Proposer:
    """The proposer of that name.

    Args:
        name: reuse, tpe, random or grid.
        space: what is searched.
        seed: the search's seed.
        objectives: what is improved, the main one first.
        budget: the search's, which settles what the space leaves open.
        max_copy_rate: the limit of a trial's copy rate; None: no limit.
        earlier: trials of earlier searches of the same data, for the samplers that learn from trials.
        in_order: whether the scheduler has trials take their folds by their numbers.

    Raises: KeyError on other names.
    """
    builders: dict[str, Callable[[], Proposer]] = {
        "random": lambda: RandomProposer(space, seed=seed),
        "grid": lambda: GridProposer(space, seed=seed),
        "tpe": lambda: TpeProposer(
            space, seed=seed, objectives=objectives, max_copy_rate=max_copy_rate, earlier=earlier
        ),
        "reuse": lambda: ReuseProposer(
            space,
            seed=seed,
            objectives=objectives,
            budget=budget,
            max_copy_rate=max_copy_rate,
            earlier=earlier,
            in_order=in_order,
        ),
    }
    return builders[name]()
