"""A table of a paper as a search: its rows, what was published in them, and what the paper claims of their order."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from spaces.budget import Budget
from spaces.errors import SpaceError
from spaces.generators import TextualInversionConfig
from spaces.parameter import Choice, Value
from spaces.space import Assignment, Dimension, Space

CLASSIFIER_NAME = "classifier.name"
STAND_IN = "small_cnn"
"""The classifier that a budget trains in place of a paper's, where that would cost too much."""
PIPELINE = "generator.pretrained"

Published: TypeAlias = Mapping[str, Mapping[str, float]]
"""Classifier name to score name to value, in [0, 1]."""
Pair: TypeAlias = tuple[str, str]
"""Labels of two rows; the second is claimed to score higher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method of a table.

    Args:
        label: as the paper names it.
        settings: flat settings that tell this row's trials from all others, apart from the classifier.
        published: the paper's values; empty where it has none.
    """

    label: str
    settings: Mapping[str, Value]
    published: Published = field(default_factory=dict)

    def is_of(self, config: Mapping[str, Value]) -> bool:
        """Whether a configuration is one of this row."""
        return all(name in config and config[name] == value for name, value in self.settings.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderClaim:
    """Some rows score higher than others: all ``pairs`` are claimed, the second row of each above the first.

    Args:
        text: the claim, one line.
        pairs: labels of rows.
        is_chain: whether each pair begins where the one before ends.
    """

    text: str
    pairs: tuple[Pair, ...]
    is_chain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GainClaim:
    """The largest gain comes with the least faithful generator: that with the largest kernel distance (KID).

    Args:
        text: the claim, one line.
        pairs: for each generator the rows without and with what gains.
    """

    text: str
    pairs: tuple[Pair, ...]


Claim: TypeAlias = OrderClaim | GainClaim


def chain(text: str, *labels: str) -> OrderClaim:
    """The claim that rows score in ascending order, each above the one before."""
    return OrderClaim(text=text, pairs=tuple(itertools.pairwise(labels)), is_chain=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """A table of a paper, and the search that ends in it.

    Args:
        title: stands above the table.
        source: the paper, and the number of the table.
        space: its grid are the table's rows, for each of ``classifiers``.
        classifiers: the paper's, in its order; empty where the budget chooses.
        rows: in the paper's order.
        scores: what is shown.
        claimed: those of them that the claims are about.
        claims: what can be tested.
        presets: by budget, settings that the classifiers of the paper are trained with.
        repeats: by budget, how often everything is done.
        notes: where this is not what the paper did, a sentence each.
        sampler: of the search, where the user names none.
        scheduler: the same.
        metric: the same.
    """

    title: str
    source: str
    space: Space
    classifiers: tuple[str, ...]
    rows: tuple[Row, ...]
    scores: tuple[str, ...]
    claimed: tuple[str, ...]
    claims: tuple[Claim, ...]
    presets: Mapping[str, Mapping[str, Value]]
    repeats: Mapping[str, int]
    notes: tuple[str, ...] = ()
    sampler: str = "grid"
    scheduler: str = "fifo"
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        labels = [row.label for row in self.rows]
        claimed = {label for claim in self.claims for pair in claim.pairs for label in pair}
        if len(set(labels)) != len(labels) or not claimed <= set(labels):
            raise SpaceError(f"the table of space '{self.space.name}' claims something of rows that it lacks.")

    def row(self, label: str) -> Row:
        """The row of that label."""
        return next(row for row in self.rows if row.label == label)


def fixed(name: str, value: Value, meaning: str = "") -> Dimension:
    """A dimension with one value."""
    return Dimension(parameter=Choice(name=name, options=(value,), default=value, meaning=meaning))


def adapted(
    table: PaperTable, space: Space, budget: Budget, *, named: Collection[str]
) -> tuple[Space, tuple[str, ...]]:
    """A table's space as a budget can afford it.

    Under ``quick`` one small classifier stands in for the paper's. Under the other budgets the paper's classifiers are
    trained with the table's preset of that budget, which stands in the space so that it is recorded with the search.

    Args:
        table: whose space it is.
        space: the space, as far as the user has fixed it.
        budget: under which it is searched.
        named: the dimensions that the user has fixed; these stay.

    Returns:
        The space, and a sentence for each thing that is done otherwise than the space says.
    """
    notes: tuple[str, ...] = ()
    if budget.name == "quick" and CLASSIFIER_NAME in space.names and CLASSIFIER_NAME not in named:
        names = _options(space, CLASSIFIER_NAME)
        space = _with_options(space, CLASSIFIER_NAME, None, (STAND_IN,))
        kept = f"--set {CLASSIFIER_NAME}={names[0]} trains the paper's"
        notes = (f"Budget quick trains {STAND_IN} in place of {' and '.join(names)}; {kept}.",)
    if CLASSIFIER_NAME in space.names and _options(space, CLASSIFIER_NAME) == (STAND_IN,):
        return space, notes
    preset = {key: value for key, value in table.presets.get(budget.name, {}).items() if key not in space.names}
    added = tuple(
        fixed(key, value, f"as in {table.source}, within budget {budget.name}") for key, value in preset.items()
    )
    return replace(space, dimensions=(*space.dimensions, *added)), notes


def with_pipeline(space: Space, value: str) -> Space:
    """The same space, in which textual inversion starts from another pipeline; no row leaves it for that.

    Args:
        space: a table's.
        value: a folder or hub id.

    Raises: SpaceError if the space has no textual inversion.
    """
    name = TextualInversionConfig.name
    if not any(name in space.generators_of(each) for each in space.dimensions if each.name == PIPELINE):
        raise SpaceError(
            f"--set {PIPELINE}={value} is for the generator {name}, which space '{space.name}' does not have; leave it "
            f"out."
        )
    return _with_options(space, PIPELINE, name, (value,))


def configurations(space: Space) -> int:
    """How many trials a table's space asks for."""
    return sum(1 for _ in space.grid(1))


def references_within(space: Space, policies: Mapping[str, Assignment]) -> dict[str, Assignment]:
    """Those of the reference policies that are rows of a table's space, so that a search of it tries its rows alone."""
    return {name: policy for name, policy in policies.items() if space.contains(policy)}


def _options(space: Space, name: str) -> tuple[str, ...]:
    parameter = space.dimension(name).parameter
    return tuple(map(str, parameter.options)) if isinstance(parameter, Choice) else ()


def _with_options(space: Space, name: str, generator: str | None, options: tuple[Value, ...]) -> Space:
    """Other options of a choice; of one that belongs to generators, where it belongs to this one."""

    def changed(dimension: Dimension) -> Dimension:
        parameter = dimension.parameter
        if dimension.name != name or not isinstance(parameter, Choice):
            return dimension
        if generator is not None and generator not in space.generators_of(dimension):
            return dimension
        return replace(dimension, parameter=replace(parameter, options=options, default=options[0], open=False))

    return replace(space, dimensions=tuple(map(changed, space.dimensions)))


def by_budget(*, quick: int, standard: int, paper: int) -> Mapping[str, int]:
    """A number for each budget."""
    return MappingProxyType({"quick": quick, "standard": standard, "paper": paper})
