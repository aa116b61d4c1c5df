"""Faults of what a search depends on: a node of the cluster, the tracking server, room on the disk."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks import crash_runs, crash_store
from tests.benchmarks.crash_search import CrashSearch
from tests.benchmarks.crash_setting import Row, Setting
from tests.benchmarks.crash_store import Underway, underway
from tests.benchmarks.ray_nodes import Nodes, cannot_have_namespaces
from tests.benchmarks.tracking_server import TrackingServer, Unavailable

STORAGE_FULL = 75
_DISK_BYTES = 256 * 2**20
_STOPS_WITHIN = 120.0


def kill_node(setting: Setting) -> list[Row]:
    """One of two Ray nodes killed while it trains a generator."""
    return [_lose_node(setting, "node", namespaces=False)]


def cut_node(setting: Setting) -> list[Row]:
    """One of two Ray nodes, each with a network of its own, cut off while it trains a generator."""
    reason = cannot_have_namespaces()
    if reason is not None:
        return [Row(fault="cut", skipped=reason)]
    return [_lose_node(setting, "cut", namespaces=True)]


def _lose_node(setting: Setting, fault: str, *, namespaces: bool) -> Row:
    arguments, trials = setting.short(4)
    cluster = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}
    with Nodes(cpus=1, namespaces=namespaces, environment=cluster) as nodes:
        worker = nodes.add()
        with setting.search(
            fault,
            arguments,
            attempts=("--address", nodes.address),
            environment=nodes.environment,
            wrap=nodes.driver,
        ) as search:
            search.start()
            hit = search.wait_until(
                lambda: _there(search, nodes, worker), "the second node trained anything", limit=240
            )
            before = underway(search.stages)
            when = time.time()
            lost = next((each.lost(when) for each in before if each.stage == hit.stage), hit.lost(when))
            (nodes.cut if namespaces else nodes.kill)(worker)
            search.finish(400)
            return setting.judge(
                search, fault=fault, trials=trials, injected=1, seconds_lost=lost, details={"stage": hit.stage}
            )


def _there(search: CrashSearch, nodes: Nodes, node: int) -> Underway | None:
    """A training on that node that has been going on for a second."""
    pids, now = set(nodes.pids(node)), time.time()
    trained = (each for each in underway(search.stages) if each.stage.startswith(("generator-", "classifier-")))
    return next((each for each in trained if each.pid in pids and now - each.started > 1), None)


def kill_tracking(setting: Setting) -> list[Row]:
    """The MLflow server, over HTTP on PostgreSQL, killed in mid-search and started again."""
    # The search has to be there still when the server has come back.
    arguments, trials = setting.short(60) if setting.small else setting.main()
    folder = setting.work / "tracking"
    folder.mkdir(parents=True, exist_ok=True)
    outage = 10.0 if setting.small else 60.0
    try:
        with (
            TrackingServer(folder) as server,
            setting.search("tracking", arguments, tracking_uri=server.uri) as search,
        ):
            search.start()
            search.wait_until(lambda: search.ended() >= 1 or None, "a trial had ended", limit=240)
            server.kill()
            before, killed = search.folds(), time.monotonic()
            search.wait_until(
                lambda: (time.monotonic() >= killed + outage and search.folds() > before) or None,
                f"a fold had been finished in {outage:.0f} s or more without the server",
                limit=outage + 120,
            )
            during, outage = search.folds() - before, time.monotonic() - killed
            server.start()
            search.finish(900)
            row = setting.judge(
                search,
                fault="tracking",
                trials=trials,
                injected=1,
                broken=crash_runs.metrics_broken(server.uri, search.ledger),
                details={"outage_seconds": outage, "folds_meanwhile": during},
            )
    except Unavailable as error:
        return [Row(fault="tracking", skipped=str(error))]
    return [row]


def fill_disk(setting: Setting) -> list[Row]:
    """The storage's disk full in mid-search; in a full matrix also one that holds MLflow's database."""
    rows = []
    for fault in ("disk",) if setting.small else ("disk", "disk with MLflow"):
        folder = setting.work / fault.replace(" ", "-")
        with _tmpfs(folder / "disk") as reason:
            rows.append(Row(fault=fault, skipped=reason) if reason else _fill(setting, fault, folder))
    return rows


def _fill(setting: Setting, fault: str, folder: Path) -> Row:
    disk = folder / "disk"
    arguments, trials = setting.short(4)
    uri = f"sqlite:///{disk}/mlflow.db" if fault != "disk" else None
    with setting.search(folder.name, arguments, storage=disk / "searches", tracking_uri=uri) as search:
        search.start()
        search.wait_until(search.training, "a generator was being trained")
        lost, start = sum(each.lost(time.time()) for each in underway(search.stages)), time.monotonic()
        _occupy(disk / "filler")
        code = search.wait(_STOPS_WITHIN)
        took, log = time.monotonic() - start, search.log()
        broken = [] if code == STORAGE_FULL else [f"on a full disk it ended with exit code {code}: {log[-2500:]}"]
        if f"--resume {search.NAME}" not in log:
            broken.append(f"on a full disk it did not say how to go on: {log[-1500:]}")
        broken += [f"on a full disk {problem}" for problem in crash_store.half_written(search.ledger)]
        broken += [f"on a full disk process {pid} is still there" for pid in search.strays()]
        if uri is None and (running := crash_runs.running(search.tracking_uri)):
            broken.append(f"on a full disk MLflow calls {running} runs running")
        before = crash_store.Snapshot.take(search.ledger)
        (disk / "filler").unlink()
        search.resume()
        search.finish(300)
        return setting.judge(
            search,
            fault=fault,
            trials=trials,
            injected=1,
            seconds_lost=lost,
            snapshots=[before],
            broken=broken,
            details={"seconds_to_stop": took},
        )


@contextmanager
def _tmpfs(folder: Path) -> Iterator[str | None]:
    """A small file system of its own at ``folder``; gives the reason where there can be none."""
    if os.geteuid() != 0:
        yield "a small file system can be mounted by root alone"
        return
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield f"a small file system cannot be mounted here ({done.stderr.strip()})"
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _occupy(path: Path) -> None:
    """Write a file until there is no room left for another byte."""
    block = b"\0" * 2**20
    with path.open("wb", buffering=0) as file:
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]
