"""A locked test set and a confirmation, as a user would run them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.integration.conftest import Workplace
from tests.integration.test_main_job import trial_runs, wait_until_ended
from trainables.data.locked import LockedTest
from trainables.ledger import Ledger

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

LOCK = ("--lock-test", "0.25")


def test_a_search_runs_though_no_locked_image_can_be_read(workplace: Workplace) -> None:
    """The images are chosen by name, so that a dry search tells which ones to spoil for the next."""
    dry = workplace.run(*workplace.new(*LOCK, "--trials", "1", "--name", "dry"))
    assert dry.returncode == 0, dry.stdout + dry.stderr
    locked = LockedTest.read(workplace.folder / "searches/dry")
    assert locked is not None
    for number, name in enumerate(locked.ids):
        (workplace.folder / "data" / name).write_bytes(b"no image %d" % number)
    done = workplace.run(*workplace.new(*LOCK, "--trials", "4", "--name", "blind"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(locked.ids)} images" in done.stdout
    assert LockedTest.read(workplace.folder / "searches/blind") is not None
    predicted = {
        each.image
        for trial in Ledger(workplace.folder / "searches/blind").trials(predictions=True)
        for fold in trial.folds
        for each in fold.predictions
    }
    assert len(predicted) == 48 - len(locked.ids)
    assert not predicted & set(locked.ids)
    refused = workplace.run_command(workplace.subcommand("confirm", "dry"))
    assert refused.returncode == 2
    assert "are not those of the day they were locked" in refused.stderr


def test_a_confirmation_is_stopped_resumed_and_ends_in_a_verdict(workplace: Workplace) -> None:
    done = workplace.run(*workplace.new(*LOCK, "--trials", "4", "--name", "found"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not confirmed (budget quick)" in done.stdout
    assert "confirm found" in done.stdout
    folder = workplace.folder / "searches/found"
    process = workplace.start_command(workplace.subcommand("confirm", "found", "--repeats", "1", "--concurrency", "1"))
    wait_until_ended(folder / "confirm", 2, process)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 143, workplace.log()
    assert "search/run.py confirm found" in workplace.log().partition("Go on: python ")[2]
    before = _finished(folder)
    confirmed = workplace.run_command(workplace.subcommand("confirm", "found"))
    assert confirmed.returncode == 0, confirmed.stdout + confirmed.stderr
    after = _finished(folder)
    assert {path: after[path] for path in before} == before
    assert "Verdict:" in confirmed.stdout
    verdict = json.loads((folder / "confirmation.json").read_text())
    assert {row["state"] for row in verdict["rows"]} == {"completed"}
    assert all(row["locked"]["mean"] is not None for row in verdict["rows"])
    assert json.loads((folder / "result.json").read_text())["confirmation"] == verdict
    assert verdict["sentences"][0] in workplace.run_command(workplace.subcommand("show", "found")).stdout
    ledger = Ledger(folder / "confirm")
    assert ledger.storage == workplace.folder / "searches"
    searched = {fold.predictions for trial in Ledger(folder).trials(predictions=True) for fold in trial.folds}
    assert not searched & {fold.predictions for trial in ledger.trials(predictions=True) for fold in trial.folds}
    kinds = {run.data.tags["genmix.kind"] for run in trial_runs(workplace.folder)}
    assert "RUNNING" not in {run.info.status for run in trial_runs(workplace.folder)}, kinds
    again = workplace.run_command(workplace.subcommand("confirm", "found"))
    assert again.returncode == 2
    assert "Give --again for another confirmation" in again.stderr


def _finished(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("confirm/trials/*/fold_*.json")}
