"""The subcommand ``show``: a search's leaderboard, rebuilt from its ledger."""

from __future__ import annotations

from pathlib import Path

from mlflow_tracking.names import CONFIRMATION_FILE
from search.console import open_console
from search.outcome import print_outcome
from search.storage import find_search
from trainables.files import read_json


def show(storage: Path, name: str | None) -> int:
    """Print a search's leaderboard. Raises: SettingsError if it is not there."""
    ledger = find_search(storage, name)
    console = open_console()
    print_outcome(console, ledger)
    verdict = ledger.folder / CONFIRMATION_FILE
    if verdict.exists():
        for sentence in read_json(verdict)["sentences"]:
            console.print(sentence)
    return 0
