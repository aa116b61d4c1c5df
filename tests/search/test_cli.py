"""The command line: what it prints, and one sentence for everything that it cannot use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users' name for it

from search.chosen_space import chosen_space
from search.cli import main
from search.versions import versions
from spaces.budget import BUDGETS, Budget
from spaces.generators import EganConfig
from spaces.parameter import Int
from spaces.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def write_png(path: Path, seed: int, size: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten patients of two images each, in class folders, with a labels.csv."""
    folder = tmp_path / "data"
    rows = ["path,label,patient"]
    for index in range(20):
        name = f"{'ab'[index % 2]}/{index}.png"
        write_png(folder / name, index)
        rows.append(f"{name},{'ab'[index % 2]},p{index // 4}-{index % 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said, after checking that it is one sentence without traceback and exit code 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) >= 1
    return captured.err


def started(tmp_path: Path, data: Path, *more: str) -> list[str]:
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    return ["--data", str(data), "--storage", str(tmp_path / "s"), "--tracking-uri", tracking, *more]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "genmx"], "did you mean 'genmix'"),
        (["--space", "missing.yaml"], "cannot be read"),
        (["--resume", "s", "--describe"], "--describe was given with --resume"),
        (["--resume", "s", "--config", "best.yaml"], "--config was given with --resume"),
        (["--set", "generator.nam=egan"], "did you mean 'generator.name'"),
        (["--set", "generator.name=egn"], "is not one of dcgan, acgan"),
        (["--set", "generator.gamma"], "has no '='"),
        (["--set", "mixer.name=real", "--set", "generator.name=egan"], "does not exist under --set mixer.name=real;"),
        (["--set", "mixer.name=real", "--set", "synthetic.ratio=1"], "does not exist under --set mixer.name=real;"),
        (["--set", "classifier.epoch=4"], "did you mean 'classifier.epochs'"),
        (["--set", "classifier.epochs=0"], "space 'genmix': classifier.epochs is 0"),
        (["--set", "classifier.name=vgg16", "--set", "preprocess.pixels=16"], "preprocess.pixels is 16"),
        (["--metric", "acuracy"], "did you mean 'accuracy'"),
        (["--sampler", "tep"], "did you mean 'tpe'"),
        (["--scheduler", "ahsa"], "did you mean 'asha'"),
        (["--budget", "quik"], "did you mean 'quick'"),
        (["--trails", "5"], "did you mean '--trials'"),
        (["--trials", "0"], "--trials"),
        (["--folds", "1"], "--folds 1"),
        (["--max-copy-rate", "1.5"], "'1.5' is no number from 0 to 1"),
        (["--max-copy-rate", "few"], "'few' is no number from 0"),
        (["--time-budget", "soon"], "no duration"),
        (["--time-budget", "10"], "write 90s, 15m"),
        (["--stage-limit", "20"], "write 500MB"),
        (["--name", "../escape"], "not a search name"),
        (["--labels", "x.csv"], "without --data"),
        (["serach"], "no subcommand"),
        (["--trials", "x"], "'x' is no whole number from 1"),
        (["--gpus-per-trial", "64"], "more than the"),
        (["--cpus-per-trial", "4096"], "more than the"),
        (["--address", "127.0.0.1:9", "--gpus-per-trial", "0"], "--address 127.0.0.1:9 does not answer"),
    ],
)
def test_a_wrong_flag_is_refused_with_the_nearest_valid_one(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    "flags", [["--help"], ["--list-spaces"], ["--describe"], ["--budget", "quik"], ["--set", "generator.pretrained=/x"]]
)
def test_answers_that_need_no_data_load_no_heavy_library(flags: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['run.py', *sys.argv[1:]]\n"
        "from search.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'sklearn', 'numpy', 'SimpleITK', 'diffusers', 'transformers'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, check=True, capture_output=True)


def test_describe_prints_bounds_defaults_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--describe", "--set", "generator.name=egan"]) == 0
    out = capsys.readouterr().out
    assert "--set generator.name=egan limits mixer.name to blend, genmix." in out
    for dimension in PRESETS["genmix"].fix("generator.name", "egan")[0].dimensions:
        assert dimension.parameter.meaning in out
        assert f"{dimension.name}: {dimension.parameter.domain()}" in out


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=lambda budget: budget.name)
def test_defaults_are_the_budgets_and_lengths_are_searched_around_them(budget: Budget) -> None:
    space, _ = chosen_space("genmix", [], budget)
    expected = budget.generators["egan"].get("discriminator_steps", EganConfig().discriminator_steps)
    found = {
        space.generators_of(each): each.parameter.default for each in space.variants("generator.discriminator_steps")
    }
    assert found[("egan",)] == expected
    for name in ("generator.steps", "generator.sampling_steps"):
        parameter = space.dimension(name).parameter
        assert isinstance(parameter, Int)
        assert parameter.default / 2 <= parameter.low < parameter.high <= parameter.default * 2
    fixed, _ = chosen_space("genmix", ["generator.steps=4321"], budget)
    assert {each.parameter.domain() for each in fixed.variants("generator.steps")} == {"4321"}
    assert fixed.dimension("generator.name") == space.dimension("generator.name"), "all of them train for so long"


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} search/run.py --describe | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_search_that_ends_with_the_reference_policies_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    said = "--trials 2: reference policies alone (none, affine), which every search tries first; from --trials 5 on"
    for trials, expected in (("2", True), ("4", True), ("5", False)):
        assert main(["--describe", "--trials", trials]) == 0
        assert ("reference policies alone" in capsys.readouterr().out) is expected
    assert main(["--describe", "--trials", "2", "--set", "mixer.name=mixup"]) == 0
    assert said in capsys.readouterr().out
    assert main(["--describe", "--trials", "2", "--space", "table_dae_gan"]) == 0
    assert "reference policies alone" not in capsys.readouterr().out


def test_resuming_what_is_not_there_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no search was found" in refusal(capsys, "--resume", "--storage", str(tmp_path))


def test_a_missing_folder_and_one_without_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(capsys, *started(tmp_path, tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "empty" in refusal(capsys, *started(tmp_path, tmp_path / "empty"))


def test_a_label_with_fewer_patients_than_folds(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    said = refusal(capsys, *started(tmp_path, data, "--folds", "6"))
    assert "5 patients" in said
    assert "6 folds" in said


@pytest.mark.parametrize(
    ("row", "message"),
    [("a/missing.png,a,p9", "missing.png"), ("../outside.png,a,p9", "outside"), ("a/0.png,b,p9", "a/0.png")],
)
def test_csv_rows_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path, row: str, message: str
) -> None:
    write_png(tmp_path / "outside.png", 99)
    with (data / "labels.csv").open("a") as file:
        file.write(row + "\n")
    assert message in refusal(capsys, *started(tmp_path, data))


def test_all_bad_images_are_listed_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    (data / "a/0.png").write_bytes(b"")
    whole = (data / "b/1.png").read_bytes()
    (data / "b/1.png").write_bytes(whole[: len(whole) // 2])
    sitk.WriteImage(sitk.GetImageFromArray(np.full((32, 32), 7, np.uint8)), str(data / "a/2.png"))
    said = refusal(capsys, *started(tmp_path, data))
    assert all(name in said for name in ("a/0.png", "b/1.png", "a/2.png", "--skip-bad-images"))


def test_mixed_channel_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(data / "a/0.png"))
    assert "a/0.png" in refusal(capsys, *started(tmp_path, data))


def test_a_tracking_server_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    arguments = [*started(tmp_path, data)[:-1], "http://127.0.0.1:9"]
    assert "http://127.0.0.1:9" in refusal(capsys, *arguments)


def test_a_password_in_the_tracking_address(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    for uri in ("http://me:secret@127.0.0.1:9", "http://me:a/secret@127.0.0.1", "postgresql://h/x?password=secret"):
        said = refusal(capsys, *started(tmp_path, data)[:-1], uri)
        assert "holds a password" in said
        assert "secret" not in said
    assert "cannot be read" in refusal(capsys, *started(tmp_path, data)[:-1], "http://me@[::1")


def test_a_damaged_record_hides_no_other_search(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "search.json").write_text("{")
    assert "cannot be read as a search's record" in refusal(capsys, "show", "broken", "--storage", str(tmp_path))
    assert "cannot be read as a search's record" in refusal(capsys, "--resume", "--storage", str(tmp_path))


def test_a_refused_search_leaves_no_search_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path
) -> None:
    refusal(capsys, *started(tmp_path, data, "--metric", "sensitivity_c", "--name", "x"))
    refusal(capsys, *started(tmp_path, data, "--positive", "c", "--name", "x"))
    assert not list((tmp_path / "s").glob("*/search.json"))
    assert not (tmp_path / "s" / "x").exists()


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"genmix-search {versions()['genmix-search']}\n"
