"""What ``--describe`` prints: the space, and what the search would cost on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from search.pretrained import leave_missing
from search.settings import MOST_AT_ONCE, NewSearch
from spaces.describe import describe_space
from spaces.errors import SpaceError
from spaces.paper_table import configurations
from spaces.presets import TABLES
from spaces.reference import reference_policies
from spaces.space import Assignment
from trainables.data.source import Source

if TYPE_CHECKING:
    from trainables.data.labels import LabelTable

PHANTOM_IMAGES = 240
"""As many as ``trainables.data.phantom`` draws; it is not imported here, for NumPy's sake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """How a trial is scored: in words, how many trainings that is, and images of each; None where nothing tells."""

    words: str
    evaluations: int | None
    images: int


def described(settings: NewSearch, named: set[str]) -> str:
    """A search in words; of its images only the labels are read, and nothing is downloaded or computed.

    Args:
        settings: the search.
        named: the dimensions that the user has fixed.

    Raises: DataError if its images are not there, or their labels cannot be used.
    """
    judged = _judged(settings)
    searched, missing = _searched(settings, named)
    references = {} if settings.config is not None else reference_policies(searched.space)
    space = describe_space(
        settings.space,
        settings.budget,
        scored_on=judged.words,
        trials=searched.trials,
        references=references,
        missing=missing,
    )
    return f"{space}\n\n{_cost(searched, judged, references)}"


def _cost(settings: NewSearch, judged: _Judged, references: Mapping[str, Assignment]) -> str:
    """What the search would cost here; it is simulated, nothing is computed."""
    from search.cost_estimate import CONFIRMATION_SHARE, clock, estimate, known_durations, unmeasured

    if judged.evaluations is None:
        return (
            "What it costs depends on how many sites there are; with --data, whose labels name them, it is said here."
        )
    space, budget, resources = settings.space, settings.budget, settings.resources
    durations = known_durations(settings.storage, space, budget, images=judged.images)
    unknown = unmeasured(space, budget, references, durations)
    if unknown:
        return (
            f"What it costs is not known: nothing was measured of {unknown} with such settings in "
            f"{settings.storage}. Short searches in this storage (--trials 4), each of these fixed by --set, measure "
            f"it; ask again after them."
        )
    cores = max(1, len(os.sched_getaffinity(0)) // (resources.cpus_per_trial or 1))
    slots = resources.concurrency or min(settings.trials, cores, MOST_AT_ONCE)
    found = estimate(
        space,
        budget,
        trials=settings.trials,
        folds=judged.evaluations,
        concurrency=slots if resources.address else min(slots, cores),
        sampler=settings.sampler,
        durations=durations,
        references=references,
        sharing=settings.sharing,
        seed=settings.seed,
    )
    sentences = [found.in_words()]
    if slots > found.slots:
        sentences.append(f"This machine's cores are enough for {found.slots} at once: {slots} would be no faster.")
    if settings.confirm and budget.name != "quick" and space.name not in TABLES:
        most = clock(CONFIRMATION_SHARE * found.compute_seconds)
        sentences.append(f"The confirmation at its end may add up to {most} of compute; --no-confirm leaves it out.")
    return "\n".join(sentences)


def _judged(settings: NewSearch) -> _Judged:
    """How a trial is scored, as far as labels tell. Raises: DataError."""
    protocol, table = settings.protocol, _labels(settings)
    rows = PHANTOM_IMAGES if table is None else len(table.rows)
    parts = [] if table is None else [row.split for row in table.rows]
    sites = set() if table is None else {row.site for row in table.rows}
    if "val" in parts and settings.split_file is not None:
        words, each, images = "one fixed split", 1, float(parts.count("train"))
    elif protocol.kind == "sites":
        each = 0 if "" in sites else len(sites)
        words = f"{each or 'its'} sites, each left out in turn"
        images = (rows - rows / each) if each else rows
    else:
        words, each, images = f"{protocol.folds} folds", protocol.folds, rows - rows / protocol.folds
        if settings.split_file is not None:
            images *= 1 - parts.count("test") / rows
    words += f", {protocol.repeats} repeats" if protocol.repeats > 1 else ""
    learnt = images * (1 - (settings.lock_test or 0.0)) * (1 - protocol.validation)
    return _Judged(words=words, evaluations=each * protocol.repeats or None, images=max(1, round(learnt)))


def _labels(settings: NewSearch) -> LabelTable | None:
    """The labels of a search's images; None of the phantom's. Raises: DataError."""
    if settings.data is None:
        return None
    return Source(data=str(settings.data), labels=settings.labels, split_file=settings.split_file).table()


def _searched(settings: NewSearch, named: set[str]) -> tuple[NewSearch, tuple[str, ...]]:
    """The search without what cannot start here, and a line for each of that; nothing is downloaded for it."""
    try:
        space, missing = leave_missing(settings.space, settings.budget, named=named)
    except SpaceError as error:
        return settings, (str(error),)
    rows = space.name in TABLES and settings.trials == configurations(settings.space)
    return replace(settings, space=space, trials=configurations(space) if rows else settings.trials), missing
