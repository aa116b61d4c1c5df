"""One command brings a server to the state of a search's record, and touches nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities import Run

from mlflow_tracking import names
from mlflow_tracking.connect import TrackingError, client_for
from mlflow_tracking.projector import Projector
from search.settings import SettingsError
from search.sync_command import is_driven, sync
from search.sync_flags import sync_parser
from tests.mlflow_tracking.conftest import empty_database, uri
from tests.mlflow_tracking.made_up import (
    GENMIX_DCGAN,
    GENMIX_EGAN,
    REAL,
    add_trial,
    confirmation,
    new_ledger,
    write_stages,
)
from trainables.leases import Lease
from trainables.ledger import Ledger

__all__ = ["empty_database", "uri"]
OWN = "sqlite:////nowhere/own.db"


def filled(storage: Path, **changes: object) -> Ledger:
    ledger = new_ledger(storage, trials=3, tracking_uri=OWN, **changes)
    add_trial(ledger, REAL, reference="none", level=0.6)
    add_trial(ledger, GENMIX_DCGAN, level=0.8, stages=write_stages(storage))
    add_trial(ledger, GENMIX_EGAN, folds=1, state="failed", error="DivergedError: loss is not finite")
    return ledger


def runs(uri: str) -> dict[tuple[str, ...], Run]:
    client = client_for(uri)
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    keys = [tuple(run.data.tags.get(tag, "") for tag in (names.KIND, names.CONFIRMATION, names.TRIAL)) for run in found]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, found, strict=True))


def search_run(uri: str) -> Run:
    return runs(uri)[names.KIND_SEARCH, "", ""]


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@contextmanager
def driven(ledger: Ledger) -> Iterator[None]:
    lease = Lease(ledger.folder / "driver.lease")
    assert lease.try_acquire()
    yield
    lease.release()


def test_a_server_gets_trials_pictures_and_confirmations_from_nothing_and_once(
    tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "runs"
    confirmation(filled(storage))
    before = files(storage)
    assert sync(storage, "demo", uri) == 0
    told = capsys.readouterr().out
    assert "has the 3 trials of demo now: 6 runs, " in told
    assert "viewStateShareKey" in told
    assert f"--resume demo --storage {storage} --tracking-uri {uri}" in told
    found = runs(uri)
    assert [kind for kind, *_ in sorted(found)] == ["confirm", "confirm", "search", "trial", "trial", "trial"]
    assert {run.info.status for run in found.values()} == {"FINISHED", "FAILED"}
    dcgan = found[names.KIND_TRIAL, "", "t0001"]
    assert names.SHEET_FILE in [file.path for file in client_for(uri).list_artifacts(dcgan.info.run_id)]
    assert sync(storage, None, uri) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert files(storage) == before


def test_what_nobody_goes_on_with_ends_as_killed(tmp_path: Path, uri: str) -> None:
    ledger = filled(tmp_path / "runs")
    add_trial(ledger, REAL, folds=1, state="unfinished")
    Projector(ledger, uri).sync(pictures=0)  # and its process was killed
    assert "RUNNING" in {run.info.status for run in runs(uri).values()}
    sync(tmp_path / "runs", "demo", uri)
    statuses = {key[2]: run.info.status for key, run in runs(uri).items()}
    assert statuses == {"": "KILLED", "t0000": "FINISHED", "t0001": "FINISHED", "t0002": "FAILED", "t0003": "KILLED"}
    assert search_run(uri).data.tags[names.STATE] == "interrupted"


def test_a_search_that_was_killed_between_two_trials_is_no_finished_one(tmp_path: Path, uri: str) -> None:
    ledger = filled(tmp_path / "runs")
    ledger.write_search(replace(ledger.search(), trials=9))
    sync(tmp_path / "runs", "demo", uri)
    assert search_run(uri).data.tags[names.STATE] == "interrupted"
    (ledger.folder / "result.json").write_text(json.dumps({"trials": [{}] * 3}))  # it had nothing left to try
    sync(tmp_path / "runs", "demo", uri)
    assert search_run(uri).info.status == "FINISHED"


def test_a_running_search_is_copied_to_another_server_and_not_to_its_own(
    tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = filled(tmp_path / "runs")
    add_trial(ledger, REAL, folds=1, state="unfinished")
    with driven(ledger):
        sync(tmp_path / "runs", "demo", uri)
        assert "a copy of what it has come to" in capsys.readouterr().out
        assert search_run(uri).data.tags[names.STATE] == "running elsewhere"
        assert "RUNNING" not in {run.info.status for run in runs(uri).values()}
        ledger.write_search(replace(ledger.search(), tracking_uri=uri))
        with pytest.raises(SettingsError, match=r"is being run by process \d+ on .* itself; name another server"):
            sync(tmp_path / "runs", "demo", uri)
    sync(tmp_path / "runs", "demo", None)
    assert search_run(uri).data.tags[names.STATE] == "interrupted"


def test_a_driver_on_another_host_lives_if_its_heartbeat_is_seen(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    path = ledger.folder / "driver.lease"

    def beat(count: int | None) -> None:
        if count is None:
            path.unlink()
        else:
            path.write_text(json.dumps({"process": "12.34.otherhost-boot-5", "token": "x", "beat": count}))

    waited = []
    assert not is_driven(ledger, on_wait=lambda: waited.append(1))
    beat(1)
    assert not is_driven(ledger, on_wait=lambda: waited.append(1), sleep=lambda _: None)
    assert waited == [1]
    assert is_driven(ledger, sleep=lambda _: beat(2))
    assert not is_driven(ledger, sleep=lambda _: beat(None))


def test_a_driver_that_is_gone_from_this_host_drives_nothing(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    with driven(ledger):
        assert is_driven(ledger)
        path = ledger.folder / "driver.lease"
        holder = json.loads(path.read_text())
        _, started, host = holder["process"].split(".", 2)
        path.write_text(json.dumps({**holder, "process": f"4194300.{started}.{host}"}))
        assert not is_driven(ledger)


def test_a_server_that_is_down_or_goes_away_is_one_sentence(tmp_path: Path, uri: str) -> None:
    storage = tmp_path / "runs"
    filled(storage)
    with pytest.raises(TrackingError, match="cannot be reached"):
        sync(storage, "demo", "http://127.0.0.1:9")
    with pytest.raises(SettingsError, match="no search 'other'"):
        sync(storage, "other", uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlflow_tracking.projector.probe", lambda _: "no connection")
        with pytest.raises(TrackingError, match=r"went away \(no connection\).*the same command"):
            sync(storage, "demo", uri)


def test_the_search_and_the_server_may_be_left_out() -> None:
    given = sync_parser().parse_args([])
    assert (given.name, given.storage, given.tracking_uri) == (None, Path("searches"), None)
    with pytest.raises(SettingsError, match="--tracking-uri"):
        sync_parser().parse_args(["demo", "--tracking", "x"])
