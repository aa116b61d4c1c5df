"""The README's whole path: each of its commands, in its order, in a fresh virtual environment.

By default the environment borrows the packages of the running one, and the commands are those of a first hour. With
GENMIX_README=commands they are all of them; with GENMIX_README=whole everything is installed anew as well. That takes
half an hour.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users' name for it

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WISH = os.environ.get("GENMIX_README", "")
ALL, ANEW = WISH in ("commands", "whole"), WISH == "whole"
_PROGRAMS = r"(?:pip|python|pytest|mlflow)\b"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A documented command.

    Args:
        documented: as the README has it, without its comment.
        small: what is added to keep it small.
        instead: what is put in the place of a part of it, for the same reason.
        told: must be in what it prints.
        left: must be there afterwards, in the folder of the checkout.
        serves: it runs until Ctrl-C; so it is left running where others need it, and else ended as soon as it has told.
        early: whether it belongs to the first hour.
    """

    documented: str
    small: str = ""
    instead: Mapping[str, str] | None = None
    told: str = ""
    left: str = ""
    serves: bool = False
    early: bool = False


_RUN = "python search/run.py"
_TINY = "--folds 2 --set classifier.epochs=1 --no-confirm --concurrency 2"
STEPS = (
    Step(documented="pip install -e .", early=True),
    Step(
        documented=f"{_RUN} --space genmix --data FOLDER",
        small=f"--trials 2 --name first {_TINY}",
        told="expect less on new patients",
        left="searches/first/report.html",
        early=True,
    ),
    Step(documented=f"{_RUN} --space genmix", small=f"--trials 2 --name phantom {_TINY}", told="phantom"),
    Step(
        documented=f"{_RUN} --space genmix --data FOLDER",
        small=f"--trials 4 --name NAME --set generator.name=dcgan {_TINY}",
        left="searches/NAME/best.yaml",
    ),
    Step(documented=f"{_RUN} --list-spaces", told="table_dae_gan"),
    Step(documented=f"{_RUN} --describe", small="--set generator.name=dcgan", told="generator.name"),
    Step(documented=f"{_RUN} confirm NAME", small="--top 1 --repeats 1", left="searches/NAME/confirmation.json"),
    Step(documented=f"{_RUN} stages", told="generator"),
    Step(documented=f"{_RUN} stages --verify"),
    Step(documented=f"{_RUN} stages --prune --stage-limit 20GB"),
    Step(documented=f"{_RUN} --resume"),
    Step(documented=f"{_RUN} --resume NAME --trials 30", instead={"30": "5"}),
    Step(documented=f"{_RUN} --resume NAME --repeats 3", instead={"3": "2"}),
    Step(documented=f"{_RUN} show NAME", told="balanced accuracy", early=True),
    Step(documented=f"{_RUN} doctor --data FOLDER"),
    Step(documented=f"{_RUN} report NAME", told="report.html", early=True),
    Step(documented=f"{_RUN} report NAME --compare OTHER", told="comparison-NAME-phantom.html"),
    Step(documented="mlflow ui --backend-store-uri sqlite:///mlflow.db", instead={"ui": "ui --port PORT"}, serves=True),
    Step(documented=f"{_RUN} ui NAME", told="viewStateShareKey", serves=True),
    Step(documented=f"{_RUN} sync NAME --tracking-uri http://HOST:PORT", told="trials of NAME"),
    Step(documented=f"{_RUN} export NAME --optuna sqlite:///study.db", left="study.db", early=True),
    Step(documented=f"{_RUN} refit NAME", left="searches/NAME/model", early=True),
    Step(documented=f"{_RUN} predict NAME scans/ --out predictions.csv", left="predictions.csv", early=True),
    Step(
        documented=f"{_RUN} synthesize NAME --count 200 --out synthetic/",
        instead={"200": "8"},
        left="synthetic/labels.csv",
    ),
    *(
        Step(
            documented=f"{_RUN} --space {table} --budget standard {options} --data FOLDER",
            instead={"standard": "quick"},
            small=f"--name {name} --folds 2 --set classifier.epochs=1 --gpus-per-trial 0",
            left=f"searches/{name}/table.md",
        )
        for name, table, options in (
            ("dae_gan_small_cnn", "table_dae_gan", "--set classifier.name=small_cnn --repeats 1"),
            ("genmix_small_cnn", "table_genmix", "--set classifier.name=small_cnn --repeats 1"),
            ("dae_gan_own", "table_dae_gan", "--repeats 1"),
            ("genmix_own", "table_genmix", "--gpus-per-trial 0.1 --stage-limit 25GB"),
        )
    ),
    Step(documented="python -m tests.benchmarks.confirmation --data FOLDER", small="--small"),
    Step(
        documented="python -m tests.benchmarks.fidelity --data FOLDER",
        small="--generator dcgan --cpu-minutes 0.1 --folds 2 --epochs 1",
        told="dcgan",
    ),
    Step(
        documented="python -m tests.benchmarks.small_pipeline "
        "--images chest=FOLDER --images heart=HEARTS --out PIPELINE",
        instead={"HEARTS": "FOLDER"},
        small="--cpu-minutes 0.1",
        left="PIPELINE/rest.csv",
    ),
    Step(
        documented="python -m tests.benchmarks.fidelity --data FOLDER --labels PIPELINE/rest.csv "
        "--folds 3 --generator textual_inversion --set textual_inversion.pretrained=PIPELINE",
        small="--cpu-minutes 0.1 --folds 2 --epochs 1",
        told="textual_inversion",
    ),
    Step(documented="python tests/benchmarks/generators.py", small="--small --generator dcgan"),
    Step(documented="python tests/benchmarks/racing.py", small="--small"),
    Step(documented="python tests/benchmarks/sharing.py", small="--small --data FOLDER"),
    Step(documented="python tests/benchmarks/search_efficiency.py", small="--small"),
    Step(documented="python tests/benchmarks/overhead.py --small"),
    Step(documented="pip install -e '.[test]'"),
    Step(documented="pytest", small="tests/spaces"),
    Step(documented='pytest -m "not slow"', small="tests/spaces"),
)
LEFT_OUT = {f"{_RUN} --data FOLDER --storage /shared/searches --address auto": "test_cluster.py has a cluster"}


def documented() -> Iterator[str]:
    """Every command of the README, in a block of its own or within a sentence."""
    lines = re.findall(rf"^ {{4}}({_PROGRAMS}.*)$", README, flags=re.MULTILINE)
    lines += re.findall(rf"`({_PROGRAMS}[^`\n]*)`", README)
    for line in lines:
        yield from (part.partition(" #")[0].strip() for part in line.split("&&"))


def test_every_command_of_the_readme_is_run_here() -> None:
    found = {command for command in documented() if command != "python"}
    assert len(found) > 25
    assert found == {step.documented for step in STEPS} | set(LEFT_OUT)


def test_what_the_readme_links_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert any(target.endswith(".png") for target in targets), "a picture of the report"
    for target in targets:
        file, _, place = target.partition("#")
        page = ROOT / (file or "README.md")
        assert page.exists(), target
        headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE) if place else [""]
        assert place in {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}, target


class Checkout:
    """A copy of the project, and a virtual environment beside it."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "genmix-search"
        hidden = shutil.ignore_patterns(".*", "__pycache__", "searches", "mlruns", "mlartifacts", "*.db", "*.egg-info")
        shutil.copytree(ROOT, self.folder, ignore=hidden)
        self._bin = place / "environment" / "bin"
        subprocess.run([sys.executable, "-m", "venv", str(place / "environment")], check=True, timeout=120)
        if not ANEW:
            own = next((place / "environment" / "lib").glob("python*/site-packages"))
            (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.images = write_images(place / "images")
        shutil.copytree(self.images, self.folder / "scans", ignore=shutil.ignore_patterns("*.csv"))
        with socket.socket() as probing:
            probing.bind(("127.0.0.1", 0))
            self.port = int(probing.getsockname()[1])
        self.serving: list[subprocess.Popen[bytes]] = []

    def words(self, step: Step) -> list[str]:
        """The step as this checkout runs it."""
        text = step.documented
        for part, other in (step.instead or {}).items():
            assert part in text
            text = re.sub(rf"\b{part}\b", other, text)
        places = {"FOLDER": str(self.images), "HOST": "127.0.0.1", "PORT": str(self.port), "OTHER": "phantom"}
        words = []
        for word in shlex.split(f"{text} {step.small}"):
            for name, value in {**places, "NAME": self.name}.items():
                word = re.sub(rf"\b{name}\b", value, word)
            words.append(word)
        if (self._bin / words[0]).exists():
            return [str(self._bin / words[0]), *words[1:]]
        return [str(self._bin / "python"), "-m", *words]  # a borrowed package's program lies elsewhere

    name = "found" if ALL else "first"
    """Of the search that NAME stands for."""

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV_"))}
        return {**own, "PATH": f"{self._bin}:{os.environ['PATH']}", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}

    def run(self, step: Step) -> str:
        """Run a step to its end, which must be a good one; returns what it printed."""
        words = self.words(step)
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=1500, check=False
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, f"{shlex.join(words)}\n{told[-6000:]}"
        assert "Traceback" not in told, told[-6000:]
        return told

    def serve(self, step: Step) -> str:
        """Start a step that serves; the one without anything to tell stays, on the port that others are given."""
        log = self.folder / f"served{len(self.serving)}.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.words(step), cwd=self.folder, env=self.environment, stdout=out, stderr=out, start_new_session=True
            )
        self.serving.append(process)
        deadline = time.monotonic() + 240
        while not (step.told in log.read_text() if step.told else self._answers()):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        if step.told:
            process.send_signal(signal.SIGTERM if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else signal.SIGINT)
            assert process.wait(60) == 0, log.read_text()
        return log.read_text()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as told:
                return bool(told.status == 200)
        except OSError:
            return False


def write_images(folder: Path) -> Path:
    """Noise of two levels, 24 patients of two images."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["path,label,patient"]
    for index in range(48):
        label = index // 2 % 2
        pixels = (rng.integers(0, 180, (32, 32)) + 60 * label).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(folder / f"{index}.png"))
        rows.append(f"{index}.png,{('healthy', 'diseased')[label]},p{index // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    place = Checkout(tmp_path)
    yield place
    for process in place.serving:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_path_of_the_readme_can_be_walked(checkout: Checkout) -> None:
    for step in STEPS:
        if not (ALL or step.early):
            continue
        began = time.monotonic()
        told = checkout.serve(step) if step.serves else checkout.run(step)
        print(f"{time.monotonic() - began:6.1f} s  {step.documented}")
        name = checkout.name
        assert step.told.replace("NAME", name) in told, f"{step.documented}\n{told[-6000:]}"
        assert not step.left or (checkout.folder / step.left.replace("NAME", name)).exists(), step.documented
    assert len((checkout.folder / "predictions.csv").read_text().splitlines()) == 1 + 48
    if ALL:
        python_block(checkout)


def python_block(checkout: Checkout) -> None:
    """Run what the README says of use from Python."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    small = 'budget="quick", trials=2, folds=2, name="api", fixed={"classifier.epochs": 1}, no_confirm=True'
    for part, other in (('"FOLDER"', f'"{checkout.images}"'), ('budget="standard"', small), ('"NAME"', '"api"')):
        assert part in code
        code = code.replace(part, other)
    (checkout.folder / "block.py").write_text(code)
    checkout.run(Step(documented="python block.py"))
