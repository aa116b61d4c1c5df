"""A search as an Optuna study: what Optuna reads there is what the ledger has."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.cli import main
from search.export_command import write_study
from search.settings import SettingsError
from tests.trainables.test_ledger import fold, made_up_record
from trainables.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "searches" / "s")
    found.folder.mkdir(parents=True)
    found.write_search(replace(made_up_record(), folds=1))
    for score, state in (
        (0.7, "completed"),
        (0.9, "completed"),
        (0.4, "pruned"),
        (None, "failed"),
        (0.5, "unfinished"),
    ):
        config = {
            "mixer.name": "mixup",
            "mixer.mixup_alpha": 0.2,
            "affine": score == 0.9,
            "classifier.learning_rate": 1e-3,
        }
        trial_id = found.add_trial(config, reference="mixup" if score == 0.7 else None)
        if score is not None:
            found.record_fold(trial_id, fold(0, auroc=score))
        if state != "unfinished":
            found.end_trial(trial_id, state, error="why" if state == "failed" else None)
    return found


@pytest.fixture
def study(ledger: Ledger, tmp_path: Path) -> Iterator[optuna.Study]:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    assert write_study(ledger, url, "s") == 5
    storage = optuna.storages.RDBStorage(url)
    yield optuna.load_study(study_name="s", storage=storage)
    storage.engine.dispose()


def test_optuna_finds_the_trials_of_the_ledger(study: optuna.Study) -> None:
    states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert [trial.state for trial in study.trials] == states
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert (study.best_value, study.best_trial.user_attrs["trial"]) == (0.9, "t0001")
    assert study.best_params == {
        "mixer.name": "mixup",
        "mixer.mixup_alpha": 0.2,
        "affine": True,
        "classifier.learning_rate": 1e-3,
    }
    assert study.trials[0].user_attrs["reference"] == "mixup"
    assert study.trials[2].intermediate_values == {0: 0.4}
    assert study.trials[3].user_attrs["error"] == "why"


def test_optunas_own_analysis_reads_it(study: optuna.Study) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        frame = study.trials_dataframe()
    assert len(frame) == 5
    assert optuna.visualization.matplotlib is not None


def test_the_same_search_is_written_anew_and_another_study_stays(ledger: Ledger, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for _ in range(2):
        assert write_study(ledger, url, "s") == 5
    optuna.create_study(storage=url, study_name="theirs")
    with pytest.raises(SettingsError, match="has a study 'theirs' that does not show this search"):
        write_study(ledger, url, "theirs")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://somebody:secret@127.0.0.1:1/x",
        "postgresql://somebody:a/secret@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?user=somebody&password=secret",
        "postgresql://somebody:a@h:secret@127.0.0.1/x",
    ],
)
def test_no_password_is_printed(ledger: Ledger, capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["export", "s", "--storage", str(ledger.storage), "--optuna", url]) == 2
    printed = "".join(capsys.readouterr())
    assert "somebody" in printed
    assert "secret" not in printed


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all/study.db", "postgresql://127.0.0.1:1/x"])
def test_a_storage_that_cannot_be_used_is_refused(ledger: Ledger, capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["export", "s", "--storage", str(ledger.storage), "--optuna", url]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_a_database_of_somebody_else_is_refused_and_stays_as_it_is(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE alembic_version (x); CREATE TABLE experiments (x)")
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="has tables of another program, such as 'experiments'"):
        write_study(ledger, f"sqlite:///{path}", "s")
    assert path.read_bytes() == before
