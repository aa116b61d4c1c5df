"""The commands that the program prints work where it was started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from search.commands import program, resume_command
from trainables.ledger import Ledger


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("search/run.py", "python search/run.py"),
        ("../other place/search/run.py", "python '../other place/search/run.py'"),
        ("/usr/bin/pytest", "python search/run.py"),
    ],
)
def test_the_program_is_named_as_it_was_started(monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--trials", "3"])
    assert program() == said


def test_a_storage_with_blanks_is_quoted(tmp_path: Path) -> None:
    assert resume_command(Ledger(tmp_path / "my searches" / "s")).endswith(f"s --storage '{tmp_path}/my searches'")
