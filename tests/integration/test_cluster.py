"""Searches on several Ray nodes: checked before they start, and not lost with a node that dies or is cut off.

As root the nodes are network namespaces with their own addresses; elsewhere they have loopback addresses, and a node is
killed where it would be cut off.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.ray_nodes import Nodes, cannot_have_namespaces
from tests.integration.conftest import ROOT, RUN, SPACE, Workplace

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LONGER = SPACE.replace(
    "classifier.epochs, type: int, low: 2, high: 2, default: 2",
    "classifier.epochs, type: int, low: 150, high: 150, default: 150",
)
assert LONGER != SPACE
SLURM = ROOT / "search" / "cluster" / "slurm.sh"
QUICK_TO_MISS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
"""A node that does not answer counts as dead after about 15 s."""
NO_NAMESPACES = cannot_have_namespaces()
needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes(cpus=1, namespaces=NO_NAMESPACES is None, environment=QUICK_TO_MISS) as running:
        yield running


def command(place: Workplace, nodes: Nodes, *arguments: str) -> list[str]:
    return nodes.driver([
        sys.executable, str(RUN), "--storage", str(place.folder / "searches"),
        "--tracking-uri", f"sqlite:///{place.folder}/mlflow.db", "--address", nodes.address,
        "--space", str(place.folder / "longer.yaml"), "--data", str(place.folder / "data"), "--folds", "2",
        "--no-confirm", *arguments,
    ])  # fmt: skip


def environment(place: Workplace, nodes: Nodes) -> dict[str, str]:
    return {**place.environment, **nodes.environment}


def run(place: Workplace, nodes: Nodes, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    (place.folder / "longer.yaml").write_text(LONGER)
    return subprocess.run(
        command(place, nodes, *arguments),
        env={**environment(place, nodes), **more}, cwd=place.folder, text=True, capture_output=True, timeout=200,
        check=False,
    )  # fmt: skip


@needs_root
def test_a_node_that_sees_another_folder_is_named_and_nothing_starts(workplace: Workplace, nodes: Nodes) -> None:
    storage = workplace.folder / "searches"
    storage.mkdir()
    stranger = nodes.add(hidden=storage)
    try:
        done = run(workplace, nodes, "--name", "first")
    finally:
        nodes.kill(stranger)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].endswith("1 of the cluster's 2 nodes cannot compute this search:")
    assert lines[1].startswith(f"- node {nodes.host(stranger)} (")
    assert f"{storage} is another folder there (tmpfs)" in lines[1]
    assert len(lines) == 2
    assert [path.name for path in storage.iterdir()] == ["_shared"]


def test_a_wrong_token_is_refused_with_what_to_do(workplace: Workplace, nodes: Nodes) -> None:
    token = workplace.folder / "token"
    token.write_text("0" * 64)
    done = run(workplace, nodes, RAY_AUTH_TOKEN_PATH=str(token), RAY_NUM_REDIS_GET_RETRIES="2")
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert f"--address {nodes.address} refuses this machine's token" in line
    assert "RAY_AUTH_TOKEN_PATH" in line


def test_the_trials_of_nodes_that_die_or_are_cut_off_go_on_elsewhere(workplace: Workplace, nodes: Nodes) -> None:
    (workplace.folder / "longer.yaml").write_text(LONGER)
    one, other = nodes.add(), nodes.add()
    with (workplace.folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command(workplace, nodes, "--name", "lost", "--trials", "4"),
            env=environment(workplace, nodes), cwd=workplace.folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    workplace.started.append(process)
    wait_until_every_node_computes(workplace, process)
    nodes.kill(one)
    if NO_NAMESPACES is None:
        nodes.cut(other)
    else:
        nodes.kill(other)
    done_before = finished_folds(workplace)
    assert process.wait(200) == 0, workplace.log()
    trials = workplace.result("lost")["trials"]
    assert [trial["state"] for trial in trials] == ["completed"] * 4, workplace.log()
    assert all(len(trial["folds"]) == 2 for trial in trials)
    assert done_before.items() <= finished_folds(workplace).items(), "a finished fold was computed again"


def wait_until_every_node_computes(place: Workplace, process: subprocess.Popen[bytes]) -> None:
    """Until three trials train a classifier, one on each of three nodes with a CPU each."""
    deadline = time.monotonic() + 150
    while len(list((place.folder / "searches" / "lost").glob("trials/*/progress.json"))) < 3:
        assert process.poll() is None, place.log()
        assert time.monotonic() < deadline, place.log()
        time.sleep(0.1)


def finished_folds(place: Workplace) -> dict[str, int]:
    files = (place.folder / "searches" / "lost").glob("trials/*/fold_*.json")
    return {str(path): path.stat().st_mtime_ns for path in files}


FAKES = {
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
    "scontrol": 'case "$1" in show) printf "node0\\nnode1\\n" ;; *) exit 1 ;; esac\n',
}


def slurm(place: Workplace) -> subprocess.Popen[bytes]:
    """The Slurm script as Slurm would run it; its job steps run here."""
    folder = place.folder / "bin"
    folder.mkdir(exist_ok=True)
    for name, body in FAKES.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (folder / name).chmod(0o755)
    settings = {
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GENMIX_STORAGE": str(place.folder / "searches"), "GENMIX_NAME": "job", "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_CPUS_PER_TASK": "1", "SLURM_SUBMIT_DIR": str(ROOT),
    }  # fmt: skip
    flags = ["--tracking-uri", f"sqlite:///{place.folder}/mlflow.db", "--no-confirm", "--cpus-per-trial", "1", "--"]
    new = place.new("--trials", "3", "--folds", "2")
    with (place.folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            ["bash", str(SLURM), *flags, *new],
            env={**place.environment, **settings}, cwd=place.folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    place.started.append(process)
    return process


def test_a_search_of_three_trials_runs_on_the_two_nodes_of_a_slurm_job(workplace: Workplace) -> None:
    job = slurm(workplace)
    assert job.wait(200) == 0, workplace.log()
    trials = workplace.result("job")["trials"]
    assert [trial["state"] for trial in trials] == ["completed"] * 3, workplace.log()
    assert workplace.log().count("Ray runtime started") == 2
    assert not list((workplace.folder / "searches").glob(".ray-token-*"))
