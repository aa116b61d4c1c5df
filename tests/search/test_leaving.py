"""A search that is left asks its trials to save what they train, once, and waits for them, but not for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.leaving import PATIENCE, Leaving, Left
from tests.trainables.test_ledger import made_up_record
from trainables.ledger import Ledger


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path)
    found.write_search(made_up_record())
    return found


def test_trials_go_on_while_there_is_no_reason_to_leave(ledger: Ledger) -> None:
    leaving = Leaving(ledger, say=pytest.fail)
    leaving.step(2)
    assert not leaving.wanted
    assert not ledger.asked_to_stop()


def test_running_trials_are_asked_once_and_waited_for(ledger: Ledger) -> None:
    said: list[str] = []
    leaving = Leaving(ledger, say=said.append, clock=Clock())
    leaving.because("Asked to stop")
    leaving.because("The time budget is spent")
    for running in (2, 1):
        leaving.step(running)
    assert ledger.asked_to_stop()
    assert said == ["Asked to stop; 2 running trials are told to save what is being trained, and to stop."]
    with pytest.raises(Left):
        leaving.step(0)


def test_trials_that_do_not_stop_are_left_behind(ledger: Ledger) -> None:
    clock = Clock()
    leaving = Leaving(ledger, say=lambda text: None, clock=clock)
    leaving.because("Asked to stop")
    leaving.step(1)
    clock.now += PATIENCE - 0.1
    leaving.step(1)
    clock.now += 0.2
    with pytest.raises(Left):
        leaving.step(1)


def test_the_end_of_the_time_budget_is_a_reason_to_leave(ledger: Ledger) -> None:
    clock = Clock()
    leaving = Leaving(ledger, say=lambda text: None, time_budget=60, clock=clock)
    clock.now += 59
    leaving.step(1)
    assert not leaving.wanted
    clock.now += 2
    leaving.step(1)
    assert leaving.reason == "The time budget is spent"


def test_a_full_storage_is_a_reason_to_leave(ledger: Ledger, tmp_path: Path) -> None:
    leaving = Leaving(ledger, say=lambda text: None)
    leaving.because_full(tmp_path)
    assert leaving.exit_code == 75
    assert str(tmp_path) in leaving.reason
    with pytest.raises(Left):
        leaving.step(0)


def test_the_next_attempt_lets_its_trials_run(ledger: Ledger) -> None:
    ledger.let_trials_run()
    ledger.ask_to_stop()
    Leaving(ledger, say=pytest.fail)
    assert not Ledger(ledger.folder).asked_to_stop()
