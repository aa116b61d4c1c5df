"""What ``--describe`` says: of the search that was asked about, without contradicting itself."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest
import yaml

from search import confirm, cost_estimate, reuse
from search.cli import main
from search.description import PHANTOM_IMAGES
from trainables.data.phantom import write_phantom

REAL = ("--set", "mixer.name=real")


def page(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["--describe", *arguments]) == 0
    return capsys.readouterr().out


def compute(text: str) -> int:
    """Seconds of compute."""
    found = re.search(r"(\d+):(\d\d):(\d\d) of compute \(", text)
    assert found is not None, text
    hours, minutes, seconds = map(int, found.groups())
    return 3600 * hours + 60 * minutes + seconds


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Labels of 300 images at three sites; a fifth of them for validation. The images are empty files."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["path,label,site,split"]
    for number in range(300):
        name = f"{number}.png"
        (folder / name).touch()
        lines.append(f"{name},{'ab'[number % 2]},{'xyz'[number % 3]},{'val' if number % 5 == 0 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def test_the_cost_follows_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    usual = compute(page(capsys, *REAL))
    more = {
        text: compute(page(capsys, *REAL, *text.split()))
        for text in (
            "--trials 24",
            "--set classifier.epochs=48",
            "--set preprocess.pixels=64",
            "--folds 9",
            "--repeats 3",
        )
    }
    assert all(seconds > 1.5 * usual for seconds in more.values()), (usual, more)


def test_a_network_that_nothing_is_known_of_costs_nobody_knows_what(capsys: pytest.CaptureFixture[str]) -> None:
    said = page(capsys, "--set", "classifier.name=resnet50")
    assert "What it costs is not known: nothing was measured of the classifier resnet50" in said
    assert "--trials 4" in said
    assert "of compute" not in said


def test_cores_that_are_not_there_make_nothing_faster(capsys: pytest.CaptureFixture[str]) -> None:
    two, eight = (page(capsys, *REAL, "--concurrency", number) for number in ("2", "8"))
    assert "on 2 slots" in two
    assert two.strip() in eight
    assert "enough for 2 at once: 8 would be no faster" in eight


def test_images_that_are_not_there_are_not_described(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--describe", "--data", str(tmp_path / "nothing")]) == 2
    said = capsys.readouterr()
    assert "does not exist" in said.err
    assert said.out == ""


def test_the_cost_follows_the_images_and_how_they_are_divided(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    expected = {
        "": ("3 folds, 12 trials", "x 3 folds", 200),
        "--folds 10": ("10 folds, 12 trials", "x 10 folds", 270),
        "--lock-test 0.5": ("3 folds, 12 trials", "x 3 folds", 100),
        "--leave-site-out": ("3 sites, each left out in turn, 12 trials", "x 3 folds", 200),
        "--split-file labels": ("one fixed split, 12 trials", "x 1 fold:", 240),
        "--repeats 2": ("3 folds, 2 repeats, 12 trials", "x 6 folds", 200),
    }
    for flags, (scored, folds, images) in expected.items():
        said = page(capsys, *REAL, "--data", str(data), *flags.split())
        assert scored in said
        assert folds in said
        assert f"training images ({images} here)" in said


def test_a_confirmation_is_counted_where_there_will_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    said = page(capsys, *REAL, "--budget", "standard", "--trials", "8")
    assert "The confirmation at its end may add up to 0:0" in said
    for without in (["--budget", "standard", "--trials", "8", "--no-confirm"], []):
        assert "confirmation" not in page(capsys, *REAL, *without)
    assert cost_estimate.CONFIRMATION_SHARE == confirm.SHARE


def test_the_estimate_proposes_new_generators_as_often_as_the_sampler() -> None:
    assert (cost_estimate.STARTUP, cost_estimate.NEW_WITHIN) == (reuse.STARTUP, reuse.NEW_WITHIN)


def test_the_budgets_settings_are_those_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ("classifier.name=vgg16", "classifier.epochs=7", "preprocess.pixels=64", "generator.name=egan")
    said = page(capsys, "--trials", "30", "--folds", "4", *(text for each in fixed for text in ("--set", each)))
    assert "4 folds, 30 trials" in said
    for name in ("classifier.name", "classifier.epochs", "preprocess.pixels", "classifier.learning_rate"):
        assert f"  {name} = " not in said
    assert "  classifier.batch_size = 32" in said
    assert "  egan: steps = 110" in said
    for other in ("dcgan", "wgan_gp", "diffusion"):
        assert f"  {other}: " not in said
    generators = re.findall(r"^  (\w+): steps", page(capsys, "--set", "generator.name=none"), re.MULTILINE)
    assert generators == ["dcgan"]  # the reference policy's


def test_one_configuration_is_compared_with_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {"mixer.name": "real", "affine": True, "classifier.epochs": 600}
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({"options": {"budget": "quick"}, "config": config}))
    said = page(capsys, "--config", "best.yaml")
    assert "3 folds, 1 trial\n" in said
    assert "reference policies" not in said
    assert "About 1 trial x 3 folds" in said
    assert compute(said) > 100
    assert "genmix: mixer.name" not in page(capsys, "--trials", "3")


def test_the_phantom_has_as_many_images_as_are_counted() -> None:
    drawn = inspect.signature(write_phantom).parameters
    assert drawn["patients"].default * drawn["slices"].default == PHANTOM_IMAGES
