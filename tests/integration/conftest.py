"""A tiny search: noise images, a space that trains in a blink, run as a user would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users' name for it

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "search" / "run.py"

SPACE = """
name: tiny
description: a space whose trials take a second
dimensions:
  - {name: mixer.name, type: choice, options: [real, mixup, genmix], default: genmix}
  - {name: generator.name, type: choice, options: [dcgan], default: dcgan, when: {mixer.name: [genmix]}}
  - {name: generator.steps, type: int, low: 3, high: 3, default: 3, when: {mixer.name: [genmix]}}
  - {name: generator.width, type: int, low: 4, high: 4, default: 4, when: {mixer.name: [genmix]}}
  - {name: mixer.mixup_alpha, type: float, low: 0.1, high: 1.0, default: 0.2, when: {mixer.name: [mixup]}}
  - {name: mixer.genmix_alpha, type: float, low: 0.1, high: 1.0, default: 0.3, when: {mixer.name: [genmix]}}
  - {name: synthetic.ratio, type: float, low: 0.5, high: 1.0, default: 1.0, when: {mixer.name: [genmix]}}
  - {name: affine, type: choice, options: [false, true], default: false}
  - {name: classifier.epochs, type: int, low: 2, high: 2, default: 2}
"""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """A folder in which a user works."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *arguments: str, storage: str = "searches") -> list[str]:
        return [
            sys.executable, str(RUN), "--storage", str(self.folder / storage),
            "--tracking-uri", f"sqlite:///{self.folder}/mlflow.db", *arguments,
        ]  # fmt: skip

    def subcommand(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, str(RUN), name, "--storage", str(self.folder / "searches"), *arguments]

    def new(self, *arguments: str) -> list[str]:
        return ["--space", str(self.folder / "tiny.yaml"), "--data", str(self.folder / "data"), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}

    def run(self, *arguments: str, storage: str = "searches") -> subprocess.CompletedProcess[str]:
        return self.run_command(self.command(*arguments, storage=storage))

    def run_command(self, command: list[str], timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip

    def start(self, *arguments: str, storage: str = "searches") -> subprocess.Popen[bytes]:
        return self.start_command(self.command(*arguments, storage=storage))

    def start_command(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def log(self) -> str:
        """What the process started last has printed."""
        return (self.folder / "log.txt").read_text()

    def result(self, name: str, storage: str = "searches") -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.folder / storage / name / "result.json").read_text())
        return data


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    rng = np.random.default_rng(0)
    rows = ["path,label,patient"]
    (tmp_path / "data").mkdir()
    for index in range(48):
        label = ("healthy", "diseased")[index % 2]
        pixels = rng.integers(0, 200, (32, 32)) + 30 * (index % 2)
        sitk.WriteImage(sitk.GetImageFromArray(pixels.astype(np.uint8)), str(tmp_path / "data" / f"{index}.png"))
        rows.append(f"{index}.png,{label},patient{index // 4}-{index % 2}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows) + "\n")
    place = Workplace(folder=tmp_path)
    yield place
    for process in place.started:
        process.kill()
        process.wait()
