"""optuna-dashboard over an exported search: it starts, and shows the study."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.cli import main
from tests.mlflow_tracking.made_up import GENMIX_DCGAN, MIXUP, REAL, add_trial, new_ledger

PROGRAM = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent)) or shutil.which("optuna-dashboard")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PROGRAM is None, reason="optuna-dashboard is not installed (pip install optuna-dashboard)"),
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a dashboard over the export of a search: one trial of three was stopped early."""
    ledger = new_ledger(tmp_path / "searches", "found")
    add_trial(ledger, REAL, reference="none", level=0.6)
    add_trial(ledger, GENMIX_DCGAN, level=0.8)
    add_trial(ledger, MIXUP, folds=1, state="pruned", level=0.5)
    url = f"sqlite:///{tmp_path}/study.db"
    assert main(["export", "found", "--storage", str(ledger.storage), "--optuna", url]) == 0
    port = free_port()
    log = (tmp_path / "log.txt").open("wb")
    dashboard = subprocess.Popen(
        [str(PROGRAM), url, "--port", str(port), "--server", "wsgiref"], cwd=tmp_path, stdout=log, stderr=log
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        dashboard.terminate()
        dashboard.wait(10)
        log.close()


def free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


def answer(address: str, *, seconds: float = 60) -> dict[str, Any]:
    """What the server says, once it is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as told:  # noqa: S310 - on loopback
                found: dict[str, Any] = json.load(told)
                return found
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_optuna_dashboard_shows_the_study(served: str) -> None:
    (summary,) = answer(f"{served}/api/studies")["study_summaries"]
    assert (summary["study_name"], summary["directions"]) == ("found", ["maximize"])
    study = answer(f"{served}/api/studies/{summary['study_id']}")
    assert [trial["state"] for trial in study["trials"]] == ["Complete", "Complete", "Pruned"]
    assert study["best_trials"][0]["number"] == 1
    shown = {each["name"]: each["param_external_value"] for each in study["trials"][1]["params"]}
    assert shown["generator.name"] == "dcgan"
    assert shown["synthetic.balance"] == "True"
    assert study["objective_names"] == ["balanced_accuracy"]
    assert study["trials"][2]["intermediate_values"][0]["step"] == 0
    attributes = {each["key"]: each["value"] for each in study["trials"][0]["user_attrs"]}
    assert attributes["reference"] == "none"
