"""Whole searches, run as a user runs them: Ray, ledger and MLflow together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.integration.conftest import Workplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def trial_runs(folder: Path) -> list[Run]:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    runs: list[Run] = []
    for experiment in client.search_experiments():
        runs += client.search_runs([experiment.experiment_id], max_results=1000)
    return runs


def check_tracking(folder: Path, trials: int) -> None:
    """One run a trial and one for the search, none of them still running."""
    runs = trial_runs(folder)
    kinds = [run.data.tags["genmix.kind"] for run in runs]
    ids = [run.data.tags["genmix.trial"] for run in runs if run.data.tags["genmix.kind"] == "trial"]
    assert sorted(kinds) == ["search"] + ["trial"] * trials
    assert len(set(ids)) == trials
    assert "RUNNING" not in {run.info.status for run in runs}
    assert all("mlflow.parentRunId" not in run.data.tags for run in runs)


def timeless(result: dict[str, Any]) -> str:
    for trial in result["trials"]:
        for fold in trial["folds"]:
            for stage in fold["stages"]:
                del stage["seconds"]
    return json.dumps([(trial["config"], trial["state"], trial["folds"]) for trial in result["trials"]])


def test_a_search_ends_with_its_results_in_files_and_in_mlflow(workplace: Workplace) -> None:
    done = workplace.run(*workplace.new("--trials", "6", "--name", "first"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    result = workplace.result("first")
    assert result["data"]["classes"] == ["diseased", "healthy"]
    assert (result["data"]["counts"], result["data"]["patients"]) == ({"diseased": 24, "healthy": 24}, 24)
    assert [trial["reference"] for trial in result["trials"][:4]] == ["none", "affine", "mixup", "genmix"]
    for trial in result["trials"]:
        assert trial["state"] in ("completed", "pruned")
        assert len(trial["folds"]) == 3 or trial["state"] == "pruned"
        assert trial["scores"]["balanced_accuracy"]["mean"] is not None
    best = yaml.safe_load((workplace.folder / "searches/first/best.yaml").read_text())
    assert best["trial"] == result["best"]["trial"]
    assert best["config"] == result["best"]["config"]
    kept = sorted(path.parent.name for path in workplace.folder.glob("searches/first/trials/*/weights"))
    assert kept == [best["trial"]]
    check_tracking(workplace.folder, 6)
    for text in ("--resume first", "viewStateShareKey", "demonstration", "expect less on new patients"):
        assert text in done.stdout
    again = workplace.run(*workplace.new("--name", "first"))
    assert again.returncode == 2
    assert "--name 'first' is in use" in again.stderr


def test_the_same_search_into_two_empty_storages_gives_the_same_bytes(workplace: Workplace) -> None:
    results = []
    for storage in ("one", "two"):
        fixed = ("--concurrency", "1", "--seed", "7", "--sampler", "tpe")
        arguments = workplace.new("--trials", "7", "--name", "s", *fixed)
        done = workplace.run(*arguments, "--cpus-per-trial", "1", storage=storage)
        assert done.returncode == 0, done.stdout + done.stderr
        results.append(workplace.result("s", storage))
    trained = [
        stage["key"]
        for trial in results[0]["trials"]
        for fold in trial["folds"]
        for stage in fold["stages"]
        if stage["name"] == "generator" and not stage["reused"]
    ]
    assert len(trained) == len(set(trained)) == 3
    assert timeless(results[0]) == timeless(results[1])


def wait_until_ended(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while len(list(folder.glob("trials/*/state.json"))) < count:
        assert process.poll() is None, "the search ended too soon"
        assert time.monotonic() < deadline, "the search is too slow"
        time.sleep(0.05)


def record(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every fold and end on record, with the time it was written."""
    files = [*folder.glob("trials/*/fold_*.json"), *folder.glob("trials/*/state.json")]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_killed_search_goes_on_without_computing_anything_twice(workplace: Workplace) -> None:
    folder = workplace.folder / "searches/killed"
    process = workplace.start(*workplace.new("--trials", "8", "--name", "killed", "--concurrency", "1"))
    wait_until_ended(folder, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    time.sleep(3)
    before = record(folder)
    done = workplace.run("--resume", "killed")
    assert done.returncode == 0, done.stdout + done.stderr
    after = record(folder)
    assert {path: after[path] for path in before} == before
    assert len(workplace.result("killed")["trials"]) == 8
    check_tracking(workplace.folder, 8)
    assert not list((workplace.folder / "searches/_shared/stages/unfinished").iterdir())
    assert not list((workplace.folder / "searches/_shared/stages/leases").iterdir())
    more = workplace.run("--resume", "--trials", "9")
    assert more.returncode == 0, more.stdout + more.stderr
    assert {path: record(folder)[path] for path in after} == after
    check_tracking(workplace.folder, 9)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_search_in_order(workplace: Workplace, number: signal.Signals, code: int) -> None:
    process = workplace.start(*workplace.new("--trials", "30", "--name", "stopped"))
    wait_until_ended(workplace.folder / "searches/stopped", 2, process)
    os.kill(process.pid, number)
    try:
        assert process.wait(30) == code
    except subprocess.TimeoutExpired:
        pytest.fail(f"the search went on for 30 s after signal {number}:\n{workplace.log()}")
    log = workplace.log()
    assert "--resume stopped" in log
    assert "Traceback" not in log
    assert "RUNNING" not in {run.info.status for run in trial_runs(workplace.folder)}


def test_a_trial_that_fails_is_recorded_and_stops_no_other(workplace: Workplace) -> None:
    space = workplace.folder / "tiny.yaml"
    longer = space.read_text().replace("low: 3, high: 3, default: 3", "low: 200, high: 200, default: 200")
    rate = "name: generator.learning_rate, type: float, low: 1.0, high: 1.0, default: 1.0, when: {mixer.name: [genmix]}"
    space.write_text(f"{longer}  - {{{rate}}}\n")
    done = workplace.run(*workplace.new("--trials", "4", "--name", "failing"))
    assert done.returncode == 1, done.stdout + done.stderr
    states = {trial["reference"]: trial["state"] for trial in workplace.result("failing")["trials"]}
    assert states == {"none": "completed", "affine": "completed", "mixup": "completed", "genmix": "failed"}
    failed = workplace.result("failing")["trials"][3]
    assert "DivergedError" in failed["error"]
    assert "Failed trials" in done.stdout
    statuses = {run.data.tags.get("genmix.trial"): run.info.status for run in trial_runs(workplace.folder)}
    assert statuses["t0003"] == "FAILED"


def test_a_time_budget_ends_the_search_and_leaves_it_resumable(workplace: Workplace) -> None:
    done = workplace.run(*workplace.new("--trials", "500", "--name", "short", "--time-budget", "10s"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0 < len(workplace.result("short")["trials"]) < 500
    assert "search/run.py --resume short" in done.stdout.partition("Go on: python ")[2]
    assert "RUNNING" not in {run.info.status for run in trial_runs(workplace.folder)}
