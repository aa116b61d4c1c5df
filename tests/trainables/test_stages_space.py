"""The room that stages take: what was used last stays, what is in use stays, and nothing breaks on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trainables import leases, stage_space
from trainables.errors import DivergedError
from trainables.leases import Lease, own_process
from trainables.stage_files import CHECKPOINTS, LEASES, UNFINISHED, USES
from trainables.stage_space import ABANDONED_AFTER, USE_DEAD_AFTER, Evicted
from trainables.stages import Stage, StageKey, StageStore

ROOT = Path(__file__).resolve().parents[2]
SIZE = 10_000
HOUR = 3600.0


def key(seed: int, **changes: object) -> StageKey:
    fields: dict[str, object] = {
        "stage": "generator", "version": 1, "config": {}, "inputs": (), "seed": seed, "threads": 1,
    }  # fmt: skip
    return StageKey(**{**fields, **changes})  # type: ignore[arg-type]


def obtain(store: StageStore, seed: int) -> Stage:
    return store.obtain(key(seed), lambda folder: _write(folder / "file.bin"), device="cpu")


def _write(path: Path) -> None:
    path.write_bytes(bytes(SIZE))


def age(path: Path, seconds: float) -> None:
    """Let a file have been changed so long before now, by the clock of its file system."""
    when = time.time() - seconds
    os.utime(path, (when, when))


def unused_for(store: StageStore, seed: int, seconds: float) -> Path:
    folder = obtain(store, seed).folder
    age(folder / "stage.json", seconds)
    return folder


def left(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "generator").iterdir())


def names(*seeds: int) -> list[str]:
    return sorted(key(seed).digest for seed in seeds)


def state(done: int) -> dict[str, torch.Tensor]:
    return {"done": torch.tensor(done), "weights": torch.zeros(2500)}


def test_what_was_not_used_for_longest_goes_first_and_no_more_than_needed(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for seed in range(5):
        unused_for(store, seed, (10 - seed) * HOUR)
    obtain(store, 0)
    sizes = {folder.name: sum(path.stat().st_size for path in folder.iterdir()) for folder in tmp_path.glob("gen*/*")}
    gone = names(1, 2)
    freed = sum(sizes[name] for name in gone)
    evicted = store.evict(sum(sizes.values()) - freed)
    assert left(tmp_path) == names(0, 3, 4)
    assert evicted == Evicted(count=2, bytes=freed, left_bytes=sum(sizes.values()) - freed)
    assert store.evict(sum(sizes.values()) - freed).count == 0


def test_what_was_evicted_is_computed_again_where_it_is_asked_for(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    folder = obtain(store, 1).folder
    assert store.evict(0).count == 1
    assert list(tmp_path.rglob("*.bin")) == []
    again = obtain(store, 1)
    assert (again.folder, again.record.reused) == (folder, False)


def test_a_training_that_diverged_takes_no_room_and_stays(tmp_path: Path) -> None:
    def diverge(folder: Path) -> None:
        raise DivergedError("loss was nan")

    store = StageStore(tmp_path)
    with pytest.raises(DivergedError):
        store.obtain(key(1), diverge, device="cpu")
    assert store.evict(0).count == 0
    assert left(tmp_path) == names(1)
    assert stage_space.evict(tmp_path, 0, unused_for=0.0).count == 1


def test_a_file_that_lies_elsewhere_under_a_second_name_is_not_counted(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "store")
    folder = obtain(store, 1).folder
    os.link(folder / "file.bin", tmp_path / "weights.bin")
    assert (
        sum(entry.bytes for entry in stage_space.entries(tmp_path / "store")) == (folder / "stage.json").stat().st_size
    )


def test_states_of_stopped_trainings_go_like_stages_and_those_of_running_ones_stay(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for seed in (1, 2):
        store.checkpoints(key(seed, position=100)).save(state(40))
    running = Lease(tmp_path / LEASES / f"generator-{key(2, position=100).digest}")
    assert running.try_acquire()
    assert store.evict(0).bytes > SIZE
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == [
        f"generator-{key(2, position=100).digest}.safetensors"
    ]
    running.release()
    assert store.evict(0).count == 1


def test_what_is_used_since_the_oldest_running_fold_began_stays(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for seed in (1, 2, 3):
        unused_for(store, seed, HOUR)
    with store.in_use():
        obtain(store, 1)
        with store.in_use():
            obtain(store, 2)
        evicted = store.evict(0)
        assert left(tmp_path) == names(1, 2)
        assert (evicted.count, evicted.kept) == (1, 2)
        assert evicted.kept_bytes == evicted.left_bytes > 2 * SIZE
    assert list((tmp_path / USES).iterdir()) == []
    assert store.evict(0).count == 2


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process, which has the store's folder as ``root``; torch is not needed for what it does."""
    code = f"import sys; from pathlib import Path; root = Path(sys.argv[1])\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def ends(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    return output


def test_what_another_process_uses_stays_until_it_is_gone(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    folders = {seed: unused_for(store, seed, HOUR) for seed in (1, 2)}
    code = """
import time
from trainables.stage_files import touch
from trainables.stage_space import in_use
with in_use(root):
    touch(Path(sys.argv[2]))
    print("using", flush=True)
    time.sleep(600)
"""
    user = run(code, tmp_path, folders[1])
    assert user.stdout is not None
    assert user.stdout.readline() == "using\n"
    assert (store.evict(0).count, left(tmp_path)) == (1, names(1))
    user.send_signal(signal.SIGKILL)
    ends(user)
    assert (store.evict(0).count, left(tmp_path)) == (1, [])
    assert list((tmp_path / USES).iterdir()) == []


def test_a_use_of_another_host_ends_when_its_heartbeat_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StageStore(tmp_path)
    monkeypatch.setattr(leases, "_HOST", "elsewhere")
    use = store.in_use()
    use.__enter__()
    obtain(store, 1)
    monkeypatch.setattr(leases, "_HOST", "here")
    (beat,) = (tmp_path / USES).iterdir()
    age(beat, USE_DEAD_AFTER - 5)
    assert store.evict(0).kept == 1
    age(beat, USE_DEAD_AFTER + 5)
    assert store.evict(0).count == 1
    use.__exit__(None, None, None)


def test_a_fold_that_was_suspended_for_long_on_this_host_still_uses_its_stages(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    with store.in_use():
        obtain(store, 1)
        (beat,) = (tmp_path / USES).iterdir()
        age(beat, HOUR)
        assert store.evict(0).kept == 1


def test_a_use_that_was_taken_for_dead_is_there_again_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_space, "USE_BEAT_EVERY", 0.02)
    store = StageStore(tmp_path)
    with store.in_use():
        obtain(store, 1)
        (use,) = (path for path in (tmp_path / USES).iterdir() if not path.suffix)
        for _ in range(2):
            use.unlink()
            deadline = time.monotonic() + 10
            while not use.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert store.evict(0).kept == 1
    assert list((tmp_path / USES).iterdir()) == []


def test_a_stage_that_is_found_while_it_is_being_evicted_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, remove = StageStore(tmp_path), stage_space.remove_stage
    unused_for(store, 1, HOUR)

    def found_meanwhile(root: Path, folder: Path, **conditions: object) -> bool:
        assert store.find("generator", folder.name) is not None
        return remove(root, folder, **conditions)  # type: ignore[arg-type]

    monkeypatch.setattr(stage_space, "remove_stage", found_meanwhile)
    assert store.evict(0).count == 0
    assert left(tmp_path) == names(1)
    assert list((tmp_path / UNFINISHED).iterdir()) == []


@pytest.mark.parametrize("look", ["entries", "uses"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_a_fold_uses_that_begins_while_others_evict_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str, moment: str
) -> None:
    store, fold = StageStore(tmp_path), contextlib.ExitStack()
    unused_for(store, 1, HOUR)
    real = getattr(stage_space, look)

    def begin() -> None:
        fold.enter_context(store.in_use())
        assert store.find("generator", key(1).digest) is not None

    def looked(root: Path) -> object:
        if moment == "before":
            begin()
        found = real(root)
        if moment == "after":
            begin()
        return found

    with fold:
        monkeypatch.setattr(stage_space, look, looked)
        assert store.evict(0).count == 0
        assert left(tmp_path) == names(1)


def test_processes_that_evict_at_once_remove_together_what_one_would(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for seed in range(60):
        unused_for(store, seed, (100 - seed) * HOUR)
    newest = sum(entry.bytes for entry in stage_space.entries(tmp_path)[30:])
    code = "from trainables.stage_space import evict; print(evict(root, int(sys.argv[2])).count)"
    processes = [run(code, tmp_path, newest) for _ in range(3)]
    assert sum(int(ends(process)) for process in processes) == 30
    assert left(tmp_path) == names(*range(30, 60))
    assert list((tmp_path / UNFINISHED).iterdir()) == []


def test_a_process_killed_while_it_evicts_leaves_a_store_that_works(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for seed in range(3):
        unused_for(store, seed, (10 - seed) * HOUR)
    code = """
import os, signal, shutil
from trainables.stage_space import evict
shutil.rmtree = lambda path, **_: ((path / "file.bin").unlink(), os.kill(os.getpid(), signal.SIGKILL))
evict(root, 0)
"""
    killed = run(code, tmp_path)
    ends(killed)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / UNFINISHED).iterdir())) == 1
    assert [obtain(store, seed).record.reused for seed in range(3)] == [False, True, True]
    store.sweep()
    assert list((tmp_path / UNFINISHED).iterdir()) == []
    assert store.evict(0).count == 3


def test_a_stage_is_obtained_however_often_it_is_evicted_meanwhile(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    code = """
from trainables.stage_space import evict
count = 0
while not (root / "enough").exists():
    count += evict(root, 0).count
print(count)
"""
    evictor = run(code, tmp_path)
    computed = 0
    deadline = time.monotonic() + 60
    while computed < 30:
        assert time.monotonic() < deadline
        computed += not obtain(store, 1).record.reused
    (tmp_path / "enough").touch()
    assert int(ends(evictor)) > 0
    assert list((tmp_path / UNFINISHED).iterdir()) == list((tmp_path / LEASES).iterdir()) == []


def test_abandoned_work_is_swept_away_and_that_of_living_processes_is_not(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    elsewhere = own_process().rpartition(".")[0] + ".elsewhere"
    for seed in (1, 2):
        (tmp_path / UNFINISHED / f"{seed}.{elsewhere}").mkdir()
        (tmp_path / LEASES / f"generator-{seed}").write_text("{}")
        store.checkpoints(key(seed, position=100)).save(state(40))
    store.checkpoints(key(3, position=100)).save(state(40))
    assert Lease(tmp_path / LEASES / f"generator-{key(3, position=100).digest}").try_acquire()
    for path in (
        tmp_path / UNFINISHED / f"1.{elsewhere}",
        tmp_path / LEASES / "generator-1",
        *(tmp_path / CHECKPOINTS / f"generator-{key(seed, position=100).digest}.safetensors" for seed in (1, 3)),
    ):
        age(path, ABANDONED_AFTER + HOUR)
    store.sweep()
    assert [path.name for path in (tmp_path / UNFINISHED).iterdir()] == [f"2.{elsewhere}"]
    assert not (tmp_path / LEASES / "generator-1").exists()
    assert (tmp_path / LEASES / "generator-2").exists()
    assert {path.name for path in (tmp_path / CHECKPOINTS).iterdir()} == {
        f"generator-{key(seed, position=100).digest}.safetensors" for seed in (2, 3)
    }


def test_the_state_of_a_training_that_another_process_has_finished_is_swept_away(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    stage = store.obtain(key(1, position=100), lambda folder: _write(folder / "file.bin"), device="cpu")
    store.checkpoints(key(1, position=100)).save(state(40))
    store.checkpoints(key(2, position=100)).save(state(40))
    store.sweep()
    assert stage.folder.exists()
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == [
        f"generator-{key(2, position=100).digest}.safetensors"
    ]
