"""The stage store and its leases: once, whole, verified; dead holders lose."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from trainables import leases
from trainables.errors import DivergedError
from trainables.leases import Lease, held, is_gone, own_process
from trainables.stages import CHECKPOINTS, TRAINING_FILE, StageKey, StageStore, save_state


def key(**changes: object) -> StageKey:
    fields: dict[str, object] = {
        "stage": "generator", "version": 1, "config": {"steps": 3}, "inputs": ("a",), "seed": 1, "threads": 1,
    }  # fmt: skip
    return StageKey(**{**fields, **changes})  # type: ignore[arg-type]


def write(text: str = "x") -> object:
    return lambda folder: (folder / "file.txt").write_text(text)


def test_a_stage_is_computed_once_and_found_afterwards(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    first = store.obtain(key(), write("one"), device="cpu")  # type: ignore[arg-type]
    second = store.obtain(key(), write("two"), device="cpu")  # type: ignore[arg-type]
    assert (first.record.reused, second.record.reused) == (False, True)
    assert second.record.seconds == first.record.seconds
    assert (second.folder / "file.txt").read_text() == "one"


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "pool"}, {"version": 2}, {"config": {"steps": 4}}, {"inputs": ("b",)}, {"seed": 2}, {"threads": 2},
        {"position": 3},
    ],
)  # fmt: skip
def test_every_part_of_the_key_counts(change: dict[str, object]) -> None:
    assert key(**change).digest != key().digest


def test_a_damaged_stage_is_computed_again(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    folder = store.obtain(key(), write("one"), device="cpu").folder  # type: ignore[arg-type]
    (folder / "file.txt").write_text("onE")
    again = store.obtain(key(), write("one"), device="cpu")  # type: ignore[arg-type]
    assert not again.record.reused
    (again.folder / "file.txt").unlink()
    assert store.find("generator", key().digest) is None


def test_a_failed_computation_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("boom")

    store = StageStore(tmp_path)
    with pytest.raises(RuntimeError, match="boom"):
        store.obtain(key(), fail, device="cpu")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not store.obtain(key(), write(), device="cpu").record.reused  # type: ignore[arg-type]


def test_a_training_that_diverged_is_recorded_and_fails_at_once_when_asked_for_again(tmp_path: Path) -> None:
    def diverge(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise DivergedError("loss was nan")

    store = StageStore(tmp_path)
    with pytest.raises(DivergedError, match="loss was nan"):
        store.obtain(key(), diverge, device="cpu")
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert files == ["stage.json"]
    with pytest.raises(DivergedError, match="loss was nan"):
        store.obtain(key(), write(), device="cpu")  # type: ignore[arg-type]


def state(done: int) -> dict[str, torch.Tensor]:
    return {"done": torch.tensor(done), "weights": torch.full((3,), float(done))}


def test_a_training_goes_on_from_the_furthest_state_that_is_not_beyond_its_end(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    assert store.checkpoints(key(position=100)).latest(100) is None
    store.checkpoints(key(position=100)).save(state(40))
    store.checkpoints(key(position=900)).save(state(300))
    store.checkpoints(key(position=100, seed=2)).save(state(90))

    def furthest(steps: int) -> int | None:
        found = store.checkpoints(key(position=steps)).latest(steps)
        return None if found is None else int(found["done"])

    assert [furthest(steps) for steps in (30, 100, 299, 300, 5000)] == [None, 40, 40, 300, 300]
    with pytest.raises(ValueError, match="stop"):
        store.obtain(key(position=200), fail, device="cpu")
    store.obtain(key(position=200), lambda folder: save_state(folder / TRAINING_FILE, state(200)), device="cpu")
    assert [furthest(steps) for steps in (199, 250, 400)] == [40, 200, 300]
    save_state(tmp_path / "generator" / key(position=200).digest / TRAINING_FILE, state(199))  # not what was recorded
    assert furthest(250) == 40


def fail(folder: Path) -> None:
    raise ValueError("stop")


def test_positions_of_one_trajectory_are_different_stages(tmp_path: Path) -> None:
    assert key(position=100).digest != key(position=200).digest
    assert key(position=100).trajectory == key(position=200).trajectory != key(position=100, seed=2).trajectory
    store = StageStore(tmp_path)
    for position in (100, 200):
        assert not store.obtain(key(position=position), write(), device="cpu").record.reused  # type: ignore[arg-type]


def test_a_checkpoint_goes_when_its_stage_is_finished_and_stays_when_it_is_stopped(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def stopped(folder: Path) -> None:
        store.checkpoints(key(position=100)).save(state(40))
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        store.obtain(key(position=100), stopped, device="cpu")
    assert len(list((tmp_path / CHECKPOINTS).iterdir())) == 1
    store.obtain(key(position=100), write(), device="cpu")  # type: ignore[arg-type]
    assert list((tmp_path / CHECKPOINTS).iterdir()) == []


def test_a_half_written_checkpoint_is_never_read_and_is_swept_away(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    store.checkpoints(key(position=100)).save(state(40))
    (whole,) = (tmp_path / CHECKPOINTS).iterdir()
    pid, started, host = own_process().split(".", 2)
    dead = whole.with_name(f".{whole.name}.abc.{pid}.{int(started) + 1}.{host}.tmp")
    alive = whole.with_name(f".{whole.name}.abc.{own_process()}.tmp")
    for half in (dead, alive):
        half.write_bytes(whole.read_bytes()[:50])
    found = store.checkpoints(key(position=100)).latest(100)
    assert found is not None
    assert int(found["done"]) == 40
    whole.write_bytes(whole.read_bytes()[:50])
    assert store.checkpoints(key(position=100)).latest(100) is None
    store.sweep()
    assert (dead.exists(), alive.exists()) == (False, True)


def _slow_stage(root: Path, started: Path, seconds: float) -> None:
    def compute(folder: Path) -> None:
        with started.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        (folder / "file.txt").write_text("done")

    StageStore(root).obtain(key(), compute, device="cpu")


def _start(*arguments: object) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_slow_stage, args=arguments)
    process.start()
    return process


def _wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text().split()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_that_ask_at_once_compute_a_stage_once(tmp_path: Path) -> None:
    started = tmp_path / "started"
    processes = [_start(tmp_path / "store", started, 1.0) for _ in range(2)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(started.read_text().split()) == 1


def test_when_the_holder_is_killed_the_other_takes_over_and_nothing_is_left_behind(tmp_path: Path) -> None:
    started, root = tmp_path / "started", tmp_path / "store"
    holder = _start(root, started, 600.0)
    _wait_for_lines(started, 1)
    other = _start(root, started, 0.0)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join(60)
    other.join(60)
    assert other.exitcode == 0
    assert len(started.read_text().split()) == 2
    StageStore(root).sweep()
    assert list((root / "unfinished").iterdir()) == list((root / "leases").iterdir()) == []
    assert StageStore(root).find("generator", key().digest) is not None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    first, second = Lease(tmp_path / "lease"), Lease(tmp_path / "lease")
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    first.release()
    assert (tmp_path / "lease").exists()


def test_a_lease_of_another_host_is_free_once_its_heartbeat_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_HOST", "elsewhere")
    holder = Lease(tmp_path / "lease")
    assert holder.try_acquire()
    monkeypatch.setattr(leases, "_HOST", "here")
    clock = Clock()
    other = Lease(tmp_path / "lease", clock=clock)
    for beat in range(1, 5):
        assert not other.try_acquire()
        clock.now += leases.DEAD_AFTER - 0.1
        holder.beat(beat)
    assert not other.try_acquire()
    clock.now += leases.DEAD_AFTER + 0.1
    assert other.try_acquire()
    holder.beat(9)
    holder.release()
    assert not Lease(tmp_path / "lease").try_acquire()


def test_a_driver_outlasts_a_dead_holder_of_another_host_and_gives_way_to_a_living_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "DEAD_AFTER", 0.5)
    monkeypatch.setattr(leases, "BEAT_EVERY", 0.1)
    monkeypatch.setattr(leases, "_HOST", "elsewhere")
    holder = Lease(tmp_path / "lease")
    assert holder.try_acquire()
    monkeypatch.setattr(leases, "_HOST", "here")
    lost: list[bool] = []
    with held(holder, on_lost=lambda: lost.append(True)):
        assert not Lease(tmp_path / "lease").acquire(timeout=1.5)
        assert f"process {os.getpid()} on " in Lease(tmp_path / "lease").holder()
        (tmp_path / "lease").unlink()
        assert Lease(tmp_path / "lease").acquire(timeout=1.5)
        time.sleep(0.5)
    assert lost == [True]
    abandoned = Lease(tmp_path / "lease")
    monkeypatch.setattr(leases, "_HOST", "later")
    assert abandoned.acquire(timeout=3.0)


def test_a_held_lease_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_EVERY", 0.02)
    lease = Lease(tmp_path / "lease")
    assert lease.try_acquire()
    with held(lease):
        before = (tmp_path / "lease").read_text()
        deadline = time.monotonic() + 10
        while (tmp_path / "lease").read_text() == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not (tmp_path / "lease").exists()


def test_only_processes_of_this_host_are_ever_called_gone() -> None:
    pid, started, host = own_process().split(".", 2)
    assert not is_gone(own_process())
    assert is_gone(f"{pid}.{int(started) + 1}.{host}")
    assert not is_gone(f"{pid}.{int(started) + 1}.elsewhere")
    assert not is_gone("nonsense")
