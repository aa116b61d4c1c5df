"""What becomes of a search when Ray ends processes: whose fault it was, and whether its trials go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError

from search import tuning
from search.allotment import Allotment
from search.leaving import Leaving, Left
from search.resource_classes import ResourceClasses
from search.tuning import Tuning, _Watch
from tests.search.test_allotment import resources
from tests.trainables.test_ledger import fold, made_up_record
from trainables.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "s")
    found.folder.mkdir()
    found.write_search(made_up_record())
    found.add_trial({}, reference=None)
    return found


@pytest.fixture
def said() -> list[str]:
    return []


def prepared(
    ledger: Ledger, said: list[str], monkeypatch: pytest.MonkeyPatch, fit: Callable[[], None]
) -> tuple[Tuning, Leaving]:
    """A run of trials without Ray: ``fit`` stands where Ray Tune would run them."""
    monkeypatch.setattr(tuning, "ray", SimpleNamespace(is_initialized=lambda: True, shutdown=lambda: None))
    monkeypatch.setattr(Tuning, "_tuner", lambda self: SimpleNamespace(fit=fit))
    leaving = Leaving(ledger, say=said.append)
    allotment = Allotment(concurrency=1, cpus=1, gpus=ResourceClasses(share=0.0, whole=0.0))
    run = Tuning(ledger, allotment, resources(), leaving=leaving, on_change=lambda: None, on_start=lambda: None)
    return run, leaving


def ended_by_ray() -> None:
    try:
        raise OutOfMemoryError("Task was killed due to the node running low on memory. More of it.")
    except OutOfMemoryError as error:
        raise RuntimeError("Caught unexpected exception") from error


def test_trials_go_on_where_ray_has_ended_one_for_lack_of_memory(
    ledger: Ledger, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter([ended_by_ray, ended_by_ray, lambda: None])
    run, leaving = prepared(ledger, said, monkeypatch, lambda: next(runs)())
    run.run()
    assert not leaving.wanted
    assert said == 2 * [
        "Ray has ended a trial (Task was killed due to the node running low on memory); the trials go on."
    ]


def test_a_search_is_left_where_ray_ends_trials_again_and_again(
    ledger: Ledger, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, leaving = prepared(ledger, said, monkeypatch, ended_by_ray)
    with pytest.raises(Left):
        run.run()
    assert leaving.exit_code == 1
    assert "again and again (Task was killed" in leaving.reason


def test_a_search_that_gets_on_in_between_is_not_left(
    ledger: Ledger, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(10))

    def one_fold_then_the_end() -> None:
        number = next(numbers)
        ledger.record_fold("t0000", fold(number, auroc=0.5))
        if number < 6:
            ended_by_ray()

    run, leaving = prepared(ledger, said, monkeypatch, one_fold_then_the_end)
    run.run()
    assert (len(said), leaving.wanted) == (6, False)


def test_any_other_error_is_passed_on(ledger: Ledger, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("a fault")

    run, _ = prepared(ledger, said, monkeypatch, broken)
    with pytest.raises(RuntimeError, match="a fault"):
        run.run()


def failing(folder: Path, error: str, failures: int) -> Any:
    """A trial whose process has failed, as Tune notes it."""
    file = folder / "error.txt"
    file.write_text(f"Failure # 1 (occurred at noon)\nearlier\nFailure # 2 (occurred at one)\n{error}\n")
    return SimpleNamespace(
        trial_id="x",
        config={"trial": "t0000"},
        run_metadata=SimpleNamespace(num_failures=failures),
        error_file=str(file),
    )


def watching(ledger: Ledger) -> _Watch:
    leaving = Leaving(ledger, say=pytest.fail)
    return _Watch(ledger, ledger.search(), stage_limit=None, on_change=lambda: None, leaving=leaving)


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        ("The actor died because its node has died. Node Id: 1", 0),
        ("The actor is temporarily unavailable: RpcError: Socket closed", 0),
        ("The actor died unexpectedly before finishing this task. exit code 137", 1),
    ],
)
def test_a_node_that_dies_is_not_the_fault_of_its_trials(
    ledger: Ledger, tmp_path: Path, error: str, counted: int
) -> None:
    trial = failing(tmp_path, error, 1)
    watching(ledger).on_trial_recover(0, [], trial)
    assert trial.run_metadata.num_failures == counted


def test_a_process_that_is_never_available_fails_its_trial_in_the_end(ledger: Ledger, tmp_path: Path) -> None:
    watch, trial = watching(ledger), failing(tmp_path, "The actor is temporarily unavailable", 0)
    counted = []
    for _ in range(12):
        trial.run_metadata.num_failures = 1
        watch.on_trial_recover(0, [], trial)
        counted.append(trial.run_metadata.num_failures)
    assert counted == [0] * 10 + [1] * 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly", "the trial's process died 3 times in a row"),
        ("Traceback ...\ntrainables.errors.RetryableTrialError: OSError: stale", "RetryableTrialError: OSError: stale"),
    ],
)
def test_a_trial_that_fails_says_why(ledger: Ledger, tmp_path: Path, error: str, reason: str) -> None:
    watching(ledger).on_trial_error(0, [], failing(tmp_path, error, 3))
    ended = ledger.trial("t0000")
    assert ended.state == "failed"
    assert reason in str(ended.error)


def test_only_a_new_fold_makes_up_for_a_dead_process(ledger: Ledger, tmp_path: Path) -> None:
    watch, trial = watching(ledger), failing(tmp_path, "", 0)
    for folds_done, before, after in ((1, 0, 0), (1, 1, 1), (2, 2, 0), (2, 1, 1)):
        trial.run_metadata.num_failures = before
        watch.on_trial_result(0, [], trial, {"folds_done": folds_done})
        assert trial.run_metadata.num_failures == after
