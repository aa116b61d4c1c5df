from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_tracking.address import page_address, ui_command
from mlflow_tracking.connect import TrackingError, check_server, shown, sqlite_path


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for each in held:
            each.close()


def refusal(uri: str) -> str:
    start = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        check_server(uri)
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unreachable_server_is_refused_within_seconds() -> None:
    assert "cannot be reached" in refusal("http://127.0.0.1:9")
    assert "cannot be reached" in refusal("http://tracking.invalid:5000")


def test_a_silent_server_is_refused_within_seconds(silent_server: str) -> None:
    assert "no answer within 3 s" in refusal(silent_server)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///data/mlruns", "", "ftp://host", "databricks"])
def test_addresses_that_are_not_supported_say_what_to_pass(uri: str) -> None:
    assert "sqlite:///mlflow.db" in refusal(uri)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "http://"])
def test_addresses_that_name_nothing_are_refused(uri: str) -> None:
    assert "names no" in refusal(uri)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(f"sqlite:///{tmp_path}/none/mlflow.db")


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 100, encoding="utf-8")
    assert "cannot be" in refusal(f"sqlite:///{path}")
    assert path.read_text(encoding="utf-8").startswith("not a database")


def test_a_working_database_passes(uri: str) -> None:
    check_server(uri)


def test_a_password_is_never_shown() -> None:
    assert shown("http://me:secret@host:5000/x") == "http://me@host:5000/x"
    assert "secret" not in page_address("https://me:secret@host", "7")
    assert "secret" not in refusal("http://me:secret@127.0.0.1:9")


def test_the_page_is_the_runs_page_in_the_saved_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = "/#/experiments/7/runs?viewStateShareKey=genmix&workflowType=machine_learning"
    assert page_address("http://host:8080/", "7") == f"http://host:8080{tail}"
    assert page_address("sqlite:///mlflow.db", "7") == f"http://127.0.0.1:5000{tail}"
    monkeypatch.chdir(tmp_path)
    assert ui_command("http://host:8080") is None
    assert ui_command("sqlite:///mlflow.db") == "mlflow ui"
    assert ui_command("sqlite:///my runs/m.db") == f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/my runs/m.db'"
    assert sqlite_path("sqlite:////data/m.db") == Path("/data/m.db")
