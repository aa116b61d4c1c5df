"""Leases: one holder, whoever it is; a dead one's is free, by its heartbeat or at once."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables import leases
from trainables.leases import Lease, held, is_gone, own_process


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


@pytest.mark.parametrize("host", ["node", "gpu-node-7", "gpu-node-7.some-cluster.local"])
@pytest.mark.parametrize("says_when_it_booted", [True, False])
def test_a_holder_is_named_with_its_whole_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, says_when_it_booted: bool
) -> None:
    def refused(path: Path, **options: str) -> str:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: host)
        if not says_when_it_booted:
            patch.setattr(Path, "read_text", refused)
        name = leases._host()
    monkeypatch.setattr(leases, "_HOST", name)
    assert Lease(tmp_path / "lease").try_acquire()
    assert Lease(tmp_path / "lease").holder() == f"process {os.getpid()} on {host}"


def test_only_processes_of_this_host_are_ever_called_gone() -> None:
    pid, started, host = own_process().split(".", 2)
    assert not is_gone(own_process())
    assert is_gone(f"{pid}.{int(started) + 1}.{host}")
    assert not is_gone(f"{pid}.{int(started) + 1}.elsewhere")
    assert not is_gone("nonsense")


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_of_many_that_find_a_dead_holder_one_takes_over(tmp_path: Path) -> None:
    pid, started, host = own_process().split(".", 2)
    dead = {"process": f"{pid}.{int(started) + 1}.{host}", "token": "dead", "beat": 3}
    for number in range(60):
        path, holders, together = tmp_path / str(number), [], threading.Barrier(8)
        path.write_text(json.dumps(dead))

        def take(path: Path = path, holders: list[Lease] = holders, together: threading.Barrier = together) -> None:
            lease = Lease(path)
            together.wait()
            holders.extend([lease] if any(lease.try_acquire() for _ in range(5)) else [])

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(holders) == 1
        assert holders[0].beat(1)
    assert {path.name for path in tmp_path.iterdir()} == {str(number) for number in range(60)}


def test_a_successor_killed_while_it_takes_over_does_not_keep_others_from_it(tmp_path: Path) -> None:
    pid, started, host = own_process().split(".", 2)
    dead = {"process": f"{pid}.{int(started) + 1}.{host}", "token": "dead", "beat": 3}
    (tmp_path / "lease").write_text(json.dumps(dead))
    (tmp_path / "lease.dead.next").write_text(json.dumps({**dead, "token": "dead too"}))
    assert Lease(tmp_path / "lease").try_acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["lease"]


def test_a_holder_whose_creation_was_answered_twice_holds_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def answered_twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", answered_twice)
        lease = Lease(tmp_path / "lease")
        assert lease.try_acquire()
    assert lease.beat(1)
    assert not Lease(tmp_path / "lease").try_acquire()


def test_leases_exclude_each_other_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    lease = Lease(tmp_path / "lease")
    assert lease.try_acquire()
    assert not Lease(tmp_path / "lease").try_acquire()
    assert lease.beat(1)


def test_a_holder_outlasts_a_storage_that_does_not_answer_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_EVERY", 0.02)
    lease, lost, refused, real = Lease(tmp_path / "lease"), [], [], Path.read_text
    assert lease.try_acquire()

    def read_text(path: Path, **options: str) -> str:
        if path == tmp_path / "lease" and len(refused) < 3:
            refused.append(path)
            raise OSError("stale file handle")
        return real(path, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    with held(lease, on_lost=lambda: lost.append(True)):
        deadline = time.monotonic() + 10
        while not lost and json.loads((tmp_path / "lease").read_bytes())["beat"] < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (lost, len(refused)) == ([], 3)


def test_a_lease_says_whether_its_holder_lives_as_far_as_this_host_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(tmp_path / "lease")
    assert lease.lives() is None
    lease.try_acquire()
    assert lease.lives() is True
    monkeypatch.setattr(leases, "_process_start", lambda pid: 0)
    assert lease.lives() is False
    monkeypatch.setattr(leases, "_HOST", "elsewhere")
    assert lease.lives() is None
