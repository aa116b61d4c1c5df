"""What ``--set`` takes is what its refusal lists; what a space's defaults are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from search.chosen_space import chosen_space
from spaces.budget import budget_named
from spaces.errors import SpaceError
from spaces.parameter import Choice, Int
from spaces.presets import PRESETS
from spaces.space import Dimension, Space

QUICK = budget_named("quick")
CUTMIX = Space(
    name="cutmix",
    dimensions=(Dimension(parameter=Choice(name="mixer.name", options=("real", "cutmix"), default="cutmix")),),
)


def refusal(space: str | Space, *fixed: str) -> str:
    with pytest.raises(SpaceError) as found:
        chosen_space(space, fixed, QUICK)
    return str(found.value)


def valid(space: str | Space, *before: str) -> list[str]:
    """The names that the refusal of one that is none gives as valid."""
    return refusal(space, *before, "no.such=1").partition("Valid: ")[2].rstrip(".").split(", ")


@pytest.mark.parametrize("space", [*PRESETS.values(), CUTMIX], ids=lambda space: space.name)
def test_every_name_that_is_said_to_be_valid_is_one(space: Space) -> None:
    for name in valid(space):
        # a word that no setting has as its value: the value is refused, or taken, but not the name
        try:
            chosen_space(space, [f"{name}=no-such-value"], QUICK)
        except SpaceError as error:
            assert not re.search("no such dimension|setting of none|does not have", str(error)), error


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ("genmix", "mixer.width"),
        ("genmix", "mixer.js_weight"),
        ("sweep_ratio", "synthetic.balance"),
        (CUTMIX, "affine"),
    ],
)
def test_a_setting_that_cannot_be_fixed_is_not_recommended(space: str | Space, name: str) -> None:
    told = refusal(space, f"{name}=1")
    assert "has no such dimension or setting" in told
    assert f"'{name}'" not in told
    assert name not in valid(space)


@pytest.mark.parametrize("fixed", [(), ("generator.width=32",), ("foo=1",)])
def test_a_generator_that_is_none_is_told_whatever_is_fixed(fixed: tuple[str, ...]) -> None:
    names = Choice(name="generator.name", options=("dcgann", "egan"), default="egan")
    mixers = Choice(name="mixer.name", options=("blend",), default="blend")
    space = Space(name="typo", dimensions=(Dimension(parameter=mixers), Dimension(parameter=names)))
    assert ("no such dimension" if "foo=1" in fixed else "dcgann") in refusal(space, *fixed)


def test_settings_of_the_generators_that_are_left_are_valid() -> None:
    assert {"generator.critic_steps", "generator.width", "classifier.patience"} <= set(valid("genmix"))
    left = set(valid("genmix", "generator.name=dcgan"))
    assert "generator.width" in left
    assert "generator.critic_steps" not in left


def test_a_space_of_the_users_own_keeps_its_defaults_and_a_named_one_takes_the_budgets(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    epochs = "{name: classifier.epochs, type: int, low: 1, high: 500, default: 100, around: 2}"
    file.write_text(f"{{name: own, dimensions: [{epochs}]}}")
    own, _ = chosen_space(str(file), (), QUICK)
    assert own.dimension("classifier.epochs").parameter == Int(name="classifier.epochs", low=50, high=200, default=100)
    named, _ = chosen_space("genmix", (), QUICK)
    rate = named.dimension("classifier.learning_rate").parameter
    assert rate.default == QUICK.settings["classifier.learning_rate"]
