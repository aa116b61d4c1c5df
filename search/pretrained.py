"""Pretrained models of a space: those that are not on this machine leave it before any trial starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import TypeAlias

from spaces.budget import Budget
from spaces.config import ClassifierConfig
from spaces.errors import SpaceError
from spaces.generators import GENERATORS, SCRATCH
from spaces.paper_table import CLASSIFIER_NAME
from spaces.parameter import Choice, Value
from spaces.space import GENERATOR_NAME, Dimension, Space

PRETRAINED = "generator.pretrained"
WEIGHTS = "classifier.pretrained"

Missing: TypeAlias = Callable[[str, str], str | None]
"""Why a generator cannot start from a value here, in words that say what to pass; None where it can."""


def missing_here(generator: str, value: str) -> str | None:
    """Say why a generator cannot start from ``value`` on this machine, without a download or a heavy import."""
    from trainables.generators.pretrained import available

    return available(generator, value)


def weights_missing_here(classifier: str, value: str) -> str | None:
    """Say why a classifier cannot start from ``value`` on this machine, without a download."""
    from trainables.classifiers.pretrained import available

    return available(classifier, value)


def fetch(space: Space) -> None:
    """Download the models that a space starts from, those that are not here yet: for values that a user named.

    Raises: DataError if there is no such model, or it could not be downloaded.
    """
    from trainables.generators.pretrained import ensure

    for value in dict.fromkeys(value for variant in space.variants(PRETRAINED) for value in _options(variant)):
        if value != SCRATCH:
            ensure(str(value), allow_download=True)


def leave_missing(
    space: Space, budget: Budget, *, named: Collection[str], missing: Missing = missing_here
) -> tuple[Space, tuple[str, ...]]:
    """Leave out of a space what cannot start on this machine.

    Args:
        space: what is searched.
        budget: says what a generator starts from where ``generator.pretrained`` is not searched.
        named: the dimensions that the user has fixed.
        missing: why a generator cannot start from a value.

    Returns:
        The space without those values, and without the generators that have no other; a line for each that left.

    Raises:
        SpaceError: no generator would be left, as where the user named what is missing.
    """
    notes: list[str] = []
    for generator in _options(space.dimension(GENERATOR_NAME)) if GENERATOR_NAME in space.names else ():
        variant = _variant(space, generator)
        values = _options(variant) if variant is not None else _unsearched(str(generator), budget)
        reasons = {value: reason for value in values if (reason := missing(str(generator), str(value))) is not None}
        if variant is not None and len(reasons) < len(values):
            space = space.without(variant, *reasons)
            notes += [f"Left out of the space: {reason}" for reason in reasons.values()]
        elif reasons:
            advice = f" (--set {GENERATOR_NAME}={generator} --set {PRETRAINED}=FOLDER searches it alone)"
            reason = f"{'' if PRETRAINED in named or variant is None else advice}: {next(iter(reasons.values()))}"
            space = _without_generator(space, generator, reason)
            notes.append(f"{GENERATOR_NAME}={generator} leaves the space{reason}")
    return space, tuple(notes)


def refuse_missing(space: Space, budget: Budget) -> None:
    """Check that a recorded space can go on here, as on another machine than it began on.

    Raises: SpaceError, with the first model that is missing.
    """
    _, notes = leave_missing(space, budget, named=())
    notes += leave_missing_weights(space, budget, named=())[1]
    if notes:
        raise SpaceError(f"the search cannot go on without a model that it was started with. {notes[0]}")


def fetch_weights(space: Space) -> None:
    """Download the classifiers' weights that a user named, those that are not here yet. Raises: DataError."""
    from trainables.classifiers.pretrained import ensure

    for value in dict.fromkeys(value for variant in space.variants(WEIGHTS) for value in _options(variant)):
        if value != SCRATCH:
            ensure(str(value), allow_download=True)


def leave_missing_weights(
    space: Space, budget: Budget, *, named: Collection[str], missing: Missing = weights_missing_here
) -> tuple[Space, tuple[str, ...]]:
    """Leave out of a space the weights that a classifier of it cannot start from on this machine.

    Args:
        space: what is searched.
        budget: says which classifier is trained where ``classifier.name`` is not searched.
        named: the dimensions that the user has fixed.
        missing: why a classifier cannot start from a value.

    Returns:
        The space without those values; a line for each that left.

    Raises:
        SpaceError: the user named what is missing, or nothing else is left.
    """
    if WEIGHTS not in space.names:
        return space, ()
    notes: list[str] = []
    for variant in space.variants(WEIGHTS):
        values, names = _options(variant), _classifiers(space, variant, budget)
        tried = {(value, name): missing(str(name), str(value)) for value in values for name in names}
        reasons = {value: reason for (value, _), reason in tried.items() if reason is not None}
        if reasons and (WEIGHTS in named or len(reasons) == len(values)):
            raise SpaceError(next(iter(reasons.values())))
        if reasons:
            space = space.without(variant, *reasons)
            notes += [f"Left out of the space: {reason}" for reason in reasons.values()]
    return space, tuple(dict.fromkeys(notes))


def _classifiers(space: Space, variant: Dimension, budget: Budget) -> tuple[Value, ...]:
    """The classifiers that a dimension holds for: those of its condition, else all that are trained."""
    if variant.when is not None and variant.when.parent == CLASSIFIER_NAME:
        return variant.when.values
    if CLASSIFIER_NAME in space.names:
        return tuple(value for each in space.variants(CLASSIFIER_NAME) for value in _options(each))
    return (budget.settings.get(CLASSIFIER_NAME, ClassifierConfig().name),)


def _without_generator(space: Space, generator: Value, reason: str) -> Space:
    names = space.dimension(GENERATOR_NAME)
    if _options(names) == (generator,):
        raise SpaceError(f"{GENERATOR_NAME}={generator} would leave the space, and it is the last generator{reason}")
    return space.without(names, generator)


def _variant(space: Space, generator: Value) -> Dimension | None:
    """The dimension that says what a generator starts from; None where that is not searched, or there is no such."""
    if PRETRAINED not in space.names or not _unsearched(str(generator), None):
        return None
    return next((each for each in space.variants(PRETRAINED) if generator in space.generators_of(each)), None)


def _unsearched(generator: str, budget: Budget | None) -> tuple[Value, ...]:
    """What a generator starts from where that is not searched; empty if it always starts from random weights."""
    field = PRETRAINED.partition(".")[2]
    defaults = {each.name: each.default for each in dataclasses.fields(GENERATORS[generator])}
    if field not in defaults:
        return ()
    settings = budget.generators.get(generator, {}) if budget is not None else {}
    return (settings.get(field, defaults[field]),)  # type: ignore[arg-type]


def _options(dimension: Dimension) -> tuple[Value, ...]:
    return dimension.parameter.options if isinstance(dimension.parameter, Choice) else ()
