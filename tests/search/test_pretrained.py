"""What happens to a space where models to start from are missing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from search import cli, runner
from search.pretrained import fetch_weights, leave_missing, leave_missing_weights
from search.settings import NewSearch
from spaces.budget import BUDGETS
from spaces.corners import check_space
from spaces.errors import SpaceError
from spaces.fixed_settings import with_setting
from spaces.generators import GENERATORS
from spaces.presets import PRESETS
from spaces.reference import reference_policies
from spaces.space import Space
from spaces.space_file import space_from_yaml

QUICK = BUDGETS["quick"]
GENMIX = PRESETS["genmix"]
ROOT = Path(__file__).resolve().parents[2]


def lacking(*values: str) -> Callable[[str, str], str | None]:
    """A machine where generators can start from everything but ``values``."""
    return lambda generator, value: f"{value} is not here." if value in values or generator in values else None


def generators(space: Space) -> set[str]:
    rng = random.Random(0)
    return {str(space.sample(rng).get("generator.name")) for _ in range(500)} - {"None"}


def test_where_everything_is_there_nothing_leaves() -> None:
    assert leave_missing(GENMIX, QUICK, named=(), missing=lacking()) == (GENMIX, ())


def test_a_missing_value_leaves_with_a_line_and_the_generator_stays() -> None:
    space, notes = leave_missing(GENMIX, QUICK, named=(), missing=lacking("google/ddpm-cifar10-32"))
    assert notes == ("Left out of the space: google/ddpm-cifar10-32 is not here.",)
    assert generators(space) == set(GENERATORS) - {"none"}
    fixed, _ = space.fix("generator.name", "diffusion")
    assert {fixed.sample(random.Random(seed)).get("generator.pretrained", "none") for seed in range(50)} == {"none"}


def test_the_last_missing_value_takes_its_generator_and_all_its_dimensions_along_with_one_line() -> None:
    missing = lacking("CompVis/ldm-text2im-large-256", "CompVis/stable-diffusion-v1-4")
    space, notes = leave_missing(GENMIX, QUICK, named=(), missing=missing)
    assert generators(space) == set(GENERATORS) - {"none", "textual_inversion"}
    assert {"generator.tokens_per_class", "generator.steps", "generator.strength"}.isdisjoint(space.names)
    (note,) = notes
    assert "generator.name=textual_inversion leaves the space (--set generator.name=textual_inversion --set " in note
    assert "generator.pretrained=FOLDER searches it alone)" in note
    check_space(space, QUICK)
    assert all(space.contains(policy) for policy in reference_policies(space).values())


def test_a_generator_whose_libraries_are_missing_leaves_whatever_it_starts_from() -> None:
    space, notes = leave_missing(GENMIX, QUICK, named=(), missing=lacking("diffusion", "textual_inversion"))
    assert generators(space) == set(GENERATORS) - {"none", "diffusion", "textual_inversion"}
    assert "generator.pretrained" not in space.names
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generator.name", "textual_inversion"),
        ("generator.tokens_per_class", "3"),
        ("generator.pretrained", "CompVis/ldm-text2im-large-256"),
        ("generator.pretrained", "/my/model"),
    ],
)
def test_naming_what_is_missing_is_refused_with_what_to_pass(name: str, value: str) -> None:
    space, _ = GENMIX.fix(name, value)
    missing = lacking("CompVis/ldm-text2im-large-256", "CompVis/stable-diffusion-v1-4", "/my/model")
    with pytest.raises(SpaceError, match=r"textual_inversion would leave .* last generator.* is not here\."):
        leave_missing(space, QUICK, named=(name,), missing=missing)


def test_a_named_folder_stays_with_the_generators_that_can_start_from_it() -> None:
    space, _ = GENMIX.fix("generator.pretrained", "/my/pipeline")
    missing = lacking("diffusion")
    left, notes = leave_missing(space, QUICK, named=("generator.pretrained",), missing=missing)
    assert generators(left) == {"textual_inversion"}
    assert notes == ("generator.name=diffusion leaves the space: /my/pipeline is not here.",)


def test_what_is_not_searched_is_checked_too() -> None:
    text = "{name: x, dimensions: [{name: generator.name, type: choice, options: [dcgan, diffusion], default: dcgan}]}"
    space, _ = leave_missing(space_from_yaml(text, source="t"), QUICK, named=(), missing=lacking("none"))
    assert space.dimension("generator.name").parameter.domain() == "dcgan"
    without, _ = GENMIX.fix("mixer.name", "real")
    assert leave_missing(without, QUICK, named=(), missing=lacking("none")) == (without, ())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[NewSearch]:
    """What the command line would have started, on a machine with libraries and no model but folders."""
    searches: list[NewSearch] = []
    monkeypatch.setattr(
        runner, "start_search", lambda settings: searches.append(settings) or SimpleNamespace(exit_code=0)
    )
    monkeypatch.setattr(
        "trainables.generators.pretrained.available",
        lambda generator, value: None if value == "none" or Path(value).is_dir() else f"{value} is not here.",
    )
    return searches


def test_the_bare_command_starts_whatever_is_missing_and_records_what_is_left(
    started: list[NewSearch], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([]) == 0
    (settings,) = started
    assert generators(settings.space) == set(GENERATORS) - {"none", "textual_inversion"}
    assert "generator.name=textual_inversion leaves the space" in capsys.readouterr().out
    assert space_from_yaml(settings.space.to_yaml(), source="t") == settings.space


def test_a_folder_is_recorded_by_its_whole_path(
    started: list[NewSearch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    arguments = ["--set", "generator.name=textual_inversion", "--set", "generator.pretrained=tiny"]
    assert cli.main([*arguments, "--set", "generator.steps=3"]) == 0
    drawn = started[0].space.sample(random.Random(0))
    assert (drawn["generator.pretrained"], drawn["generator.steps"]) == (str(tmp_path / "tiny"), 3)


def test_a_missing_folder_and_a_missing_model_are_refused_before_a_search_starts(
    started: list[NewSearch], capsys: pytest.CaptureFixture[str]
) -> None:
    for fixed in ("generator.pretrained=/not/there", "generator.name=textual_inversion"):
        assert cli.main(["--set", fixed]) == 2
    said = capsys.readouterr().err
    assert "/not/there is neither a folder" in said
    assert "--set generator.pretrained=FOLDER" in said
    assert not started


def test_describe_shows_what_is_missing_and_all_that_could_be_searched(
    started: list[NewSearch], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--describe"]) == 0
    out = capsys.readouterr().out
    assert "Not on this machine\n" in out
    assert "generator.name=textual_inversion leaves the space" in out
    assert "generator.tokens_per_class: int 1 to 8" in out
    assert cli.main(["--describe", "--set", "generator.pretrained=/not/there"]) == 0


def test_asking_what_is_here_loads_no_heavy_library_and_asks_no_server() -> None:
    code = (
        "import json, socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from search.pretrained import leave_missing\n"
        "from spaces.budget import BUDGETS\n"
        "from spaces.presets import PRESETS\n"
        "leave_missing(PRESETS['genmix'], BUDGETS['quick'], named=())\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'ray', 'mlflow'} & set(sys.modules)\n"
        "print(json.dumps(sorted(heavy)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []


def weighted(*values: str) -> Space:
    options = ", ".join(values)
    return space_from_yaml(
        f"""
name: weights
dimensions:
  - {{name: mixer.name, type: choice, options: [real], default: real}}
  - {{name: classifier.name, type: choice, options: [vgg16], default: vgg16}}
  - {{name: classifier.pretrained, type: choice, options: [{options}], default: {values[0]}}}
""",
        source="a test",
    )


def test_weights_of_a_classifier_that_are_missing_leave_with_a_line() -> None:
    space, notes = leave_missing_weights(weighted("none", "a/b"), QUICK, named=(), missing=lacking("a/b"))
    assert notes == ("Left out of the space: a/b is not here.",)
    assert space == weighted("none")


@pytest.mark.parametrize(
    ("space", "named"), [(weighted("none", "a/b"), ("classifier.pretrained",)), (weighted("a/b"), ())]
)
def test_weights_that_were_named_or_are_the_only_ones_are_refused(space: Space, named: tuple[str, ...]) -> None:
    with pytest.raises(SpaceError, match=r"a/b is not here\."):
        leave_missing_weights(space, QUICK, named=named, missing=lacking("a/b"))


def by_classifier(**weights: str) -> Space:
    """A space with small_cnn, which has no weights, and some of each named classifier."""
    lines = [
        f"  - {{name: classifier.pretrained, type: choice, options: [{options}], default: {options.split(',')[0]}, "
        f"when: {{classifier.name: [{classifier}]}}}}"
        for classifier, options in weights.items()
    ]
    names = ", ".join(["small_cnn", *weights])
    return space_from_yaml(
        f"""
name: weights
dimensions:
  - {{name: mixer.name, type: choice, options: [real], default: real}}
  - {{name: classifier.name, type: choice, options: [{names}], default: small_cnn}}
"""
        + "\n".join(lines),
        source="a test",
    )


def absent(*pairs: tuple[str, str]) -> Callable[[str, str], str | None]:
    """A machine where small_cnn starts from nothing but random weights, and others not from those of ``pairs``."""

    def missing(classifier: str, value: str) -> str | None:
        lacks = (classifier == "small_cnn" and value != "none") or (classifier, value) in pairs
        return f"{value} is not here for {classifier}." if lacks else None

    return missing


def test_weights_under_a_condition_are_tried_with_its_classifiers_alone() -> None:
    space = by_classifier(resnet50="a/b")
    assert leave_missing_weights(space, QUICK, named=("classifier.pretrained",), missing=absent()) == (space, ())


def test_weights_of_every_condition_are_tried_and_leave_it_alone() -> None:
    space = by_classifier(resnet50="none, a/b", vgg16="none, a/b")
    left, notes = leave_missing_weights(space, QUICK, named=(), missing=absent(("vgg16", "a/b")))
    assert (left, notes) == (
        by_classifier(resnet50="none, a/b", vgg16="none"),
        ("Left out of the space: a/b is not here for vgg16.",),
    )
    with pytest.raises(SpaceError, match=r"c/d is not here for vgg16\."):
        leave_missing_weights(
            by_classifier(resnet50="a/b", vgg16="c/d"), QUICK, named=(), missing=absent(("vgg16", "c/d"))
        )


def test_weights_without_a_condition_on_classifiers_are_tried_with_all_of_the_space() -> None:
    text = """
name: weights
dimensions:
  - {name: mixer.name, type: choice, options: [real, mixup], default: real}
  - {name: classifier.name, type: choice, options: [vgg16, small_cnn], default: vgg16}
  - {name: classifier.pretrained, type: choice, options: [none, a/b], default: none, when: {mixer.name: [real]}}
"""
    _, notes = leave_missing_weights(space_from_yaml(text, source="a test"), QUICK, named=(), missing=absent())
    assert notes == ("Left out of the space: a/b is not here for small_cnn.",)


def test_weights_of_every_condition_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(
        "trainables.classifiers.pretrained.ensure", lambda value, *, allow_download: fetched.append(value)
    )
    fetch_weights(by_classifier(resnet50="none, a/b", vgg16="none, c/d"))
    assert fetched == ["a/b", "c/d"]


def test_a_space_that_names_no_weights_stays_as_it_is() -> None:
    assert leave_missing_weights(GENMIX, QUICK, named=(), missing=lacking("none")) == (GENMIX, ())


def test_named_weights_are_checked_before_any_trial_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    given = ["--set", "classifier.name=vgg16", "--set", f"classifier.pretrained={tmp_path}/weights.pth"]
    assert cli.main([*given, "--storage", str(tmp_path / "searches")]) == cli.EXIT_BAD_INPUT
    assert "weights.pth" in capsys.readouterr().err
    assert not (tmp_path / "searches").exists()


def test_a_setting_that_is_not_searched_can_be_fixed_and_must_be_of_its_type() -> None:
    space = with_setting(GENMIX, "classifier.patience", "7")
    assert space.sample(random.Random(0))["classifier.patience"] == 7
    assert with_setting(GENMIX, "classifier.amp", "off").sample(random.Random(0))["classifier.amp"] is False
    with pytest.raises(SpaceError, match=r"patience=soon: expected a whole number, such as its default 0"):
        with_setting(GENMIX, "classifier.patience", "soon")
