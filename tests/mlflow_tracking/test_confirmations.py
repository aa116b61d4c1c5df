"""A confirmation's trials become runs of their own kind below the run of their search."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from mlflow_tracking import names
from mlflow_tracking.connect import client_for
from mlflow_tracking.notes import best_first
from mlflow_tracking.projector import Projector
from tests.mlflow_tracking.made_up import GENMIX_DCGAN, REAL, add_trial, confirmation, fold_result, new_ledger
from trainables.files import write_json
from trainables.ledger import Ledger


def searched(storage: Path) -> Ledger:
    ledger = new_ledger(storage)
    add_trial(ledger, REAL, reference="none", level=0.6)
    add_trial(ledger, GENMIX_DCGAN, level=0.8)
    return ledger


def runs(uri: str) -> dict[tuple[str, ...], Run]:
    """All runs on the server by kind, confirmation and trial; fails if one is there twice."""
    client = client_for(uri)
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    keys = [tuple(run.data.tags.get(tag, "") for tag in (names.KIND, names.CONFIRMATION, names.TRIAL)) for run in found]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, found, strict=True))


def everything(uri: str) -> dict[tuple[str, ...], Any]:
    """What the server says of all runs, without ids and the times that no record holds."""
    client = client_for(uri)
    found = {}
    for key, run in runs(uri).items():
        changing = (names.PARENT, names.SHEET, names.WRITTEN)
        tags = {name: value for name, value in run.data.tags.items() if name not in changing}
        steps = {
            name: sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }
        assert all(len(each) == len({step for step, _ in each}) for each in steps.values())
        found[key] = (run.info.run_name, run.info.status, run.data.params, tags, steps)
    return found


def project(ledger: Ledger, uri: str, kind: str) -> None:
    Projector(ledger, uri, kind=kind).close(interrupted=False)


def test_confirmed_trials_lie_below_their_search_with_locked_scores_apart(tmp_path: Path, uri: str) -> None:
    ledger = searched(tmp_path / "runs")
    project(ledger, uri, names.KIND_TRIAL)
    project(confirmation(ledger), uri, names.KIND_CONFIRM)
    found = runs(uri)
    assert len({run.info.experiment_id for run in found.values()}) == 1
    (search,) = (run for (kind, *_), run in found.items() if kind == names.KIND_SEARCH)
    best, reference = (run for (kind, *_), run in sorted(found.items()) if kind == names.KIND_CONFIRM)
    assert best.info.run_name == "confirm t0001 genmix dcgan"
    assert reference.info.run_name == "confirm reference mixup"
    assert best.data.tags[names.CONFIRMS] == "t0001"
    assert names.CONFIRMS not in reference.data.tags
    for run in (best, reference):
        assert run.data.tags[names.SEARCH] == "demo"
        assert run.data.tags[names.PARENT] == search.info.run_id
        assert run.info.status == "FINISHED"
    crossed = [fold_result(fold, level=0.7).scores["auc"] for fold in (0, 1)]
    locked = [fold_result(fold, level=0.4).scores["auc"] for fold in (2, 3)]
    assert best.data.metrics["auc"] == pytest.approx(statistics.fmean(crossed), abs=1e-6)
    assert best.data.metrics["locked_auc"] == pytest.approx(statistics.fmean(locked), abs=1e-6)
    assert best.data.metrics["locked_auc_std"] == pytest.approx(statistics.stdev(locked), abs=1e-6)
    history = client_for(uri).get_metric_history(best.info.run_id, "fold/auc")
    assert [each.value for each in sorted(history, key=lambda each: each.step)] == pytest.approx(crossed)
    history = client_for(uri).get_metric_history(best.info.run_id, "locked/auc")
    assert {each.step: each.value for each in history} == pytest.approx(dict(zip((2, 3), locked, strict=True)))
    assert "4 of 4 trainings" in best.data.tags[names.NOTE]
    assert "locked test set 0.3" in best.data.tags[names.NOTE] or "locked test set 0.4" in best.data.tags[names.NOTE]


def test_a_trial_of_the_search_has_no_locked_scores(tmp_path: Path, uri: str) -> None:
    project(searched(tmp_path / "runs"), uri, names.KIND_TRIAL)
    for run in runs(uri).values():
        assert not [name for name in run.data.metrics if "locked" in name]
        assert names.PARENT not in run.data.tags


def test_search_and_confirmations_come_in_any_order_and_again_without_a_double(
    tmp_path: Path, uri: str, empty_database: Path
) -> None:
    ledger = searched(tmp_path / "runs")
    parts = [(ledger, names.KIND_TRIAL), *((confirmation(ledger, number=n), names.KIND_CONFIRM) for n in (1, 2))]
    for part, kind in parts:
        project(part, uri, kind)
    expected = everything(uri)
    assert len(expected) == 1 + 2 + 2 + 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mlflow.db").write_bytes(empty_database.read_bytes())
    other = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    for position in (2, 0, 1, 1, 2, 0):
        part, kind = parts[position]
        project(part, other, kind)
    assert everything(other) == expected
    assert len(client_for(other).search_experiments(filter_string="name LIKE 'genmix-search/%'")) == 1


def test_a_search_that_nobody_follows_is_not_left_running(tmp_path: Path, uri: str) -> None:
    ledger = searched(tmp_path / "runs")
    again = confirmation(ledger)
    Projector(again, uri, kind=names.KIND_CONFIRM).sync(pictures=0)
    statuses = {kind: run.info.status for (kind, *_), run in runs(uri).items()}
    assert statuses == {names.KIND_SEARCH: "KILLED", names.KIND_CONFIRM: "FINISHED"}
    project(ledger, uri, names.KIND_TRIAL)
    assert {run.info.status for run in runs(uri).values()} == {"FINISHED"}


def test_a_confirmation_touches_no_run_of_its_search(tmp_path: Path, uri: str) -> None:
    ledger = searched(tmp_path / "runs")
    add_trial(ledger, REAL, folds=1, state="unfinished")
    Projector(ledger, uri).close(interrupted=True)
    before = everything(uri)
    project(confirmation(ledger), uri, names.KIND_CONFIRM)
    assert {key: value for key, value in everything(uri).items() if key[0] != names.KIND_CONFIRM} == before


def test_what_a_killed_search_or_confirmation_left_running_is_ended_by_the_other(tmp_path: Path, uri: str) -> None:
    ledger = searched(tmp_path / "runs")
    add_trial(ledger, REAL, folds=1, state="unfinished")
    Projector(ledger, uri).sync(pictures=0)  # and its process was killed
    again = confirmation(ledger)
    Projector(again, uri, kind=names.KIND_CONFIRM).sync(pictures=0)
    found = runs(uri)
    for key in ((names.KIND_SEARCH, "", ""), (names.KIND_TRIAL, "", "t0002")):
        assert (found[key].info.status, found[key].data.tags[names.STATE]) == ("KILLED", "interrupted")
    confirming = confirmation(ledger, number=2)
    (confirming.trial_folder("t0001") / "state.json").unlink()
    Projector(Ledger(confirming.folder), uri, kind=names.KIND_CONFIRM).sync(pictures=0)
    client = client_for(uri)
    (hanging,) = (run for key, run in runs(uri).items() if key[0] == names.KIND_CONFIRM and run.info.status == "KILLED")
    client.update_run(hanging.info.run_id, status="RUNNING")
    Projector(Ledger(ledger.folder), uri).sync(pictures=0)
    assert client.get_run(hanging.info.run_id).info.status == "KILLED"
    running = {key for key, run in runs(uri).items() if run.info.status == "RUNNING"}
    assert running == {(names.KIND_SEARCH, "", "")}


def test_closing_again_brings_the_verdict(tmp_path: Path, uri: str) -> None:
    ledger = searched(tmp_path / "runs")
    projector = Projector(confirmation(ledger), uri, kind=names.KIND_CONFIRM)
    projector.close(interrupted=False)
    write_json(ledger.folder / "confirmation.json", {"sentences": ["GenMix is better.", "By 3 points."]})
    projector.close(interrupted=False)
    (search,) = (run for (kind, *_), run in runs(uri).items() if kind == names.KIND_SEARCH)
    assert search.data.tags[names.VERDICT] == "GenMix is better. By 3 points."
    assert [file.path for file in client_for(uri).list_artifacts(search.info.run_id)] == ["confirmation.json"]


def test_the_best_come_first_and_what_has_no_score_last(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, REAL, folds=1, state="failed", error="E")
    for level in (0.5, 0.8, 0.65):
        add_trial(ledger, REAL, level=level)
    add_trial(ledger, REAL, folds=1, state="unfinished")
    assert [each.id for each in best_first(ledger.search(), ledger.trials())] == ["t0002", "t0003", "t0001", "t0000"]
