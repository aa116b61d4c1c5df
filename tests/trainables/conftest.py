"""A tiny data set of image files, and what a trial on it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users' name for it
import torch

from spaces.budget import BUDGETS
from spaces.config import TrialConfig, trial_config
from spaces.generators import GENERATORS
from spaces.parameter import Value
from tests.trainables.generators.golden import needed
from trainables.data.cohort import Cohort
from trainables.data.reading import read_cohort
from trainables.fold import Environment
from trainables.stages import StageStore

TINY = {
    "classifier.epochs": 2,
    "classifier.batch_size": 8,
    "generator.steps": 2,
    "generator.batch_size": 4,
    "generator.width": 4,
    "generator.latent_size": 4,
    "generator.sampling_steps": 2,
}


def write_images(folder: Path, *, patients: int = 12, per_patient: int = 2, seed: int = 0) -> Path:
    """Class folders' worth of 32 x 32 PNG noise, dark and bright, with a labels.csv that names patients."""
    rng = np.random.default_rng(seed)
    rows = ["path,label,patient"]
    for patient in range(patients):
        label = ("dark", "bright")[patient % 2]
        for index in range(per_patient):
            name = f"{label}-{patient}-{index}.png"
            pixels = rng.integers(0, 120, (32, 32)) + 100 * (label == "bright")
            folder.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(pixels.astype(np.uint8)), str(folder / name))
            rows.append(f"{name},{label},p{patient}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data")


@pytest.fixture
def cohort(image_folder: Path, tmp_path: Path) -> Cohort:
    return read_cohort(image_folder, cache=tmp_path / "images")


@pytest.fixture
def environment(cohort: Cohort, tmp_path: Path) -> Environment:
    return Environment(
        cohort=cohort,
        store=StageStore(tmp_path / "stages"),
        seed=3,
        positive=0,
        device=torch.device("cpu"),
        threads=torch.get_num_threads(),
        report=lambda stage, done, total: None,
    )


@pytest.fixture
def tiny_trial() -> Callable[..., TrialConfig]:
    """Builds a trial's configuration that computes in a blink."""

    def build(**flat: Value) -> TrialConfig:
        named = {name.replace("__", "."): value for name, value in flat.items()}
        fields = {field.name for field in dataclasses.fields(GENERATORS[str(named.get("generator.name", "none"))])}
        if "generator.name" in named:
            wanted = needed(str(named["generator.name"]))
            named = {**{f"generator.{field}": value for field, value in wanted.items()}, **named}
        known = {
            name: value
            for name, value in TINY.items()
            if not name.startswith("generator.") or name.removeprefix("generator.") in fields
        }
        return trial_config({**known, **named}, replace(BUDGETS["quick"], generators={}))

    return build
