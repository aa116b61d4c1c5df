"""How a driver ends: on a signal while it writes its results, and where another one has taken its search over."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

PRELUDE = """
import os, signal, sys, time
from pathlib import Path

from rich.console import Console

from search import attempt
from search.settings import Resources
from tests.trainables.test_ledger import made_up_record
from trainables.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]) / "search")
ledger.folder.mkdir()
ledger.write_search(made_up_record())
console = Console(width=200)
"""


def run(folder: Path, code: str) -> tuple[int, str]:
    """The exit code of a process, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.stderr
    return done.returncode, done.stdout


def test_the_first_signal_while_results_are_written_lets_tracking_end_its_runs(tmp_path: Path) -> None:
    code = """
    class Tuned:
        exhausted, running = False, list

        def __init__(self, *given, on_start, **named):
            self.run = on_start

    class Tracker:
        page, poke, start = None, None, print

        def __init__(self, *given, **named):
            pass

        def stop(self, *, interrupted):
            print("tracking has ended", flush=True)
            return True

    attempt.Tuning, attempt.LiveProjector = Tuned, Tracker

    def finish(interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        print("results are written")

    asked = dict.fromkeys(("concurrency", "cpus_per_trial", "gpus_per_trial", "address", "time_budget"))
    resources = Resources(**asked, checkpoint_seconds=60.0)
    end = attempt.compute(ledger, None, None, resources, console, finish=finish)
    print(end.exit_code, end.interrupted)
    """
    exit_code, said = run(tmp_path, code)
    assert exit_code == 0
    assert said.split("\n")[-4:] == ["results are written", "tracking has ended", "143 False", ""]


DRIVEN = """
with attempt.driving(ledger, console):
    {loss}
    time.sleep(20)
"""


def test_a_driver_whose_search_another_one_has_taken_over_ends_at_once(tmp_path: Path) -> None:
    loss = 'attempt.driver_lease(ledger).write_text(\'{"process": "7.1.node-1", "token": "other", "beat": 0}\')'
    exit_code, said = run(tmp_path, DRIVEN.format(loss=loss))
    assert (exit_code, said) == (143, "Another process runs the search 'search' by now; it is left to that.\n")


def test_a_driver_whose_lease_has_vanished_is_asked_to_stop(tmp_path: Path) -> None:
    assert run(tmp_path, DRIVEN.format(loss="attempt.driver_lease(ledger).unlink()")) == (-15, "")
