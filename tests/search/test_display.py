"""What a running search says: counts, what its trials are at, a time left that can be believed, events for machines."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search import display
from search.console import open_console
from search.display import Display
from search.time_left import TimeLeft
from tests.trainables.test_ledger import fold, made_up_record
from trainables.ledger import Ledger
from trainables.results import TrialResult


def trial(number: int, folds: int, *, ended: bool) -> TrialResult:
    return TrialResult(
        id=f"t{number:04d}",
        config={},
        reference=None,
        state="completed" if ended else "unfinished",
        folds=tuple(fold(each, auroc=0.5) for each in range(folds)),
        error=None,
        created=0.0,
        ended=1.0 if ended else None,
    )


def estimates(seconds_per_fold: list[float], *, trials: int, folds: int) -> list[tuple[float, float | None]]:
    """What is left in truth and as estimated after each fold; trials are computed one after the other."""
    left = TimeLeft(wanted=trials, trials=[], now=0.0)
    now, found = 0.0, []
    for done, seconds in enumerate(seconds_per_fold, start=1):
        now += seconds
        whole, begun = divmod(done, folds)
        known = [trial(number, folds, ended=True) for number in range(whole)]
        known += [trial(whole, begun, ended=False)] if begun else []
        found.append((sum(seconds_per_fold[done:]), left.seconds(known, now)))
    return found


def test_the_time_left_is_exact_where_all_folds_take_the_same() -> None:
    for truth, estimate in estimates([2.0] * 30, trials=10, folds=3)[4:]:
        assert estimate == pytest.approx(truth)


def test_cheap_trials_at_the_beginning_do_not_mislead_from_the_middle_on() -> None:
    cheap_then_dear = [1.0] * 9 + [10.0] * 51
    for truth, estimate in estimates(cheap_then_dear, trials=20, folds=3)[30:-1]:
        assert estimate == pytest.approx(truth, rel=0.3)


def test_nothing_is_said_before_anything_is_known() -> None:
    assert estimates([1.0] * 6, trials=2, folds=3)[2][1] is None


def test_what_an_earlier_sitting_finished_says_nothing_about_the_pace() -> None:
    before = [trial(number, 3, ended=True) for number in range(8)]
    left = TimeLeft(wanted=10, trials=before, now=0.0)
    assert left.seconds(before, 100.0) is None
    known = [*before, trial(8, 3, ended=True), trial(9, 1, ended=False)]
    for now in (103.0, 106.0, 109.0):
        left.seconds([*before, trial(8, round((now - 100) / 3), ended=False)], now)
    assert left.seconds(known, 112.0) == pytest.approx(112 / 4 * 2, rel=0.01)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path)
    found.write_search(replace(made_up_record(), trials=2))
    for _ in range(2):
        found.add_trial({"mixer.name": "real", "affine": False}, reference=None)
    found.write_progress("t0001", fold=1, stage="generator", done=30, total=120)
    return found


def shown(ledger: Ledger, progress: str, monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False) -> str:
    for name in ("_EVERY", "_LINES_EVERY", "_EVENTS_EVERY"):
        monkeypatch.setattr(display, name, 0.01)
    screen = io.StringIO()
    console = Console(file=screen, width=120, force_terminal=terminal, markup=False, highlight=False)
    with Display(console, ledger, running=lambda: ["t0001"], progress=progress):
        ledger.record_fold("t0000", fold(0, auroc=0.75))
        ledger.end_trial("t0000", "completed")
        time.sleep(0.3)
    return screen.getvalue()


def test_lines_say_what_has_ended_and_what_is_going_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(ledger, "plain", monkeypatch, terminal=True)
    assert text.count("t0000 completed: real") == 1
    assert "1 of 2 trials completed, 1 running, 0 pruned, 0 failed" in text
    assert "t0001 fold 2/3 generator 30/120" in text


def test_the_time_left_does_not_depend_on_how_seldom_it_is_shown(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "_EVERY", 0.01)
    ledger.write_search(replace(ledger.search(), trials=6))
    monkeypatch.setattr(display, "_LINES_EVERY", float("inf"))
    with Display(Console(file=io.StringIO()), ledger, running=list, progress="plain") as seldom_shown:
        for number in range(6):
            time.sleep(0.1)
            ledger.record_fold(f"t000{number // 3}", fold(number % 3, auroc=0.75))
            if number % 3 == 2:
                ledger.end_trial(f"t000{number // 3}", "completed")
        time.sleep(0.05)
        left = seldom_shown.state()["seconds_left"]
    assert left > 0.6  # four trials of three folds, a tenth of a second each at least


def test_a_terminal_shows_a_bar_for_a_long_stage(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "━━━━" in shown(ledger, "auto", monkeypatch, terminal=True)
    assert "━━━━" not in shown(ledger, "auto", monkeypatch)


def test_quiet_says_nothing_but_what_failed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(ledger, "quiet", monkeypatch) == ""
    ledger.end_trial("t0001", "failed", error="why")
    console = Console(file=io.StringIO(), markup=False)
    quiet = Display(console, ledger, running=list, progress="quiet")
    quiet._announced.clear()
    quiet._announce()
    assert "t0001 failed" in console.file.getvalue()  # type: ignore[attr-defined]


def test_machines_get_one_event_a_line(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(ledger, "json", monkeypatch) == ""
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "start"
    assert (events[0]["trials"], events[0]["ended"]) == (2, 0)
    (ended,) = [each for each in events if each["event"] == "trial"]
    assert (ended["trial"], ended["state"], ended["scores"], ended["config"]["mixer.name"]) == (
        "t0000",
        "completed",
        {"auroc": 0.75},
        "real",
    )
    last = [each for each in events if each["event"] == "progress"][-1]
    assert (last["completed"], last["best"]) == (1, {"trial": "t0000", "score": 0.75})
    assert (last["running"][0]["stage"], last["running"][0]["total"]) == ("generator", 120)


class Terminal(io.StringIO):
    """A screen of 40 columns."""

    def isatty(self) -> bool:
        return True


def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Where standard output goes from now on."""
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    for name, value in {"COLUMNS": "40", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return screen


def test_a_command_on_a_narrow_terminal_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = narrow_terminal(monkeypatch)
    command = f"Go on: python search/run.py --storage {'/a folder' * 9} --resume first"
    open_console().print(command)
    open_console().print(Text.assemble(("warn", "bold"), f" {command}"))
    assert command in terminal.getvalue().splitlines()
    assert command in terminal.getvalue().splitlines()[1]


def test_tables_and_progress_keep_within_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = narrow_terminal(monkeypatch)
    console, table = open_console(), Table(title="A title that is longer than the table below it, " * 2)
    table.add_column("column", overflow="fold")
    table.add_column("another one, which has a name that is too long for this")
    table.add_row("x" * 90, "word " * 20)
    console.print(table)
    plain = Terminal()
    Console(file=plain, width=40, markup=False, highlight=False).print(table)
    assert terminal.getvalue() == plain.getvalue()
    assert max(map(len, re.sub(r"\x1b\[\d*m", "", terminal.getvalue()).splitlines())) == 40
    with Live(Text("busy " * 20, no_wrap=True, overflow="ellipsis"), console=console, transient=True):
        console.print("sentence " * 9)
    drawn = [line for line in terminal.getvalue().splitlines() if "busy" in line]
    assert drawn and all(line.count("busy") < 9 for line in drawn)
    assert "sentence " * 8 in terminal.getvalue()
