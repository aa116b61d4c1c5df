"""On every trial that used a generator: what it cost, who trained it, and who found it ready."""

from __future__ import annotations

from pathlib import Path

from mlflow_tracking import names
from mlflow_tracking.connect import client_for
from mlflow_tracking.projector import Projector
from mlflow_tracking.sharing import sharing_of
from tests.mlflow_tracking.made_up import GENMIX_DCGAN, REAL, add_trial, new_ledger
from trainables.ledger import Ledger
from trainables.results import StageRecord


def stage(key: str, *, reused: bool, seconds: float = 30.0) -> StageRecord:
    return StageRecord(name="generator", key=key, seconds=seconds, reused=reused)


def sentences(ledger: Ledger) -> list[str]:
    trials = ledger.trials()
    return [sharing_of(trials).sentence(trial) for trial in trials]


def test_a_generators_cost_is_told_with_who_trained_it_and_who_found_it_ready(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, GENMIX_DCGAN, folds=1, stages=(stage("a", reused=False),))
    add_trial(ledger, REAL)
    add_trial(ledger, GENMIX_DCGAN, folds=2, stages=(stage("a", reused=True),))
    add_trial(ledger, GENMIX_DCGAN, folds=1, stages=(stage("a", reused=True), stage("b", reused=False)))
    add_trial(ledger, GENMIX_DCGAN, folds=1, stages=(stage("c", reused=True, seconds=12),))
    assert sentences(ledger) == [
        "Generator: 30 s for 1 training; trained here, found ready by t0002 and t0003.",
        "",
        "Generator: 30 s for 1 training; found ready, trained by t0000.",
        "Generator: 60 s for 2 trainings; trained here; 1 of them found ready, trained by t0000.",
        "Generator: 12 s for 1 training; found ready, trained by an earlier search or attempt.",
    ]


def test_of_many_trials_the_first_are_named(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, GENMIX_DCGAN, folds=1, stages=(stage("a", reused=False),))
    for _ in range(6):
        add_trial(ledger, GENMIX_DCGAN, folds=1, stages=(stage("a", reused=True),))
    assert sentences(ledger)[0].endswith("found ready by t0001, t0002, t0003, t0004 and 2 more.")


def test_a_trial_that_ended_earlier_hears_of_those_who_use_its_generator_later(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs")
    add_trial(ledger, GENMIX_DCGAN, folds=1, stages=(stage("a", reused=False),))
    projector = Projector(ledger, uri)
    projector.sync()
    add_trial(ledger, GENMIX_DCGAN, folds=1, stages=(stage("a", reused=True),))
    projector.close(interrupted=False)
    found = client_for(uri).search_runs(["1"], filter_string=names.TRIALS_ONLY)
    runs = {run.data.tags[names.TRIAL]: run.data for run in found}
    assert "trained here, found ready by t0001." in runs["t0000"].tags[names.NOTE]
    assert "found ready, trained by t0000." in runs["t0001"].tags[names.NOTE]
    assert [runs[each].metrics[names.GENERATOR_SECONDS] for each in ("t0000", "t0001")] == [30, 30]
    again = Projector(ledger, uri)
    again.close(interrupted=False)
    assert again.written.values == 0
