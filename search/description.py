"""What ``--describe`` prints: the space, and what the search would cost on this machine."""

from __future__ import annotations

import os

from search.pretrained import leave_missing
from search.settings import MOST_AT_ONCE, NewSearch
from spaces.describe import describe_space
from spaces.errors import SpaceError
from trainables.data.untrusted import why_not_regular


def described(settings: NewSearch, named: set[str]) -> str:
    """A search in words; nothing is read of its images, downloaded or computed.

    Args:
        settings: the search.
        named: the dimensions that the user has fixed.
    """
    space = describe_space(settings.space, settings.budget, missing=_missing(settings, named))
    return f"{space}\n\n{_cost(settings)}"


def _cost(settings: NewSearch) -> str:
    """What the search would cost here; it is simulated, nothing is computed."""
    from search.cost_estimate import estimate, known_durations

    if settings.protocol.kind == "sites":
        return "What it costs depends on how many sites there are; without --leave-site-out it is said here."
    durations = known_durations(settings.storage, settings.budget, images=_training_images(settings))
    if durations is None:
        return f"What it costs is not known: nothing was measured under the budget {settings.budget.name} here yet."
    protocol, resources = settings.protocol, settings.resources
    cores = len(os.sched_getaffinity(0)) // (resources.cpus_per_trial or 1)
    slots = resources.concurrency or min(settings.trials, cores, MOST_AT_ONCE)
    return estimate(
        settings.space,
        settings.budget,
        trials=settings.trials,
        folds=protocol.folds * protocol.repeats,
        concurrency=max(1, slots),
        sampler=settings.sampler,
        durations=durations,
        sharing=settings.sharing,
        seed=settings.seed,
    ).in_words()


def _training_images(settings: NewSearch) -> int | None:
    """How many images a fold trains on, from the number of lines of the labels; None where these are not a file."""
    if settings.data is None:
        return None
    labels = settings.data / (settings.labels or "labels.csv")
    if why_not_regular(labels) is not None:
        return None
    try:
        with labels.open("rb") as file:
            rows = sum(1 for _ in file) - 1
    except OSError:
        return None
    folds = settings.protocol.folds
    return max(1, rows * (folds - 1) // folds)


def _missing(settings: NewSearch, named: set[str]) -> tuple[str, ...]:
    """What of the space cannot start here, a line each; nothing is downloaded for that."""
    try:
        return leave_missing(settings.space, settings.budget, named=named)[1]
    except SpaceError as error:
        return (str(error),)
