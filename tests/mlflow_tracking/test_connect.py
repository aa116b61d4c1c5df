from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mlflow_tracking.address import page_address, ui_command
from mlflow_tracking.connect import TrackingError, check_server, has_password, shown, sqlite_path, why


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


@pytest.mark.parametrize(
    ("uri", "without"),
    [
        ("postgresql://me:SEC/RET@h/db", "postgresql://me@h/db"),
        ("postgresql://me:SEC#RET@h/db", "postgresql://me@h/db"),
        ("postgresql://me:SEC?RET@h:5432/db", "postgresql://me@h:5432/db"),
        ("mysql+pymysql://me:S@EC/R@ET@h/db", "mysql+pymysql://me@h/db"),
        ("postgresql://me:S@h:RET@h/db", "postgresql://me@h/db"),
        ("postgresql://h/db?user=me&password=SE;RET", "postgresql://h/db?user=me&password=***"),
        ("mssql+pyodbc:///?odbc_connect=DSN%3Dx%3BPWD%3DSECRET", "mssql+pyodbc:///?odbc_connect=DSN%3Dx%3BPWD%3D***"),
        ("http://me:SEC/RET@h", "http://me@h"),
        ("http://[me:SECRET@h", "http://[me@h"),
        ("http://h:5000/?password=SECRET", "http://h:5000/?password=***"),
    ],
)
def test_a_password_is_found_wherever_it_stands(uri: str, without: str) -> None:
    assert shown(uri) == without
    assert has_password(uri)
    assert not has_password(without)


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////data/a:b@c.db",
        "postgresql://me@h:5432/db?passfile=/home/me/.pgpass",
        "https://token@h/",
        "http://h:5000/a@b",
        "http://[::1",
        "./mlruns",
        "a:b",
        "",
    ],
)
def test_an_address_without_a_password_is_shown_as_it_is(uri: str) -> None:
    assert shown(uri) == uri
    assert not has_password(uri)


@pytest.mark.parametrize("uri", ["http://[::1", "http://[u:pass@x", "http://h:port/"])
def test_a_malformed_address_is_refused_in_a_sentence(uri: str) -> None:
    said = refusal(uri)
    assert "cannot be read" in said
    assert "sqlite:///mlflow.db" in said
    assert "pass@" not in said


def test_a_database_of_somebody_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE alembic_version (x); CREATE TABLE studies (x)")
    before = path.read_bytes()
    assert "has tables of another program, such as 'studies'" in refusal(f"sqlite:///{path}")
    assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_database_whose_first_tables_are_just_being_made_is_not_somebody_elses(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    check_server(f"sqlite:///{path}")


def test_a_missing_module_is_told_with_the_package_to_install() -> None:
    for name, package in {"botocore": "boto3", "google.cloud": "google-cloud-storage", "pymysql": "pymysql"}.items():
        error = ModuleNotFoundError(f"No module named '{name}'", name=name)
        assert why(error) == f"No module named '{name}'; install it: pip install {package}"
    assert why(ValueError()) == "ValueError"


def test_the_page_is_the_runs_page_in_the_saved_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = "/#/experiments/7/runs?viewStateShareKey=genmix&workflowType=machine_learning"
    assert page_address("http://host:8080/", "7") == f"http://host:8080{tail}"
    assert page_address("sqlite:///mlflow.db", "7") == f"http://127.0.0.1:5000{tail}"
    monkeypatch.chdir(tmp_path)
    assert ui_command("http://host:8080") is None
    assert ui_command("sqlite:///mlflow.db") == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db"
    assert ui_command("sqlite:///my runs/m.db") == f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/my runs/m.db'"
    assert sqlite_path("sqlite:////data/m.db") == Path("/data/m.db")
