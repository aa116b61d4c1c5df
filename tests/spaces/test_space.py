"""Conditional spaces: sampling, conditions, fixing, YAML."""

from __future__ import annotations

import random

import pytest

from spaces.errors import SpaceError
from spaces.parameter import Choice, Float, Int, parse_value
from spaces.presets import PRESETS
from spaces.space import Dimension, Space, When
from spaces.space_file import space_from_yaml


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
        (
            "{name: x, dimensions: [{name: a, type: choice, options: [1], default: 1, open: 1}]}",
            "expected true or false",
        ),
        ("{name: x, dimensions: [{name: a, type: int, low: 0, high: 1, default: 1, around: 0.5}]}", "a factor >= 1"),
        ("{name: x, dimensions: [{name: a, type: int, low: 0, high: 1, default: 1, around: two}]}", "expected float"),
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


@pytest.fixture
def models() -> Space:
    """Models to start from: scratch or one of the hub for diffusion, two of the hub for inversion; both open."""
    return Space(
        name="models",
        dimensions=(
            Dimension(
                parameter=Choice(
                    name="generator.name", options=("dcgan", "diffusion", "textual_inversion"), default="dcgan"
                )
            ),
            Dimension(
                parameter=Choice(name="generator.pretrained", options=("none", "a/b"), default="none", open=True),
                when=When(parent="generator.name", values=("diffusion",)),
            ),
            Dimension(
                parameter=Choice(name="generator.pretrained", options=("c/d", "e/f"), default="c/d", open=True),
                when=When(parent="generator.name", values=("textual_inversion",)),
            ),
            Dimension(
                parameter=Int(name="generator.steps", low=1, high=9999, default=500, log=True, around=2),
                when=When(parent="generator.name", values=("textual_inversion",)),
            ),
        ),
    )


def pretrained_of(space: Space) -> dict[str, set[object]]:
    """What is sampled for ``generator.pretrained``, by generator."""
    rng = random.Random(0)
    found: dict[str, set[object]] = {}
    for _ in range(300):
        drawn = space.sample(rng)
        assert space.contains(drawn)
        found.setdefault(str(drawn["generator.name"]), set()).add(drawn.get("generator.pretrained"))
    return found


def test_a_name_can_stand_for_other_values_under_each_value_of_its_parent(models: Space) -> None:
    assert pretrained_of(models) == {
        "dcgan": {None},
        "diffusion": {"none", "a/b"},
        "textual_inversion": {"c/d", "e/f"},
    }
    assert not models.contains({"generator.name": "diffusion", "generator.pretrained": "c/d"})
    assert models.names == ("generator.name", "generator.pretrained", "generator.steps")
    assert space_from_yaml(models.to_yaml(), source="test") == models
    assert sum(1 for _ in models.grid(3)) == 1 + 2 + 2 * 3


def test_a_name_that_could_hold_twice_at_once_is_refused(models: Space) -> None:
    first, diffusion, inversion, _ = models.dimensions
    for when in (None, When(parent="generator.name", values=("diffusion", "dcgan"))):
        with pytest.raises(SpaceError, match="can hold at once"):
            Space(name="x", dimensions=(first, diffusion, Dimension(parameter=inversion.parameter, when=when)))


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        ("none", {"diffusion": {"none"}}),
        ("e/f", {"textual_inversion": {"e/f"}}),
        ("/my/model", {"diffusion": {"/my/model"}, "textual_inversion": {"/my/model"}}),
    ],
)
def test_a_value_typed_belongs_where_it_is_listed_or_else_to_every_open_choice(
    models: Space, text: str, sampled: dict[str, set[object]]
) -> None:
    fixed, notes = models.fix("generator.pretrained", text)
    assert pretrained_of(fixed) == sampled
    assert notes == (f"generator.pretrained={text} limits generator.name to {', '.join(sampled)}",)
    assert space_from_yaml(fixed.to_yaml(), source="test") == fixed


def test_a_closed_choice_takes_no_other_value(models: Space) -> None:
    with pytest.raises(SpaceError, match="is not one of"):
        models.fix("generator.name", "/my/model")
    with pytest.raises(SpaceError, match=r"outside all its bounds: none, a/b.* under diffusion; c/d"):
        models.fix("generator.pretrained", "")


def test_an_option_that_leaves_takes_along_what_exists_under_it_alone(models: Space) -> None:
    less = models.without(models.variants("generator.pretrained")[1], "c/d")
    assert pretrained_of(less)["textual_inversion"] == {"e/f"}
    assert less.variants("generator.pretrained")[1].parameter.default == "e/f"
    without = models.without(models.dimension("generator.name"), "textual_inversion")
    assert without.names == ("generator.name", "generator.pretrained")
    assert pretrained_of(without) == {"dcgan": {None}, "diffusion": {"none", "a/b"}}
    with pytest.raises(SpaceError, match="is left of it"):
        less.without(less.variants("generator.pretrained")[1], "e/f")


def test_a_length_is_searched_around_the_budgets_but_can_be_fixed_to_any(models: Space) -> None:
    quick = models.with_defaults({}, generators={"textual_inversion": {"steps": 60}})
    steps = quick.narrowed().dimension("generator.steps").parameter
    assert (steps.low, steps.default, steps.high) == (30, 60, 120)  # type: ignore[union-attr]
    fixed = quick.fix("generator.steps", "4000")[0].narrowed()
    assert {fixed.sample(random.Random(seed))["generator.steps"] for seed in range(9)} == {4000}
    assert space_from_yaml(quick.narrowed().to_yaml(), source="test") == quick.narrowed()
    assert quick.narrowed().narrowed() == quick.narrowed()


def test_a_default_is_the_budgets_for_the_generators_that_a_dimension_belongs_to(models: Space) -> None:
    budget = {"diffusion": {"pretrained": "a/b"}, "textual_inversion": {"pretrained": "x/y", "steps": 0}}
    changed = models.with_defaults({"generator.steps": 9, "generator.name": "diffusion"}, generators=budget)
    assert [each.parameter.default for each in changed.dimensions] == ["diffusion", "a/b", "c/d", 500]
    both = When(parent="generator.name", values=("diffusion", "textual_inversion"))
    shared = Space(
        name="s",
        dimensions=(
            models.dimensions[0],
            Dimension(parameter=Int(name="generator.steps", low=1, high=9, default=3), when=both),
        ),
    )
    for budget, default in (({"diffusion": {"steps": 5}}, 3), ({name: {"steps": 5} for name in both.values}, 5)):
        assert shared.with_defaults({}, generators=budget).dimension("generator.steps").parameter.default == default  # type: ignore[arg-type]
