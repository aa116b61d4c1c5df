"""The stage store and its leases: once, whole, verified; dead holders lose."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from trainables import stage_checkpoints, stage_files
from trainables.errors import DivergedError
from trainables.files import read_json, write_json
from trainables.leases import DEAD_AFTER, own_process
from trainables.stage_checkpoints import TRAINING_FILE, save_state
from trainables.stage_files import CHECKPOINTS
from trainables.stages import Stage, StageKey, StageStore


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


def aged(folder: Path, seconds: float = 60.0) -> Path:
    """The folder, with files that were not written just now."""
    for path in folder.iterdir():
        when = path.stat().st_mtime_ns - int(seconds * 1e9)
        os.utime(path, ns=(when, when))
    return folder


def test_a_file_is_read_once_per_process_until_it_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = StageStore(tmp_path), []
    real = stage_files.hashlib.file_digest
    monkeypatch.setattr(
        stage_files.hashlib, "file_digest", lambda file, digest: read.append(file.name) or real(file, digest)
    )
    folder = aged(store.obtain(key(), write("one"), device="cpu").folder)  # type: ignore[arg-type]
    read.clear()
    for _ in range(3):
        assert store.find("generator", key().digest) is not None
    assert read == [str(folder / "file.txt")]
    (folder / "file.txt").write_text("onE")
    assert store.find("generator", key().digest) is None


def test_damage_in_the_moment_after_writing_is_seen_though_it_leaves_no_other_time(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    path = store.obtain(key(), write("one"), device="cpu").folder / "file.txt"  # type: ignore[arg-type]
    assert store.find("generator", key().digest) is not None
    before = path.stat().st_mtime_ns
    with path.open("r+") as file:
        file.write("onE")
    os.utime(path, ns=(before, before))
    assert store.find("generator", key().digest) is None


def test_what_took_the_place_of_a_damaged_stage_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = StageStore(tmp_path)
    folder = store.obtain(key(), write("one"), device="cpu").folder  # type: ignore[arg-type]
    (folder / "file.txt").write_text("onE")
    digests = stage_files.digests

    def replaced_while_it_is_read(read: Path, *, fresh: bool = False) -> dict[str, str]:
        monkeypatch.setattr(stage_files, "digests", digests)
        found = digests(read)
        read.rename(tmp_path / "elsewhere")
        StageStore(tmp_path).obtain(key(), write("two"), device="cpu")  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(stage_files, "digests", replaced_while_it_is_read)
    assert store.find("generator", key().digest) is None
    assert (folder / "file.txt").read_text() == "two"


def test_who_loses_the_race_keeps_the_winners_stage_unless_that_is_damaged(tmp_path: Path) -> None:
    store, place = StageStore(tmp_path), tmp_path / "generator" / key().digest

    def overtaken(damaged: bool) -> object:
        def compute(folder: Path) -> None:
            other = StageStore(tmp_path / "other").obtain(key(), write("winner"), device="cpu")  # type: ignore[arg-type]
            place.parent.mkdir(exist_ok=True)
            other.folder.rename(place)
            if damaged:
                (place / "file.txt").write_text("half")
            (folder / "file.txt").write_text("loser")

        return compute

    def contents(damaged: bool) -> str:
        stage = store.obtain(key(), overtaken(damaged), device="cpu")  # type: ignore[arg-type]
        return (stage.folder / "file.txt").read_text()

    assert contents(damaged=False) == "winner"
    (place / "file.txt").unlink()
    assert contents(damaged=True) == "loser"
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_a_stage_remembers_the_gpu_memory_it_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocated, peak = {"cuda:1": 50}, {"cuda:1": 9000}
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda name: peak.update({name: allocated[name]}))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda name: peak[name])

    def compute(folder: Path) -> None:
        peak["cuda:1"] = max(peak["cuda:1"], 700)

    store = StageStore(tmp_path)
    stages = [store.obtain(key(), compute, device="cuda:1") for _ in range(2)]
    assert [stage.record.peak_bytes for stage in stages] == [700, 700]
    assert store.obtain(key(seed=2), compute, device="cpu").record.peak_bytes == 0


def test_stages_of_before_peak_memory_was_recorded_are_found(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    manifest = store.obtain(key(), write(), device="cpu").folder / "stage.json"  # type: ignore[arg-type]
    write_json(manifest, {name: value for name, value in read_json(manifest).items() if name != "peak_bytes"})
    found = store.find("generator", key().digest)
    assert found is not None
    assert found.record.peak_bytes == 0


@pytest.mark.parametrize("content", ["", "[]", "null", '"text"', '{"files": 3, "seconds": 1}', '{"files": {}}'])
def test_a_stage_without_a_manifest_is_no_stage(tmp_path: Path, content: str) -> None:
    store = StageStore(tmp_path)
    folder = store.obtain(key(), write(), device="cpu").folder  # type: ignore[arg-type]
    (folder / "stage.json").write_text(content)
    assert store.find("generator", key().digest) is None
    assert not folder.exists()


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


def test_a_state_that_a_disk_has_changed_is_not_gone_on_from(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    store.checkpoints(key(position=100)).save(state(40))
    store.checkpoints(key(position=200)).save(state(60))
    furthest = tmp_path / "checkpoints" / f"generator-{key(position=200).digest}.safetensors"
    content = bytearray(furthest.read_bytes())
    content[-1] ^= 1
    furthest.write_bytes(content)
    found = store.checkpoints(key(position=100)).latest(100)
    assert found is not None
    assert int(found["done"]) == 40


def test_a_state_is_not_beyond_the_end_though_another_process_saves_one_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, load_file = StageStore(tmp_path), stage_checkpoints.load_file
    longer = store.checkpoints(key(position=900))
    store.checkpoints(key(position=100)).save(state(20))
    longer.save(state(40))

    def saved_meanwhile(path: Path) -> dict[str, torch.Tensor]:
        longer.save(state(500))
        return load_file(path)

    monkeypatch.setattr(stage_checkpoints, "load_file", saved_meanwhile)
    found = store.checkpoints(key(position=100)).latest(100)
    assert found is not None
    assert int(found["done"]) == 20


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
    dead = whole.with_name(f".{whole.name}.{'0' * 32}.{pid}.{int(started) + 1}.{host}.tmp")
    alive = whole.with_name(f".{whole.name}.{'0' * 32}.{own_process()}.tmp")
    for half in (dead, alive):  # a library writes beside its file first, so each has a folder of its own
        half.mkdir()
        (half / ".tmpAbCdEf").write_bytes(whole.read_bytes()[:50])
    found = store.checkpoints(key(position=100)).latest(100)
    assert found is not None
    assert int(found["done"]) == 40
    whole.write_bytes(whole.read_bytes()[:50])
    assert store.checkpoints(key(position=100)).latest(100) is None
    store.sweep()
    assert (dead.exists(), alive.exists()) == (False, True)


def _slow_stage(root: Path, started: Path, until: Path) -> None:
    def compute(folder: Path) -> None:
        with started.open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not until.exists():
            time.sleep(0.02)
        (folder / "file.txt").write_text("done")

    StageStore(root).obtain(key(), compute, device="cpu")


def _holder(root: Path, started: Path, until: Path) -> multiprocessing.process.BaseProcess:
    """A process that is computing the stage, and does so until a file is there."""
    process = multiprocessing.get_context("spawn").Process(target=_slow_stage, args=(root, started, until), daemon=True)
    process.start()
    deadline = time.monotonic() + 60
    while not started.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_two_processes_that_ask_at_once_compute_a_stage_once(tmp_path: Path) -> None:
    started, asked = tmp_path / "started", tmp_path / "asked"
    holder = _holder(tmp_path / "store", started, asked)
    waiting = StageStore(tmp_path / "store", on_wait=lambda stage: asked.touch())
    stage = waiting.obtain(key(), write("again"), device="cpu")  # type: ignore[arg-type]
    holder.join(60)
    assert holder.exitcode == 0
    assert stage.record.reused
    assert (stage.folder / "file.txt").read_text() == "done"
    assert started.read_text().split() == [str(holder.pid)]


def test_when_the_holder_is_killed_the_other_takes_over_at_once_and_nothing_is_left_behind(tmp_path: Path) -> None:
    root = tmp_path / "store"
    holder = _holder(root, tmp_path / "started", tmp_path / "never")
    killed: list[float] = []

    def kill(stage: str) -> None:
        if not killed:
            os.kill(holder.pid or 0, signal.SIGKILL)
            killed.append(time.monotonic())

    taken_over = StageStore(root, on_wait=kill).obtain(key(), write(), device="cpu")  # type: ignore[arg-type]
    assert not taken_over.record.reused
    assert time.monotonic() - killed[0] < DEAD_AFTER / 2  # its heartbeat need not be watched: it ran on this host
    holder.join(60)
    StageStore(root).sweep()
    assert list((root / "unfinished").iterdir()) == list((root / "leases").iterdir()) == []
    assert StageStore(root).find("generator", key().digest) is not None


def test_a_stages_seconds_hold_what_it_went_on_from(tmp_path: Path) -> None:
    now = [0.0]
    store = StageStore(tmp_path, clock=lambda: now[0])

    def train(steps: int, *, dies_at: int | None = None) -> Stage:
        """Ten seconds a step, a checkpoint after each."""

        def compute(folder: Path) -> float:
            checkpoints = store.checkpoints(key(position=steps))
            begun = checkpoints.latest(steps)
            for done in range(int(begun["done"]) if begun else 0, steps):
                if done == dies_at:
                    raise KeyboardInterrupt
                now[0] += 10
                checkpoints.save(state(done + 1))
            save_state(folder / TRAINING_FILE, state(steps))
            return checkpoints.inherited

        return store.obtain(key(position=steps), compute, device="cpu")

    with pytest.raises(KeyboardInterrupt):
        train(5, dies_at=3)
    assert train(5).record.seconds == 50, "three steps were computed before it was killed"
    assert now[0] == 50
    assert train(8).record.seconds == 80, "five steps were those of another stage"
    assert now[0] == 80
    assert train(8).record.seconds == 80
