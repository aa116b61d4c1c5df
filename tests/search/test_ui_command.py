"""The subcommand ``ui``: its server ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search import ui_command
from search.ui_command import ui
from tests.mlflow_tracking.made_up import new_ledger

_SECONDS = 3.0
"""After which the stand-in for MLflow's server ends by itself."""


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """What ``ui`` has started; signals that it does not handle do nothing."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGHUP)}
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(_: object, **options: Any) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", f"import time; time.sleep({_SECONDS})"], **options))
        return started[-1]

    new_ledger(tmp_path)
    monkeypatch.setattr("search.ui_command.subprocess.Popen", start)
    monkeypatch.setattr(ui_command, "_experiment", lambda _: "1")
    yield started
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["terminated", "its terminal is closed"])
def test_the_server_ends_with_the_command(
    number: signal.Signals, servers: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui_command, "_wait_for", lambda *_: os.kill(os.getpid(), number))
    began = time.monotonic()
    assert ui(tmp_path, None, None) == 0
    assert time.monotonic() - began < _SECONDS
    assert [server.returncode for server in servers] == [-signal.SIGTERM]


def test_a_command_that_nohup_started_outlives_its_terminal(
    servers: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(ui_command, "_wait_for", lambda *_: os.kill(os.getpid(), signal.SIGHUP))
    assert ui(tmp_path, None, None) == 0
    assert [server.returncode for server in servers] == [0]
