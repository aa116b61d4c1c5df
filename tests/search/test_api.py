"""Searches from Python: the options are those of the command line, the result is the ledger's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search import api, load_result, run_search, runner
from search.settings import NewSearch
from spaces.errors import InputError
from spaces.parameter import Value
from tests.trainables.test_ledger import fold, made_up_record
from trainables.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "s")
    found.folder.mkdir()
    found.write_search(made_up_record())
    for score in (0.6, 0.8):
        trial_id = found.add_trial({"affine": score > 0.7}, reference=None)
        for number in range(3):
            found.record_fold(trial_id, fold(number, auroc=score))
        found.end_trial(trial_id, "completed")
    return found


@pytest.fixture
def started(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> list[NewSearch]:
    """What would have been run."""
    settings: list[NewSearch] = []

    def start(asked: NewSearch) -> Any:
        settings.append(asked)
        return SimpleNamespace(ledger=ledger, exit_code=0)

    monkeypatch.setattr(runner, "start_search", start)
    return settings


def test_a_result_is_what_the_ledger_has(ledger: Ledger) -> None:
    result = load_result("s", storage=ledger.storage)
    assert result.best is not None
    assert (result.best.id, result.exit_code, result.record) == ("t0001", None, ledger.search())
    assert result.rows()[0] == {
        "trial": "t0000",
        "state": "completed",
        "reference": None,
        "affine": False,
        "auroc": 0.6,
        "auroc_std": 0.0,
    }


def test_options_are_those_of_the_command_line(started: list[NewSearch]) -> None:
    fixed: dict[str, Value] = {"generator.name": "dcgan", "affine": True}
    result = run_search(fixed=fixed, budget="standard", trials=7, no_confirm=True, no_images=False, time_budget="2h")
    (asked,) = started
    assert (asked.space.name, asked.budget.name, asked.trials) == ("genmix", "standard", 7)
    assert (asked.confirm, asked.show_images, asked.resources.time_budget) == (False, True, 7200)
    assert not asked.space.contains({"mixer.name": "real"})
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trails": 3}, "run_search has no option 'trails'; did you mean 'trials'"),
        ({"trials": 0}, "'0' is no whole number from 1"),
        ({"budget": "quik"}, "did you mean 'quick'"),
        ({"fixed": {"generator.nam": "egan"}}, "did you mean 'generator.name'"),
        ({"concurrency": [1, 2]}, r"run_search takes one value for 'concurrency', and was given \[1, 2\]; give one"),
        ({"no_images": [False]}, r"run_search takes one value for 'no_images', and was given \[False\]; give one"),
    ],
)
def test_wrong_options_are_refused_as_on_the_command_line(
    started: list[NewSearch], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run_search(**options)
    assert not started


def test_a_list_is_every_score_to_trade(started: list[NewSearch]) -> None:
    run_search(metric=["sensitivity", "specificity"])
    run_search(metric="auroc,accuracy")
    run_search(metric=[])
    assert [(each.metric, *each.further_metrics) for each in started] == [
        ("sensitivity", "specificity"),
        ("auroc", "accuracy"),
        ("balanced_accuracy",),
    ]


def test_a_list_is_every_search_to_start_from() -> None:
    assert api._arguments({"warm_start": ("one", "two")}) == ["--warm-start=one", "--warm-start=two"]


def test_zero_leaves_a_flag_off_and_is_a_value_elsewhere() -> None:
    off = {"leave_site_out": 0, "no_images": 0, "no_confirm": False, "seed": None}
    assert api._arguments({**off, "skip_bad_images": 1}) == ["--skip-bad-images"]
    assert api._arguments({"seed": 0, "lock_test": 0, "folds": 5}) == ["--seed=0", "--lock-test=0", "--folds=5"]


def test_one_configuration_is_evaluated_as_on_the_command_line(started: list[NewSearch], tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("config:\n  mixer.name: real\noptions:\n  budget: quick\n  seed: 3\n")
    run_search(config=tmp_path / "best.yaml")
    assert (started[0].config, started[0].trials, started[0].seed) == ({"mixer.name": "real"}, 1, 3)


def test_mlflows_own_variable_says_where_it_is_unless_an_option_does(
    started: list[NewSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    run_search(no_confirm=True)
    run_search(no_confirm=True, tracking_uri="sqlite:///own.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run_search(no_confirm=True)
    assert [each.tracking_uri for each in started] == [
        "http://127.0.0.1:5000",
        "sqlite:///own.db",
        "sqlite:///mlflow.db",
    ]


def test_what_only_a_terminal_asks_for_is_no_option(started: list[NewSearch]) -> None:
    with pytest.raises(InputError, match="run_search has no option 'version'"):
        run_search(version=True)
    assert not started
