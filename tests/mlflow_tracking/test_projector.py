from __future__ import annotations

import json
import statistics
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_tracking import names
from mlflow_tracking.connect import TrackingOutage, client_for
from mlflow_tracking.live import LiveProjector
from mlflow_tracking.notes import incumbent
from mlflow_tracking.projector import Projector
from mlflow_tracking.remote import RemoteRun
from mlflow_tracking.view import runs_view
from tests.mlflow_tracking.made_up import (
    FOLDS,
    GENMIX_DCGAN,
    GENMIX_EGAN,
    REAL,
    add_trial,
    feature_map,
    fold_result,
    new_ledger,
    write_map,
    write_stages,
)
from trainables.files import read_json, write_json
from trainables.ledger import Ledger

Runs = dict[str, Run]


class Flaky:
    """A client whose calls, once ``allowed`` of them are used up, fail: the call itself, or only its answer."""

    def __init__(self, client: MlflowClient, *, allowed: int, lose_answer: bool = False) -> None:
        self._client = client
        self._lose_answer = lose_answer
        self.allowed = allowed
        self.calls: list[str] = []
        self.on_call: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            self.on_call()
            if len(self.calls) > self.allowed:
                if self._lose_answer:
                    getattr(self._client, name)(*args, **options)
                raise ConnectionError("no route to host")
            return getattr(self._client, name)(*args, **options)

        return call


def runs(uri: str, search: str = "demo") -> Runs:
    """All runs of a search on the server: by trial id, the search's own as "search"; fails if one is there twice."""
    client = client_for(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(experiments, filter_string=f"tags.`{names.SEARCH}` = '{search}'")
    keys = [run.data.tags.get(names.TRIAL, "search") for run in found]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, found, strict=True))


def everything(uri: str) -> dict[str, Any]:
    """What the server says of a search, without ids and the times that no record holds."""
    client = client_for(uri)
    state = {}
    for key, run in runs(uri).items():
        histories = {
            name: [(each.step, each.timestamp, each.value) for each in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        for name, history in histories.items():
            steps = Counter(step for step, _, _ in history)
            assert max(steps.values()) == 1, f"{key} has {name} twice at a step"
        ended = run.info.end_time if run.data.tags[names.STATE] in ("completed", "pruned", "failed") else None
        facts = (run.info.run_name, run.info.status, run.info.start_time, ended)
        tags = {name: value for name, value in run.data.tags.items() if name != names.WRITTEN}
        state[key] = (facts, run.data.params, tags, histories)
    return state


def filled(storage: Path) -> Ledger:
    ledger = new_ledger(storage)
    add_trial(ledger, REAL, reference="none", level=0.6)
    add_trial(ledger, GENMIX_DCGAN, level=0.8)
    add_trial(ledger, GENMIX_EGAN, folds=1, state="pruned", level=0.5)
    add_trial(ledger, GENMIX_EGAN, folds=1, state="failed", error="DivergedError: loss is not finite")
    return ledger


def test_every_trial_becomes_one_run_with_parameters_and_scores(tmp_path: Path, uri: str) -> None:
    Projector(filled(tmp_path / "runs"), uri).close(interrupted=False)
    found = runs(uri)
    assert sorted(found) == ["search", "t0000", "t0001", "t0002", "t0003"]
    trial = found["t0001"]
    assert trial.info.run_name == "t0001 genmix dcgan"
    assert trial.data.params["mixer.genmix_alpha"] == "0.31234567890123"
    assert trial.data.params["synthetic.balance"] == "on"
    assert trial.data.params["reference"] == "-"
    assert found["t0000"].data.params["reference"] == "none"
    expected = sum(fold_result(fold, level=0.8).scores["balanced_accuracy"] or 0 for fold in range(FOLDS)) / FOLDS
    assert trial.data.metrics["balanced_accuracy"] == round(expected, 6), "the runs page shows every digit"
    assert trial.data.metrics["folds_done"] == FOLDS
    assert trial.data.params["generator.name"] == "dcgan"
    assert found["t0000"].data.params["generator.name"] == "none", "a run without it is missing in parallel coordinates"
    assert next(iter(trial.data.metrics)) == "balanced_accuracy", "the compare page opens on the first"
    assert not [name for name in trial.data.metrics if "undefined" in name]
    assert trial.data.tags["genmix.version.torch"] == "2.13.0"
    assert trial.data.tags["genmix.data_digest"] == "0123456789abcdef0123456789abcdef"
    assert "mlflow.parentRunId" not in trial.data.tags


def test_fold_scores_are_steps(tmp_path: Path, uri: str) -> None:
    Projector(filled(tmp_path / "runs"), uri).sync()
    history = client_for(uri).get_metric_history(runs(uri)["t0001"].info.run_id, "fold/balanced_accuracy")
    values = {metric.step: metric.value for metric in history}
    assert values == {fold: fold_result(fold, level=0.8).scores["balanced_accuracy"] for fold in range(FOLDS)}


def test_each_fold_costs_one_call(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs")
    trial_id = add_trial(ledger, REAL, folds=1, state="unfinished")
    client = Flaky(client_for(uri), allowed=10_000)
    projector = Projector(ledger, uri, make_client=lambda _: client)
    projector.sync(pictures=0)
    client.calls.clear()
    ledger.record_fold(trial_id, fold_result(1))
    projector.sync(pictures=0)
    assert client.calls[0] == "log_batch"
    assert client.calls.count("log_batch") <= 2  # the fold, and the trial or search starting to run
    client.calls.clear()
    ledger.record_fold(trial_id, fold_result(2))
    projector.sync(pictures=0)
    assert client.calls == ["log_batch"]


def test_statuses_follow_the_ledger(tmp_path: Path, uri: str) -> None:
    Projector(filled(tmp_path / "runs"), uri).close(interrupted=False)
    found = runs(uri)
    statuses = {key: (run.info.status, run.data.tags[names.STATE]) for key, run in found.items()}
    assert statuses == {
        "search": ("FINISHED", "finished"),
        "t0000": ("FINISHED", "completed"),
        "t0001": ("FINISHED", "completed"),
        "t0002": ("FINISHED", "pruned"),
        "t0003": ("FAILED", "failed"),
    }
    assert found["t0003"].data.tags[names.ERROR] == "DivergedError: loss is not finite"
    assert "DivergedError" in found["t0003"].data.tags[names.NOTE]


def test_syncing_again_writes_nothing(tmp_path: Path, uri: str) -> None:
    client = Flaky(client_for(uri), allowed=10_000)
    projector = Projector(filled(tmp_path / "runs"), uri, make_client=lambda _: client)
    projector.sync()
    before, calls = everything(uri), len(client.calls)
    projector.sync()
    assert len(client.calls) == calls
    again = Flaky(client_for(uri), allowed=10_000)
    Projector(Ledger(tmp_path / "runs" / "demo"), uri, make_client=lambda _: again).sync()
    assert set(again.calls) == {"search_experiments", "search_runs"}
    assert everything(uri) == before


def test_rebuilding_on_another_server_gives_the_same(tmp_path: Path, uri: str, empty_database: Path) -> None:
    ledger = new_ledger(tmp_path / "runs")
    live = Projector(ledger, uri)
    for level in (0.6, 0.8, 0.7):
        trial_id = add_trial(ledger, REAL, folds=0, state="unfinished")
        for fold in range(FOLDS):
            live.sync()
            ledger.record_fold(trial_id, fold_result(fold, level=level))
        live.sync()
        ledger.end_trial(trial_id, "completed")
    live.close(interrupted=False)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlflow.db").write_bytes(empty_database.read_bytes())
    rebuilt = f"sqlite:///{other / 'mlflow.db'}"
    Projector(ledger, rebuilt).close(interrupted=False)
    live.sync()
    Projector(ledger, rebuilt).close(interrupted=False)

    def without_pictures(state: dict[str, Any]) -> dict[str, Any]:
        for _, _, tags, _ in state.values():
            tags.pop(names.SHEET, None)
        return state

    assert without_pictures(everything(uri)) == without_pictures(everything(rebuilt))


@pytest.mark.parametrize("crash", [False, True])
def test_an_error_at_any_call_leaves_nothing_twice_and_nothing_out(
    tmp_path: Path, uri: str, empty_database: Path, crash: bool
) -> None:
    ledger = filled(tmp_path / "runs")
    unbroken = Flaky(client_for(uri), allowed=10_000)
    Projector(ledger, uri, make_client=lambda _: unbroken).close(interrupted=False)
    expected = everything(uri)
    for allowed in range(0, len(unbroken.calls), 4):
        folder = tmp_path / f"{allowed}"
        folder.mkdir()
        (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
        broken = f"sqlite:///{folder / 'mlflow.db'}"
        client = Flaky(client_for(broken), allowed=allowed, lose_answer=True)
        projector = Projector(ledger, broken, make_client=lambda _, client=client: client)
        with pytest.raises(TrackingOutage, match="no route"):
            projector.close(interrupted=False)
        client.allowed = 10_000
        if crash:
            projector = Projector(Ledger(ledger.folder), broken)
        projector.close(interrupted=False)
        assert everything(broken) == expected


def test_metrics_without_their_tag_are_not_logged_again(tmp_path: Path, uri: str) -> None:
    ledger = filled(tmp_path / "runs")
    Projector(ledger, uri).close(interrupted=False)
    client = client_for(uri)
    for key in ("t0001", "t0002"):
        client.delete_tag(runs(uri)[key].info.run_id, names.FOLDS_LOGGED)
        client.set_tag(runs(uri)[key].info.run_id, names.STATE, "running")
        path = ledger.trial_folder(key) / "trial.json"  # other times, so that the database cannot tell by itself
        write_json(path, {**read_json(path), "created": 1_700_000_000.0})
    Projector(Ledger(ledger.folder), uri).close(interrupted=False)
    found = everything(uri)  # fails if a step is there twice
    assert found["t0001"][2][names.FOLDS_LOGGED] == "0,1,2"
    assert found["t0001"][2][names.STATE] == "completed"


def test_ctrl_c_leaves_no_run_running_and_a_resume_goes_on_in_the_same_runs(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs")
    first = Projector(ledger, uri)
    moving = add_trial(ledger, REAL, folds=1, state="unfinished")
    waiting = add_trial(ledger, REAL, folds=2, state="unfinished")
    first.sync()
    before = runs(uri)
    assert {run.info.status for run in before.values()} == {"RUNNING"}
    first.close(interrupted=True)
    assert {run.info.status for run in runs(uri).values()} == {"KILLED"}
    assert runs(uri)["search"].data.tags[names.STATE] == "interrupted"

    second = Projector(Ledger(ledger.folder), uri)
    second.sync()
    assert {key: run.info.status for key, run in runs(uri).items()} == {
        "search": "RUNNING",
        moving: "KILLED",
        waiting: "KILLED",
    }
    ledger.write_progress(moving, fold=1, stage="generator", done=1, total=10)
    second.sync()
    assert {key: run.info.status for key, run in runs(uri).items()} == {
        "search": "RUNNING",
        moving: "RUNNING",
        waiting: "KILLED",
    }
    ledger.record_fold(moving, fold_result(1))
    ledger.record_fold(moving, fold_result(2))
    for trial_id in (moving, waiting):
        ledger.end_trial(trial_id, "completed")
    second.close(interrupted=False)
    after = runs(uri)
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert {key: run.info.run_id for key, run in after.items()} == {key: run.info.run_id for key, run in before.items()}
    everything(uri)


def test_a_stop_in_the_middle_of_catching_up_leaves_no_run_running(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs")
    add_trial(ledger, REAL, folds=1, state="unfinished")
    for _ in range(5):
        add_trial(ledger, REAL)
    client = Flaky(client_for(uri), allowed=10_000)
    projector = Projector(ledger, uri, make_client=lambda _: client)
    ledger.write_progress("t0000", fold=1, stage="generator", done=1, total=10)
    client.on_call = lambda: projector.leave_off() if len(client.calls) == 12 else None
    projector.sync()
    assert 2 <= len(runs(uri)) < 7
    assert "RUNNING" in {run.info.status for run in runs(uri).values()}
    client.allowed = len(client.calls) + 2  # no time for more than to end the two runs that run
    with pytest.raises(TrackingOutage):
        projector.close(interrupted=True)
    assert "RUNNING" not in {run.info.status for run in runs(uri).values()}
    Projector(ledger, uri).close(interrupted=True)
    assert len(runs(uri)) == 7


def test_runs_left_running_by_a_killed_driver_are_ended(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs")
    killed = Projector(ledger, uri)
    finished = add_trial(ledger, REAL, folds=1, state="unfinished")
    add_trial(ledger, REAL, folds=1, state="unfinished")
    killed.sync()
    ledger.end_trial(finished, "completed")
    client = client_for(uri)
    run = runs(uri)[finished]
    double = client.create_run(run.info.experiment_id, tags={**run.data.tags})
    Projector(Ledger(ledger.folder), uri).close(interrupted=False)
    assert client.get_run(double.info.run_id).info.status == "KILLED"
    assert {each.info.status for each in client.search_runs([run.info.experiment_id])} == {"FINISHED", "KILLED"}


def test_an_outage_is_told_once_and_caught_up_in_order(tmp_path: Path, uri: str) -> None:
    ledger = filled(tmp_path / "runs")
    client = Flaky(client_for(uri), allowed=7)
    messages: list[str] = []
    told = threading.Event()

    def hear(message: str) -> None:
        messages.append(message)
        told.set()

    live = LiveProjector(
        Projector(ledger, uri, make_client=lambda _: client), on_message=hear, interval=0.02, retry_every=0.02
    )
    live.start()
    assert told.wait(20)
    late = add_trial(ledger, GENMIX_DCGAN)
    live.poke()
    while len(client.calls) < 12:
        told.clear()
        told.wait(0.05)
    client.allowed = 10_000
    assert live.stop(interrupted=False, timeout=30)
    assert [message.split()[1] for message in messages] == ["is", "has"]
    assert runs(uri)[late].info.status == "FINISHED"
    starts = [runs(uri)[key].info.start_time for key in ("t0000", "t0001", "t0002", "t0003", late)]
    assert starts == sorted(starts)
    everything(uri)


def test_stopping_without_a_server_ends_within_its_time(tmp_path: Path) -> None:
    messages: list[str] = []
    projector = Projector(filled(tmp_path / "runs"), "http://127.0.0.1:9")
    live = LiveProjector(projector, on_message=messages.append, interval=0.02, retry_every=0.02)
    live.start()
    assert not live.stop(interrupted=True, timeout=1.0)
    assert len(messages) == 1
    assert "no connection" in messages[0]
    assert live.page is None


def test_a_driver_that_is_not_installed_is_told_and_what_it_stores_is_caught_up(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    projector = Projector(filled(tmp_path / "runs"), uri)
    for name in ("log_file", "log_folder"):
        monkeypatch.setattr(RemoteRun, name, missing)
    (tmp_path / "runs" / "demo" / "best.yaml").touch()
    with pytest.raises(TrackingOutage, match=r"^No module named 'boto3'; install it: pip install boto3$"):
        projector.close(interrupted=False)
    monkeypatch.undo()
    projector.close(interrupted=False)
    files = client_for(uri).list_artifacts(runs(uri)["search"].info.run_id)
    assert [file.path for file in files] == ["best.yaml"]


def test_any_failure_of_tracking_stays_in_its_thread(tmp_path: Path, uri: str) -> None:
    def broken(_: str) -> MlflowClient:
        raise ZeroDivisionError("surprise")

    messages: list[str] = []
    projector = Projector(filled(tmp_path / "runs"), uri, make_client=broken)
    live = LiveProjector(projector, on_message=messages.append, interval=0.02, retry_every=0.02)
    live.start()
    live.stop(interrupted=False, timeout=0.5)
    assert len(messages) == 1
    assert "surprise" in messages[0]


def test_a_search_of_the_same_name_gets_an_experiment_of_its_own(tmp_path: Path, uri: str) -> None:
    first = Projector(filled(tmp_path / "a"), uri)
    first.sync()
    client = client_for(uri)
    second = new_ledger(tmp_path / "b", created=1_800_000_000.0)
    Projector(second, uri).sync()
    assert {each.name for each in client.search_experiments()} >= {"genmix-search/demo", "genmix-search/demo (2)"}
    moved = tmp_path / "moved"
    (tmp_path / "a").rename(moved)
    again = Projector(Ledger(moved / "demo"), uri)
    again.sync()
    assert again.page == first.page


def test_a_deleted_experiment_is_replaced(tmp_path: Path, uri: str) -> None:
    ledger = filled(tmp_path / "runs")
    Projector(ledger, uri).sync()
    client = client_for(uri)
    experiment = client.get_experiment_by_name("genmix-search/demo")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    Projector(ledger, uri).close(interrupted=False)
    assert len(runs(uri)) == 5


def test_pictures_become_artifacts_beside_the_database(tmp_path: Path, uri: str) -> None:
    storage = tmp_path / "runs"
    ledger = new_ledger(storage)
    add_trial(ledger, GENMIX_EGAN, stages=write_stages(storage))
    add_trial(ledger, REAL)
    projector = Projector(ledger, uri)
    assert projector.sync(pictures=0) == 2
    assert projector.sync(pictures=1) == 1
    assert projector.sync() == 0
    found = runs(uri)
    files = client_for(uri).list_artifacts(found["t0000"].info.run_id)
    assert [file.path for file in files] == [names.CURVES_FILE, names.SHEET_FILE]
    assert found["t0000"].data.tags[names.SHEET] == "logged"
    assert found["t0001"].data.tags[names.SHEET].startswith("skipped: ")
    assert len(list((tmp_path / "mlartifacts").rglob("*.png"))) == 2


def test_feature_maps_come_after_all_sheets_the_best_trial_first_and_once(tmp_path: Path, uri: str) -> None:
    storage = tmp_path / "runs"
    ledger = new_ledger(storage)
    stages = write_stages(storage, synthetic=False)
    for level, state in ((0.6, "completed"), (0.8, "completed"), (0.9, "unfinished"), (0.7, "failed")):
        write_map(ledger, add_trial(ledger, REAL, level=level, state=state, stages=stages), feature_map(kinds=(0,)))
    (damaged,) = ledger.trial_folder("t0003").rglob("*.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:100])
    projector = Projector(ledger, uri)
    assert projector.sync(pictures=0) == 4 + 3

    def drawn(tag: str) -> list[str]:
        return sorted(key for key, run in runs(uri).items() if tag in run.data.tags)

    projector.sync(pictures=4)
    assert (len(drawn(names.SHEET)), drawn(names.MAP)) == (4, [])
    projector.sync(pictures=1)
    assert drawn(names.MAP) == ["t0001"]
    again = Projector(Ledger(ledger.folder), uri)
    assert again.sync(pictures=1) == 1
    assert drawn(names.MAP) == ["t0000", "t0001"]
    assert again.sync() == 0
    tags = runs(uri)["t0003"].data.tags
    assert tags[names.MAP] == "skipped: the feature map cannot be read"
    assert tags[names.STATE] == "failed"
    files = client_for(uri).list_artifacts(runs(uri)["t0001"].info.run_id)
    assert [file.path for file in files] == [names.MAP_FILE, names.SHEET_FILE]


def test_fidelity_is_logged_per_fold_and_as_mean_and_spread_over_folds(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs")
    add_trial(ledger, GENMIX_EGAN, measured=True)
    add_trial(ledger, REAL)
    Projector(ledger, uri).close(interrupted=False)
    found = runs(uri)
    metrics = found["t0000"].data.metrics
    kids = [0.1, 0.12, 0.14]
    assert metrics["fidelity_kid"] == pytest.approx(statistics.fmean(kids))
    assert metrics["fidelity_kid_std"] == pytest.approx(statistics.stdev(kids))
    assert metrics["fidelity_kid_subset_std"] == pytest.approx(0.03)
    assert metrics["fidelity_copy_rate"] == pytest.approx(0.04)
    assert metrics["fidelity_coverage_HCC"] == pytest.approx(0.85)
    assert not [name for name in metrics if "HF-I" in name and "fidelity" in name]  # undefined
    assert {"precision", "recall", "kid"}.isdisjoint(metrics)
    history = client_for(uri).get_metric_history(found["t0000"].info.run_id, "fold/fidelity_kid")
    assert {each.step: each.value for each in history} == pytest.approx(dict(enumerate(kids)))
    assert "KID 0.12, coverage 0.9, copy rate 0.04" in found["t0000"].data.tags[names.NOTE]
    assert not [name for name in found["t0001"].data.metrics if "fidelity" in name]
    assert "Synthetic" not in found["t0001"].data.tags[names.NOTE]


def test_a_trial_with_too_many_copies_is_never_the_best(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs", max_copy_rate=0.01)
    add_trial(ledger, REAL, level=0.6)
    add_trial(ledger, GENMIX_EGAN, level=0.9, measured=True)
    Projector(ledger, uri).close(interrupted=False)
    found = runs(uri)
    assert "t0000" in found["search"].data.tags[names.NOTE]
    assert found["search"].data.metrics["best_balanced_accuracy"] < 0.7
    assert "Too many copies" in found["t0001"].data.tags[names.NOTE]
    assert found["search"].data.params["max_copy_rate"] == "0.01"


def test_the_search_run_shows_the_course_and_the_best(tmp_path: Path, uri: str) -> None:
    ledger = filled(tmp_path / "runs")
    (ledger.folder / "result.json").write_text("{}\n", encoding="utf-8")
    Projector(ledger, uri).close(interrupted=False)
    run = runs(uri)["search"]
    counts = {name: run.data.metrics[f"trials_{name}"] for name in ("completed", "pruned", "failed")}
    assert counts == {"completed": 2, "pruned": 1, "failed": 1}
    history = client_for(uri).get_metric_history(run.info.run_id, "best_balanced_accuracy")
    assert sorted(each.step for each in history) == [1, 2, 3, 4]
    note = run.data.tags[names.NOTE]
    assert "t0001 genmix dcgan" in note
    assert "Demonstration" in note
    assert "phantom" in note
    assert [each.path for each in client_for(uri).list_artifacts(run.info.run_id)] == ["result.json"]


def test_the_search_run_says_how_far_it_is_and_when_that_was_written(tmp_path: Path, uri: str) -> None:
    now = [1_700_000_000.0]
    ledger = new_ledger(tmp_path / "runs")
    projector = Projector(ledger, uri, clock=lambda: now[0])

    def told() -> tuple[str, str, str]:
        tags = runs(uri)["search"].data.tags
        return tags[names.PROGRESS], tags[names.WRITTEN], tags[names.NOTE]

    running = add_trial(ledger, REAL, folds=1, state="unfinished")
    projector.sync()
    progress, written, note = told()
    assert (progress, written) == ("0/12 ended", "2023-11-14 22:13:20 UTC")
    assert note.startswith("**Running: 1 running, of 12 wanted.**")
    assert names.WRITTEN in note
    now[0] += 600
    ledger.end_trial(running, "completed")
    add_trial(ledger, REAL, folds=0, state="failed", error="DivergedError: loss is not finite")
    projector.sync()
    progress, written, _ = told()
    assert progress == "2/12 ended, 50 min left"
    assert written == "2023-11-14 22:23:20 UTC"
    now[0] += 59
    projector.sync()
    assert told()[1] == written
    now[0] += 2
    projector.sync()
    assert told()[1] == "2023-11-14 22:24:21 UTC"
    projector.close(interrupted=True)
    progress, _, note = told()
    assert progress == "2/12 ended"
    assert "Interrupted: 1 completed, 1 failed, of 12 wanted." in note
    assert names.WRITTEN not in note


def test_a_search_that_only_says_that_it_runs_costs_one_call_a_minute(tmp_path: Path, uri: str) -> None:
    now = [1_700_000_000.0]
    client = Flaky(client_for(uri), allowed=10_000)
    projector = Projector(filled(tmp_path / "runs"), uri, make_client=lambda _: client, clock=lambda: now[0])
    projector.sync()
    client.calls.clear()
    for _ in range(120):
        now[0] += 1
        projector.sync()
    assert client.calls == ["log_batch"] * 2


def test_a_copy_of_a_search_that_goes_on_elsewhere_leaves_nothing_running(tmp_path: Path, uri: str) -> None:
    ledger = filled(tmp_path / "runs")
    trial_id = add_trial(ledger, REAL, folds=1, state="unfinished")
    Projector(ledger, uri).close(interrupted=True, elsewhere=True)
    found = runs(uri)
    assert {found[key].info.status for key in ("search", trial_id)} == {"KILLED"}
    assert {found[key].data.tags[names.STATE] for key in ("search", trial_id)} == {"running elsewhere"}
    assert "Running elsewhere: 2 completed" in found["search"].data.tags[names.NOTE]
    for fold in range(1, FOLDS):
        ledger.record_fold(trial_id, fold_result(fold))
    ledger.end_trial(trial_id, "completed")
    Projector(Ledger(ledger.folder), uri).close(interrupted=False)
    assert {runs(uri)[key].info.status for key in ("search", trial_id)} == {"FINISHED"}


def test_a_trial_that_is_given_more_folds_shows_what_it_has_come_to(tmp_path: Path, uri: str) -> None:
    ledger = filled(tmp_path / "runs")
    Projector(ledger, uri).close(interrupted=False)
    trial_folder = ledger.trial_folder("t0001")
    (trial_folder / "state.json").unlink()
    more = Ledger(ledger.folder)
    Projector(more, uri).sync(pictures=0)
    assert runs(uri)["t0001"].info.status == "KILLED"
    for fold in range(FOLDS, 2 * FOLDS):
        more.record_fold("t0001", fold_result(fold, level=0.3))
    more.end_trial("t0001", "completed")
    Projector(Ledger(ledger.folder), uri).close(interrupted=False)
    run = runs(uri)["t0001"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["folds_done"] == 2 * FOLDS
    assert run.data.metrics["balanced_accuracy"] == pytest.approx(more.trial("t0001").score("balanced_accuracy").mean)


def test_what_is_written_is_counted(tmp_path: Path, uri: str) -> None:
    projector = Projector(filled(tmp_path / "runs"), uri)
    projector.close(interrupted=False)
    state = everything(uri)
    values = sum(len(history) for *_, histories in state.values() for history in histories.values())
    counts = (projector.written.runs, projector.written.values, projector.written.statuses)
    assert counts == (len(state), values, len(state))
    again = Projector(Ledger(tmp_path / "runs" / "demo"), uri)
    again.close(interrupted=False)
    assert (again.written.runs, again.written.values, again.written.statuses) == (0, 0, 0)


def test_a_metric_that_should_be_low_has_its_lowest_as_the_best(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path, metric="calibration_error")
    trials = []
    for level in (0.5, 0.3, 0.4):
        trial = ledger.trial(add_trial(ledger, REAL, level=level))
        folds = tuple(replace(fold, scores={"calibration_error": level}) for fold in trial.folds)
        trials.append(replace(trial, folds=folds))
    best = incumbent(ledger.search(), trials)
    assert best is not None
    assert best.id == "t0001"
    assert json.loads(runs_view(ledger.search()))["orderByAsc"] is True
