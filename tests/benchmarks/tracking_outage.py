"""A search whose MLflow server is killed in mid-search and comes back: what is there afterwards, and what it cost.

    python tests/benchmarks/tracking_outage.py [--down 60] [--part server|database] [--trials N] [--json FILE]

A small search on images of noise writes to a real ``mlflow server`` on PostgreSQL. Once two trials have ended the
server (or its database) is killed; ``--down`` seconds later it is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
from mlflow import MlflowClient

from mlflow_tracking import names
from mlflow_tracking.connect import client_for
from mlflow_tracking.records import fold_metrics
from tests.benchmarks.tracking_server import TrackingServer
from trainables.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
name: tiny
description: a space whose trials take a second
dimensions:
  - {name: mixer.name, type: choice, options: [real, mixup, genmix], default: mixup}
  - {name: generator.name, type: choice, options: [dcgan], default: dcgan, when: {mixer.name: [genmix]}}
  - {name: generator.steps, type: int, low: 3, high: 3, default: 3, when: {mixer.name: [genmix]}}
  - {name: generator.width, type: int, low: 4, high: 4, default: 4, when: {mixer.name: [genmix]}}
  - {name: mixer.mixup_alpha, type: float, low: 0.1, high: 1.0, default: 0.2, when: {mixer.name: [mixup]}}
  - {name: classifier.epochs, type: int, low: 1, high: 1, default: 1}
"""
_ENDS_WITHIN = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What became of a search whose server was away for a while.

    Args:
        exit_code: of the search.
        said: what it printed.
        down_seconds: from the kill until the server answered again.
        trials: how many ended in all.
        ended_before: trials that had ended when the server was killed.
        ended_during: trials that ended while it was away.
        seconds_a_trial: wall time of a trial before, during and after the outage; 0 where there was none.
        problems: in what the server differs from the record, in words.
    """

    exit_code: int
    said: str
    down_seconds: float
    trials: int
    ended_before: int
    ended_during: int
    seconds_a_trial: tuple[float, float, float]
    problems: tuple[str, ...]


def suffer_outage(folder: Path, *, trials: int, down: float, part: str = "server") -> Outage:
    """Run a search whose server is killed in mid-search.

    Args:
        folder: for everything that is written.
        trials: of the search; enough that it still runs when the server is back.
        down: seconds between the kill and the start.
        part: what is killed: ``server`` or ``database``.

    Raises:
        Unavailable: there is no PostgreSQL here.
    """
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    _write_noise(folder / "data")
    ledger = Ledger(folder / "searches" / "outage")
    with TrackingServer(folder) as server, (folder / "search.log").open("wb") as log:
        victim = server if part == "server" else server.database
        search = subprocess.Popen(
            [
                sys.executable, str(ROOT / "search" / "run.py"),
                "--space", str(folder / "tiny.yaml"), "--data", str(folder / "data"), "--folds", "2",
                "--storage", str(folder / "searches"), "--name", "outage", "--tracking-uri", server.uri,
                "--trials", str(trials), "--concurrency", "1", "--scheduler", "fifo", "--sampler", "random",
                "--no-confirm", "--no-images",
            ],
            stdout=log, stderr=log, cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            _wait_for(ledger, 2, search)
            killed = time.time()
            victim.kill()
            time.sleep(down)
            victim.start()
            back = time.time()
            exit_code = search.wait(_ENDS_WITHIN)
        finally:
            search.kill()
            search.wait()
        problems = differences(ledger, client_for(server.uri))
    ended = sorted(trial.ended for trial in ledger.trials() if trial.ended is not None)
    parts = ([each for each in ended if each < killed], [each for each in ended if killed <= each < back])
    return Outage(
        exit_code=exit_code,
        said=(folder / "search.log").read_text(encoding="utf-8", errors="replace"),
        down_seconds=back - killed,
        trials=len(ended),
        ended_before=len(parts[0]),
        ended_during=len(parts[1]),
        seconds_a_trial=(_pace(parts[0]), _pace(parts[1]), _pace([each for each in ended if each >= back])),
        problems=tuple(problems),
    )


def differences(ledger: Ledger, client: MlflowClient) -> list[str]:
    """In what a server differs from a record: runs, their states, and every value of every fold, once and in order."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    by_trial: dict[str, list[str]] = {}
    for run in runs:
        by_trial.setdefault(run.data.tags.get(names.TRIAL, "search"), []).append(run.info.run_id)
    problems = [f"{run.info.run_name} is RUNNING" for run in runs if run.info.status == "RUNNING"]
    problems += [f"{key} has {len(ids)} runs" for key, ids in by_trial.items() if len(ids) > 1]
    states = {run.data.tags.get(names.TRIAL, "search"): run.data.tags.get(names.STATE) for run in runs}
    if states.get("search") != "finished":
        problems.append(f"the search is {states.get('search')}")
    for trial in ledger.trials():
        if states.get(trial.id) != trial.state:
            problems.append(f"{trial.id} is {states.get(trial.id)}, on record {trial.state}")
            continue
        expected: dict[str, list[tuple[int, float]]] = {}
        for metric in (each for fold in trial.folds for each in fold_metrics(trial, fold)):
            expected.setdefault(metric.key, []).append((metric.step, metric.value))
        problems += _wrong_histories(client, by_trial[trial.id][0], expected, trial.id)
    n_ended = sum(trial.ended is not None for trial in ledger.trials())
    steps = [(step, float(step)) for step in range(1, n_ended + 1)]
    ended = {names.TRIALS_COMPLETED: steps}
    return problems + _wrong_histories(client, by_trial.get("search", [""])[0], ended, "search")


def _wrong_histories(
    client: MlflowClient, run: str, expected: dict[str, list[tuple[int, float]]], what: str
) -> list[str]:
    problems = []
    for key, values in expected.items():
        history = client.get_metric_history(run, key)
        found = [(each.step, each.value) for each in sorted(history, key=lambda each: each.timestamp)]
        if found != values:
            problems.append(f"{what} has {key} as {found}, on record {values}")
    return problems


def _write_noise(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["path,label,patient"]
    for index in range(48):
        pixels = rng.integers(0, 200, (32, 32)) + 30 * (index % 2)
        sitk.WriteImage(sitk.GetImageFromArray(pixels.astype(np.uint8)), str(folder / f"{index}.png"))
        rows.append(f"{index}.png,{('healthy', 'diseased')[index % 2]},patient{index // 4}-{index % 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _wait_for(ledger: Ledger, count: int, search: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _ENDS_WITHIN
    while len(list(ledger.folder.glob("trials/*/state.json"))) < count:
        if search.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("The search ended, or hangs, before two of its trials had ended.")
        time.sleep(0.05)


def _pace(moments: list[float]) -> float:
    return (moments[-1] - moments[0]) / (len(moments) - 1) if len(moments) > 1 else 0.0


def main() -> int:
    """Suffer an outage and print what came of it; exit code 1 if anything is missing, double or failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--down", type=float, default=60.0, help="seconds (60)")
    parser.add_argument("--part", choices=("server", "database"), default="server")
    parser.add_argument("--trials", type=int, default=100, help="of the search (100)")
    parser.add_argument("--json", type=Path, help="write the same as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genmix-outage-") as folder:
        found = suffer_outage(Path(folder), trials=given.trials, down=given.down, part=given.part)
    print("\n".join(line for line in found.said.splitlines() if "racking" in line or "MLflow" in line))
    before, during, after = found.seconds_a_trial
    print(
        f"{given.part} away for {found.down_seconds:.0f} s: {found.ended_before} trials ended before, "
        f"{found.ended_during} during, {found.trials} in all; exit code {found.exit_code}. A trial took {before:.2f} s "
        f"before, {during:.2f} s during and {after:.2f} s after it."
    )
    print("\n".join(found.problems) or "Every value of every fold is there, once and in order.")
    if given.json is not None:
        given.json.write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
    return 1 if found.problems or found.exit_code else 0


if __name__ == "__main__":
    sys.exit(main())
