"""The spaces that end in a table: their grids are the tables' rows, under every budget."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from spaces.budget import BUDGETS, budget_named
from spaces.config import trial_config
from spaces.corners import check_space, stops_early
from spaces.errors import SpaceError
from spaces.paper_table import STAND_IN, OrderClaim, Row, adapted, configurations, references_within, with_pipeline
from spaces.parameter import Choice
from spaces.presets import PRESETS, TABLES
from spaces.presets.classifier_presets import CLASSIFIER_PRESETS
from spaces.reference import reference_policies
from spaces.space import Dimension, Space
from spaces.space_file import space_from_yaml

SIZES = {"table_dae_gan": 12, "table_genmix": 11, "sweep_ratio": 31}


def searched(name: str, budget: str, *, named: tuple[str, ...] = ()) -> Space:
    """The space as a search of that budget records it."""
    chosen = budget_named(budget)
    space = TABLES[name].space.with_defaults(chosen.settings, generators=chosen.generators)
    return adapted(TABLES[name], space, chosen, named=named)[0].narrowed()


@pytest.mark.parametrize("name", SIZES)
def test_the_grid_is_the_tables_rows_and_nothing_else(name: str) -> None:
    table = TABLES[name]
    grid = list(PRESETS[name].grid(3))
    assert len(grid) == SIZES[name] == configurations(table.space)
    rows = [[row.label for row in table.rows if row.is_of(config)] for config in grid]
    assert all(len(labels) == 1 for labels in rows)
    times = max(1, len(table.classifiers))
    assert sorted(labels[0] for labels in rows) == sorted([row.label for row in table.rows] * times)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", SIZES)
def test_every_row_is_a_configuration_under_every_budget(name: str, budget: str) -> None:
    space = searched(name, budget)
    check_space(space, budget_named(budget))
    configs = [trial_config(flat, budget_named(budget)) for flat in space.grid(3)]
    assert len({config.digest for config in configs}) == len(configs)
    expected = 6 if (name, budget) == ("table_dae_gan", "quick") else SIZES[name]
    assert len(configs) == expected
    assert space_from_yaml(space.to_yaml(), source="x") == space


@pytest.mark.parametrize("name", ["table_dae_gan", "table_genmix"])
def test_quick_trains_the_small_network_and_the_others_the_papers_with_their_presets(name: str) -> None:
    def classifiers(budget: str) -> dict[str, object]:
        flat = next(searched(name, budget).grid(3))
        return {key: value for key, value in flat.items() if key.startswith("classifier.")}

    assert classifiers("quick") == {"classifier.name": STAND_IN}
    preset = CLASSIFIER_PRESETS[name.removeprefix("table_")]
    first = TABLES[name].classifiers[0]
    assert classifiers("paper") == {"classifier.name": first, **preset}
    standard = classifiers("standard")
    assert (standard["classifier.name"], standard["classifier.learning_rate"]) == (
        first,
        preset["classifier.learning_rate"],
    )
    assert stops_early(searched(name, "standard"), budget_named("standard"))
    assert not stops_early(searched(name, "quick"), budget_named("quick"))


def test_a_classifier_that_the_user_named_stays_and_the_small_one_keeps_the_budgets_training() -> None:
    table, quick, standard = TABLES["table_dae_gan"], budget_named("quick"), budget_named("standard")
    xception, _ = table.space.fix("classifier.name", "xception")
    space, notes = adapted(table, xception, quick, named={"classifier.name"})
    assert (space, notes) == (xception, ())
    small, _ = table.space.fix("classifier.name", STAND_IN)
    space, notes = adapted(table, small, standard, named={"classifier.name"})
    assert (space, notes) == (small, ())
    assert configurations(space) == 6


def test_the_stand_in_is_announced_with_the_way_to_the_papers_classifiers() -> None:
    _, notes = adapted(TABLES["table_dae_gan"], PRESETS["table_dae_gan"], budget_named("quick"), named=())
    (note,) = notes
    assert re.search(r"small_cnn in place of resnet50 and xception; --set classifier\.name=resnet50", note)


def test_a_setting_that_the_user_fixed_is_not_overridden_by_a_preset() -> None:
    table = TABLES["sweep_ratio"]
    mine = Choice(name="classifier.epochs", options=(3,), default=3)
    space = replace(table.space, dimensions=(*table.space.dimensions, Dimension(parameter=mine)))
    adapted_space, _ = adapted(table, space, budget_named("paper"), named={"classifier.epochs"})
    assert adapted_space.dimension("classifier.epochs").parameter == mine
    assert adapted_space.dimension("classifier.optimizer").parameter.default == "rmsprop"


def test_a_pipeline_is_for_textual_inversion_and_removes_no_row() -> None:
    space = with_pipeline(PRESETS["table_genmix"], "/models/ldm")
    pipelines = {config["generator.pretrained"] for config in space.grid(1) if "generator.pretrained" in config}
    assert pipelines == {"/models/ldm"}
    assert configurations(space) == 11
    with pytest.raises(SpaceError, match="table_dae_gan"):
        with_pipeline(PRESETS["table_dae_gan"], "/models/ldm")


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", SIZES)
def test_reference_policies_of_a_table_are_rows_of_it(name: str, budget: str) -> None:
    space = searched(name, budget)
    grid = list(space.grid(1))
    policies = references_within(space, reference_policies(space))
    assert "none" in policies
    assert all(policy in grid for policy in policies.values())


PAPER_1 = """
No Enhancement 0.7767 0.7953
Affine Transformation 0.8093 0.8279
DCGAN 0.8140 0.8326
ACGAN 0.7915 0.8054
Evolutionary GAN 0.8288 0.8514
DAE GAN 0.8478 0.8698
"""
"""Accuracy with ResNet50 and with Xception, as printed; the last row is called "our method" there."""
PAPER_2 = """
Baseline (Real) 72.3 60.7
MixUp (Real) 74.1 61.7
AugMix (Real) 70.5 60.9
DCGAN 72.0 60.0
StyleGAN 75.9 63.9
Textual Inversion 72.0 60.5
Diffusion Model 75.6 65.6
GenMix (DCGAN) 76.9 63.4
GenMix (StyleGAN) 80.8 69.6
GenMix (Textual Inversion) 81.4 70.6
GenMix (Diffusion Model) 79.8 69.3
"""
"""Accuracy and F1 in percent, as printed; four labels have the share of synthetic images behind them there."""


def test_published_values_are_those_that_the_papers_print() -> None:
    ours = [
        (row.label.lower(), row.published["resnet50"]["accuracy"], row.published["xception"]["accuracy"])
        for row in TABLES["table_dae_gan"].rows
    ]
    assert ours == _printed(PAPER_1, scale=1)
    ours = [
        (row.label.lower(), row.published["vgg16"]["accuracy"], row.published["vgg16"]["macro_f1"])
        for row in TABLES["table_genmix"].rows
    ]
    assert ours == _printed(PAPER_2, scale=100)


def _printed(text: str, *, scale: int) -> list[tuple[str, float, float]]:
    lines = [line.lower().rsplit(" ", 2) for line in text.strip().splitlines()]
    return [(label, round(float(one) / scale, 4), round(float(other) / scale, 4)) for label, one, other in lines]


def test_the_papers_own_values_fulfil_what_the_tables_claim_of_order() -> None:
    """All order claims hold in the published numbers: a label that is mixed up would break one."""
    for name in ("table_dae_gan", "table_genmix"):
        table = TABLES[name]
        for claim in table.claims:
            if not isinstance(claim, OrderClaim):
                continue
            for lower, higher in claim.pairs:
                below, above = (table.row(label).published for label in (lower, higher))
                assert all(below[each]["accuracy"] < above[each]["accuracy"] for each in table.classifiers)


def test_a_claim_of_rows_that_a_table_lacks_is_refused() -> None:
    table = TABLES["table_dae_gan"]
    with pytest.raises(SpaceError, match="rows that it lacks"):
        replace(table, rows=(Row(label="other", settings={}),))
