"""The main job on the real sets, as a user runs it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = os.environ.get("GENMIX_REAL_DATA")

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.skipif(FOLDER is None, reason="GENMIX_REAL_DATA names no folder with the real sets"),
]


def patients_of_folds(trial: Path) -> list[set[str]]:
    """The patients of each finished fold's out-of-fold predictions."""
    folds = [json.loads(path.read_text()) for path in sorted(trial.glob("fold_*.json"))]
    return [{each["patient"] for each in fold["predictions"]} for fold in folds]


@pytest.mark.parametrize(
    ("data", "labels", "least_auroc"),
    [("cxr_nih_pneumonia", "labels.csv", 0.80), ("cardiac_sunnybrook", "labels_binary.csv", 0.50)],
)
def test_a_search_on_real_images_beats_chance_and_keeps_patients_apart(
    tmp_path: Path, data: str, labels: str, least_auroc: float
) -> None:
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "search" / "run.py"), "--space", "genmix",
            "--data", str(Path(str(FOLDER)) / data), "--labels", labels, "--trials", "4", "--folds", "3",
            "--name", "real", "--storage", str(tmp_path / "s"), "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db",
        ],
        cwd=tmp_path, text=True, capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "s/real/result.json").read_text())
    assert result["best"]["scores"]["auroc"]["mean"] >= least_auroc
    patients = {trial["id"]: patients_of_folds(tmp_path / "s/real/trials" / trial["id"]) for trial in result["trials"]}
    for tested in patients.values():
        assert all(not one & other for one, other in itertools.combinations(tested, 2))
    assert sum(map(len, patients[result["best"]["trial"]])) == result["data"]["patients"]
