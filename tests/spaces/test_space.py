"""Conditional spaces: sampling, conditions, fixing, YAML."""

from __future__ import annotations

import random

import pytest

from spaces.errors import SpaceError
from spaces.parameter import Choice, Float, Int, parse_value
from spaces.presets import PRESETS
from spaces.space import Dimension, Space, When, space_from_yaml


@pytest.fixture
def small() -> Space:
    return Space(
        name="small",
        dimensions=(
            Dimension(parameter=Choice(name="mixer.name", options=("real", "blend", "genmix"), default="genmix")),
            Dimension(
                parameter=Choice(name="generator.name", options=("dcgan", "egan"), default="dcgan"),
                when=When(parent="mixer.name", values=("blend", "genmix")),
                otherwise="none",
            ),
            Dimension(
                parameter=Float(name="generator.gamma", low=1e-3, high=1.0, default=0.005, log=True),
                when=When(parent="generator.name", values=("egan",)),
            ),
            Dimension(parameter=Int(name="classifier.epochs", low=1, high=9, default=3)),
        ),
    )


def test_a_child_is_sampled_exactly_under_its_parents_value(small: Space) -> None:
    rng = random.Random(0)
    for _ in range(300):
        drawn = small.sample(rng)
        assert ("generator.name" in drawn) == (drawn["mixer.name"] != "real")
        assert ("generator.gamma" in drawn) == (drawn.get("generator.name") == "egan")


def test_every_sample_of_every_preset_belongs_to_it() -> None:
    rng = random.Random(1)
    for space in PRESETS.values():
        assert all(space.contains(space.sample(rng)) for _ in range(300))


def test_contains_refuses_a_child_without_its_parent_a_missing_one_and_one_out_of_bounds(small: Space) -> None:
    good = {"mixer.name": "genmix", "generator.name": "egan", "generator.gamma": 0.5, "classifier.epochs": 3}
    assert small.contains(good)
    assert not small.contains({**good, "mixer.name": "real"})
    assert not small.contains({name: value for name, value in good.items() if name != "generator.gamma"})
    assert not small.contains({**good, "generator.gamma": 1.5})
    assert not small.contains({**good, "classifier.epochs": True})


def test_a_log_float_spreads_over_orders_of_magnitude() -> None:
    parameter = Float(name="x", low=1e-4, high=1.0, default=0.1, log=True)
    rng = random.Random(0)
    below = sum(parameter.sample(rng) < 1e-2 for _ in range(4000)) / 4000
    assert below == pytest.approx(0.5, abs=0.03)


def test_fixing_a_child_restricts_its_parents_and_says_so(small: Space) -> None:
    fixed, notes = small.fix("generator.gamma", "0.01")
    assert [note.partition(" limits ")[2] for note in notes] == [
        "mixer.name to blend, genmix",
        "generator.name to egan",
    ]
    rng = random.Random(0)
    drawn = [fixed.sample(rng) for _ in range(100)]
    assert {each["generator.gamma"] for each in drawn} == {0.01}
    assert {each["mixer.name"] for each in drawn} == {"blend", "genmix"}


def test_fixing_a_dimension_to_what_holds_without_it_removes_it(small: Space) -> None:
    fixed, notes = small.fix("generator.name", "none")
    assert fixed.names == ("mixer.name", "classifier.epochs")
    assert notes == ("generator.name=none limits mixer.name to real",)


def test_fixing_two_dimensions_that_exclude_each_other_is_refused(small: Space) -> None:
    fixed, _ = small.fix("generator.name", "dcgan")
    with pytest.raises(SpaceError, match=r"no dimension 'generator.gamma'"):
        fixed.fix("generator.gamma", "0.01")
    real, _ = small.fix("mixer.name", "real")
    with pytest.raises(SpaceError, match=r"no dimension 'generator.name'"):
        real.fix("generator.name", "egan")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("generator.nme", "egan", "did you mean 'generator.name'"),
        ("generator.name", "stylegan9", "is not one of dcgan, egan"),
        ("generator.gamma", "much", "is not a number"),
        ("generator.gamma", "7", "is outside float 0.001 to 1"),
        ("generator.gamma", "nan", "is outside"),
        ("classifier.epochs", "2.5", "is not a number"),
    ],
)
def test_a_wrong_name_or_value_is_refused_with_what_is_valid(small: Space, name: str, text: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        small.fix(name, text)


def test_booleans_are_typed_as_one_says_them() -> None:
    affine = Choice(name="affine", options=(False, True), default=False)
    assert [parse_value(text, affine) for text in ("on", "off", "true", "False", "yes", "no")] == [
        True, False, True, False, True, False,
    ]  # fmt: skip


def test_a_space_survives_yaml_unchanged(small: Space) -> None:
    for space in (small, *PRESETS.values()):
        assert space_from_yaml(space.to_yaml(), source="test") == space


def test_the_digest_sees_bounds_and_conditions_but_not_words(small: Space) -> None:
    text = small.to_yaml()
    assert space_from_yaml(text.replace("high: 9", "high: 8"), source="test").digest != small.digest
    assert space_from_yaml(text.replace("name: small", "name: other"), source="test").digest == small.digest


def test_a_grid_holds_every_combination_once(small: Space) -> None:
    grid = list(small.grid(3))
    assert all(small.contains(each) for each in grid)
    assert len({repr(sorted(each.items())) for each in grid}) == len(grid) == 3 + 2 * (3 + 3 * 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid YAML"),
        ("name: x", "is not a space"),
        ("{name: x, dimensions: [{name: a, type: flot}]}", "expected float, int or choice"),
        ("{name: x, dimensions: [{name: a, type: float, low: 0, high: 1}]}", "lacks 'default'"),
        ("{name: x, dimensions: [{name: a, type: float, low: 2, high: 1, default: 1}]}", "low <= high"),
        ("{name: x, dimensions: [{name: a, type: float, low: 0, high: 1, default: 1, lg: true}]}", "unknown key 'lg'"),
        ("{name: x, dimensions: [{name: a, type: float, low: 0, high: .inf, default: 1}]}", "finite bounds"),
        ("{name: x, dimensions: [{name: a, type: float, low: 0, high: 1, default: 1, log: true}]}", "low > 0"),
        ("{name: x, dimensions: [{name: a, type: choice, options: [], default: 1}]}", "at least one"),
        ("{name: x, dimensions: [{name: a, type: choice, options: [1], default: [1]}]}", "default"),
        ("{name: x, dimensions: [{name: a, type: int, low: 0, high: 1, default: 1, when: {b: [1]}}]}", "not a choice"),
        ("{name: ../../evil, dimensions: [{name: a, type: int, low: 0, high: 1, default: 1}]}", "1 to 40 letters"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_malformed_file_is_refused_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        space_from_yaml(text, source="mine.yaml")
    assert "\n" not in str(caught.value)
