"""The exact commands that the program prints for its user to go on with."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from trainables.ledger import Ledger

PROGRAM = "python search/run.py"
"""How it is started in the project's folder."""


def program() -> str:
    """How this program was started, so that its commands work in the folder that it was started in."""
    script = sys.argv[0]
    return f"python {shlex.quote(script)}" if Path(script).parts[-2:] == ("search", "run.py") else PROGRAM


def resume_command(search: Ledger) -> str:
    """Goes on with a search."""
    return f"{program()} --resume {search.folder.name}{storage_flag(search)}"


def confirm_command(search: Ledger) -> str:
    """Confirms a search."""
    return f"{program()} confirm {search.folder.name}{storage_flag(search)}"


def sync_command(ledger: Ledger) -> str:
    """Brings the tracking server of a search, or of the search that a confirmation is of, up to date."""
    search = ledger if ledger.folder.parent == ledger.storage else Ledger(ledger.folder.parent)
    address = shlex.quote(search.search().tracking_uri)
    return f"{program()} sync {search.folder.name}{storage_flag(search)} --tracking-uri {address}"


def report_command(search: Ledger) -> str:
    """Writes a search's report again."""
    return f"{program()} report {search.folder.name}{storage_flag(search)}"


def refit_command(search: Ledger) -> str:
    """Trains a search's best policy on all its images."""
    return f"{program()} refit {search.folder.name}{storage_flag(search)}"


def predict_command(search: Ledger, model: str) -> str:
    """Uses a model, given by the name of its search or by its folder."""
    storage = storage_flag(search) if model == search.folder.name else ""
    return f"{program()} predict {shlex.quote(model)} IMAGES{storage}"


def storage_flag(search: Ledger) -> str:
    """The flag that names the storage, where it is not the one looked into by default."""
    is_default = search.storage == Path("searches").resolve()
    return "" if is_default else f" --storage {shlex.quote(str(search.storage))}"
