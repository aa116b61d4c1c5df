"""Faults of the search's own processes: the driver killed with everything it started, a worker killed, signals."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tests.benchmarks import crash_processes, crash_runs, crash_store
from tests.benchmarks.crash_search import CrashSearch, EndedEarlier
from tests.benchmarks.crash_setting import Row, Setting
from tests.benchmarks.crash_store import Snapshot, Underway, underway
from trainables.stage_files import CHECKPOINTS, UNFINISHED

Kind: TypeAlias = Literal["start", "any", "fold", "stage", "checkpoint"]
_KINDS: tuple[Kind, ...] = ("any", "start", "fold", "any", "checkpoint", "any", "stage", "start", "any", "any")
"""Of ten kills: two while it starts, one each while a fold, a checkpoint and a stage are written, five at any time."""
_WORK_SECONDS = {True: 20.0, False: 240.0}
"""How long the search that is killed computes, at most, over all attempts; in a small matrix and in a full one."""
_STARTS_WITHIN = 12.0
_CATCH = 15.0
"""Seconds to wait for the wanted kind of moment before any other will do."""
_STOPS_WITHIN = 30.0
_SLACK = 2.0
"""Seconds that a step and a checkpoint's writing may add to the checkpoint interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When to kill.

    Args:
        kind: what is waited for at last.
        after: seconds, from the process's start ("start"), or from when it computes.
        latest: the share of the search's trials with which it is time, whatever the clock says.
    """

    kind: Kind
    after: float
    latest: float


def draw_moments(count: int, seconds: float, *, seed: int) -> list[Moment]:
    """Random moments spread over a search that computes for so many seconds."""
    rng = random.Random(seed)
    kinds = [_KINDS[index % len(_KINDS)] for index in range(count)]
    rng.shuffle(kinds)
    working = sum(kind != "start" for kind in kinds)
    times = [0.0, *sorted(rng.uniform(0, seconds) for _ in range(working))]
    gaps = iter([later - earlier for earlier, later in pairwise(times)])
    return [
        Moment(
            kind=kind,
            after=rng.uniform(0, _STARTS_WITHIN) if kind == "start" else next(gaps),
            latest=(index + 1) / (count + 1),
        )
        for index, kind in enumerate(kinds)
    ]


def kill_driver(setting: Setting) -> list[Row]:
    """The driver and all its processes killed at random moments, and the search resumed each time."""
    arguments, trials = setting.main()
    snapshots: list[Snapshot] = []
    lost: list[float] = []
    details: list[dict[str, Any]] = []
    with setting.search("driver", arguments) as search:
        search.start()
        for moment in draw_moments(setting.kills, _WORK_SECONDS[setting.small], seed=setting.seed):
            try:
                _await(search, moment, trials, setting.folds)
            except EndedEarlier:
                break
            search.freeze()
            now = time.time()
            stages = [(each.stage.partition("-")[0], round(each.lost(now), 2)) for each in underway(search.stages)]
            lost.append(sum(seconds for _, seconds in stages))
            details.append({"kind": moment.kind, "processes": search.kill(), "lost": stages, "folds": search.folds()})
            snapshots.append(Snapshot.take(search.ledger))
            print(f"  kill {len(lost)}: {details[-1]}", flush=True)
            search.resume()
        search.finish(1200)
        row = setting.judge(
            search,
            fault="driver",
            trials=trials,
            injected=len(lost),
            seconds_lost=sum(lost),
            snapshots=snapshots,
            details={"kills": details},
        )
    return [row]


def _await(search: CrashSearch, moment: Moment, trials: int, folds: int) -> None:
    """Wait for a moment. Raises: Broken if the search ends before."""
    if moment.kind == "start":
        _pause(search, moment.after)
        return
    before = search.folds() + search.ended()
    search.wait_until(
        lambda: underway(search.stages) or search.folds() + search.ended() > before or None, "it computed anything"
    )
    deadline = time.monotonic() + moment.after
    search.wait_until(
        lambda: time.monotonic() >= deadline or search.share(trials, folds) >= moment.latest or None,
        "its moment had come",
    )
    _catch(search, moment.kind)


def _pause(search: CrashSearch, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    search.wait_until(lambda: time.monotonic() >= deadline or None, "its moment had come")


def _catch(search: CrashSearch, kind: Kind) -> None:
    """Wait until something of that kind is being written, within reason."""
    traces: dict[Kind, Callable[[], object]] = {
        "any": object,
        "fold": lambda: [*(search.folder / "trials").glob("*/weights/*")],
        "stage": lambda: [*(search.stages / UNFINISHED).glob("*/*")],
        "checkpoint": lambda: [(path.name, path.stat().st_mtime_ns) for path in _files(search.stages / CHECKPOINTS)],
    }
    if kind == "any":
        return
    trace, deadline = traces[kind], time.monotonic() + _CATCH
    before = trace()
    search.wait_until(
        lambda: time.monotonic() >= deadline or ((now := trace()) and now != before) or None, "its moment", every=0.001
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.exists()]


def kill_worker(setting: Setting) -> list[Row]:
    """A trial's process killed while it trains a generator: it goes on from the last checkpoint, in another one."""
    arguments, trials = setting.short(4)
    rng, broken, lost, repeated = random.Random(setting.seed), list[str](), list[float](), list[int]()
    with setting.search("worker", arguments) as search:
        search.start()
        for _ in range(1 if setting.small else 2):
            _wait_for_checkpoint(search)
            _pause(search, rng.uniform(0, setting.checkpoint_seconds))
            search.freeze()
            now, hit, training = time.time(), _saved(search), search.training()
            if hit is None or training is None:
                search.thaw()
                broken.append("the generator was trained before its process could be killed")
                continue
            crash_processes.send(hit.pid, signal.SIGKILL)
            search.thaw()
            lost.append(hit.lost(now))
            trial, said = training
            repeated.append(int(said["done"]) - (hit.position or 0))
            broken += _goes_on(search, trial, int(said["fold"]), hit, now)
            if lost[-1] > setting.checkpoint_seconds + _SLACK:
                broken.append(f"{lost[-1]:.1f} s of training were lost, {setting.checkpoint_seconds:g} s are allowed")
        search.finish(300)
        row = setting.judge(
            search,
            fault="worker",
            trials=trials,
            injected=len(lost),
            seconds_lost=sum(lost),
            broken=broken,
            details={"lost": lost, "steps_repeated": repeated},
        )
    return [row]


def _wait_for_checkpoint(search: CrashSearch) -> None:
    """Until a generator is being trained whose position has been saved more than once."""
    seen: set[tuple[str, int]] = set()

    def saved_twice() -> bool | None:
        found = _saved(search)
        if found is not None and found.position is not None and search.training() is not None:
            seen.add((found.stage, found.position))
            return sum(stage == found.stage for stage, _ in seen) >= 3 or None
        return None

    search.wait_until(saved_twice, "a generator had been saved three times")


def _saved(search: CrashSearch) -> Underway | None:
    """A generator in training that has a checkpoint."""
    return next((e for e in underway(search.stages) if e.stage.startswith("generator-") and e.position), None)


def _goes_on(search: CrashSearch, trial: str, fold: int, killed: Underway, when: float) -> list[str]:
    """Whether a training that was killed goes on from its checkpoint: what is wrong."""

    def again() -> int | None:
        said = search.ledger.progress(trial)
        if said is None or said["time"] <= when or (said["fold"], said["stage"]) != (fold, "generator"):
            return None
        return int(said["done"]) or None

    done = search.wait_until(again, f"{trial} trained the generator of fold {fold} again", limit=90)
    if done > (killed.position or 0):
        return []
    return [f"{trial} began fold {fold} again at step {done}, its checkpoint was at {killed.position}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blow:
    """A way to be told to stop: ``to`` the driver alone, to its process group as by Ctrl-C, or to all its processes."""

    name: str
    number: signal.Signals
    to: Literal["driver", "group", "all"]
    times: int = 1

    def strike(self, search: CrashSearch) -> None:
        if self.to == "group":
            os.killpg(search.pid, self.number)
            return
        for pid in crash_processes.in_session(search.pid) if self.to == "all" else [search.pid]:
            crash_processes.send(pid, self.number)


_BLOWS = (
    _Blow(name="SIGTERM", number=signal.SIGTERM, to="driver"),
    _Blow(name="Ctrl-C", number=signal.SIGINT, to="group"),
    _Blow(name="Ctrl-C twice", number=signal.SIGINT, to="group", times=2),
    _Blow(name="SIGTERM to all", number=signal.SIGTERM, to="all"),
)


def stop_by_signals(setting: Setting, names: Sequence[str] = ()) -> list[Row]:
    """One search, stopped by one signal after the other in mid-generator, and resumed to its end.

    Args:
        setting: how.
        names: which signals; empty: those of the matrix.
    """
    arguments, trials = setting.short(4 if setting.small else 6)
    names = names or (["SIGTERM"] if setting.small else [blow.name for blow in _BLOWS])
    blows = [blow for blow in _BLOWS if blow.name in names]
    broken: dict[str, list[str]] = {}
    took: dict[str, float] = {}
    snapshots: list[Snapshot] = []
    with setting.search("signals", arguments) as search:
        search.start()
        for blow in blows:
            took[blow.name], broken[blow.name] = _stop(search, blow)
            snapshots.append(Snapshot.take(search.ledger))
            search.resume()
        search.finish(300)
        after = setting.judge(search, fault="signals", trials=trials, injected=len(blows), snapshots=snapshots)
    return [
        Row(
            fault=blow.name,
            injected=1,
            trials_lost=after.trials_lost,
            folds_recomputed=after.folds_recomputed,
            runs_running=after.runs_running,
            compared=after.compared,
            broken=(*broken[blow.name], *(after.broken if blow is blows[-1] else ())),
            details={"seconds_to_stop": took[blow.name]},
        )
        for blow in blows
    ]


def _stop(search: CrashSearch, blow: _Blow) -> tuple[float, list[str]]:
    """Strike a search in mid-generator: the seconds that it took to end, and what was wrong with its end."""
    search.wait_until(search.training, "a generator was being trained")
    training = [each.stage for each in underway(search.stages) if each.stage.startswith("generator-")]
    start, when = time.monotonic(), time.time()
    blow.strike(search)
    if blow.times == 2:
        time.sleep(0.3)
        blow.strike(search)
    code = search.wait(3 * _STOPS_WITHIN)
    took, log, wrong = time.monotonic() - start, search.log(), []
    if code != 128 + blow.number:
        wrong.append(f"after {blow.name} it ended with exit code {code}, not {128 + blow.number}: {log[-800:]}")
    if took > (_STOPS_WITHIN if blow.times == 1 else 3.0):
        wrong.append(f"after {blow.name} it took {took:.1f} s to end")
    if blow.times == 2:
        search.kill()  # what Ray has not ended yet
        return took, wrong
    if f"--resume {search.NAME}" not in log:
        wrong.append(f"after {blow.name} it did not say how to go on: {log[-800:]}")
    if "Traceback" in log:
        wrong.append(f"after {blow.name} it printed a traceback: {log[-2500:]}")
    for stage in training:
        name, _, digest = stage.partition("-")
        saved = search.stages / CHECKPOINTS / f"{stage}.safetensors"
        finished = (search.stages / name / digest).exists()
        # Ray's own processes end at once with all, and those of the trials with them: the last checkpoint has to do
        if blow.to != "all" and not finished and not (saved.exists() and saved.stat().st_mtime >= when):
            wrong.append(f"after {blow.name} the training of {stage} was left without a checkpoint of that moment")
    wrong += [f"after {blow.name} process {pid} is still there" for pid in search.strays()]
    wrong += [
        f"after {blow.name} {left}"
        for left in crash_store.settle(search.ledger)
        if f"/{CHECKPOINTS}/" not in left or ".tmp" in left
    ]
    running = crash_runs.running(search.tracking_uri)
    if running:
        wrong.append(f"after {blow.name} MLflow calls {running} runs running")
    return took, wrong
