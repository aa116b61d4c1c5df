"""Reach a tracking server: check it before a search starts, and probe it quickly while one runs."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from spaces.errors import InputError

DEFAULT_URI = "sqlite:///mlflow.db"
PROBE_SECONDS = 3.0
DATABASE_SECONDS = 30.0
FILE_SECONDS = 300.0
"""A new SQLite file gets its tables first, which a busy machine may take minutes for; it cannot hang."""
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_IN_QUERY = re.compile(r"((?:[?&;]|%3b)(?:password|passwd|pwd|sslpassword)(?:=|%3d))[^&]+", re.IGNORECASE)
"""A password in an address's query, or in ODBC's words within it."""
_PACKAGES = {
    "azure": "azure-storage-blob",
    "botocore": "boto3",
    "google": "google-cloud-storage",
    "MySQLdb": "mysqlclient",
    "psycopg2": "psycopg2-binary",
}
"""What to install for a module that is not called like its package."""
_FORMS = "pass sqlite:///mlflow.db or the address of a server such as http://HOST:5000"


class TrackingError(InputError):
    """The tracking server or database cannot be used; nothing was started."""


class TrackingOutage(RuntimeError):  # noqa: N818 - an outage passes, the projector catches up
    """The tracking server or database cannot be reached just now."""


OUTAGES: tuple[type[Exception], ...] = (MlflowException, SQLAlchemyError, OSError, ImportError)
"""What the client raises when a server or database does not do as asked (``requests`` raises OSErrors), or when the
driver of a database or of an artifact store is not installed."""


def scheme(uri: str) -> str:
    """``http``, ``https``, ``sqlite``, ``postgresql`` ...: without the driver (``postgresql+psycopg2``)."""
    return uri.split(":", 1)[0].split("+", 1)[0].lower() if ":" in uri else ""


def is_server(uri: str) -> bool:
    """Whether the address is that of an HTTP server, not of a database."""
    return scheme(uri) in ("http", "https")


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of an SQLite database's file; None for anything else."""
    if scheme(uri) != "sqlite":
        return None
    tail = uri.split("://", 1)[1] if "://" in uri else ""
    path = tail.removeprefix("/").split("?", 1)[0]
    return None if path in ("", ":memory:") else Path(path).absolute()


def client_for(uri: str) -> MlflowClient:
    """A client that gives up soon and prints nothing.

    By itself it would retry for minutes before it says that a server is down, and print two lines for every run that
    ends. Where the environment says otherwise, it has its way.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def probe(uri: str, *, timeout: float = PROBE_SECONDS) -> str | None:
    """Whether an HTTP server answers as MLflow does.

    Args:
        uri: the tracking address; a database is taken to be there.
        timeout: seconds until it counts as unreachable, looking up its name included.

    Returns:
        None if it answers, else what is wrong.
    """
    if not is_server(uri):
        return None
    return within(timeout + 0.5, lambda: _health(uri, timeout), late=f"no answer within {timeout:g} s")


def _health(uri: str, timeout: float) -> str | None:
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=timeout)
    except requests.Timeout:
        return f"no answer within {timeout:g} s"
    except requests.ConnectionError:
        return "no connection"
    except (requests.RequestException, ValueError) as error:
        return _first_line(error)
    if answer.status_code in (401, 403):
        return None  # a proxy that wants a login; the client has it or says so
    return None if answer.ok else f"/health answers {answer.status_code}, which MLflow does not"


def within(seconds: float, work: Callable[[], str | None], *, late: str) -> str | None:
    """What ``work`` returns or raises, or ``late`` if that takes longer; the work is left behind then."""
    answer: Future[str | None] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="tracking-probe").start()
    try:
        return answer.result(seconds)
    except FutureTimeout:
        if answer.done():
            raise
        return late


def check_server(uri: str) -> None:
    """See that runs can be written to ``uri``; a database gets its tables here, once, before anything runs in parallel.

    Args:
        uri: the tracking address as the user gave it.

    Raises:
        TrackingError: it is of no supported kind, cannot be reached or cannot be written; within seconds.
    """
    kind = scheme(uri)
    if is_server(uri):
        _check_http(uri)
    elif kind == "sqlite":
        _check_sqlite(uri)
    elif kind not in _DATABASES:
        raise TrackingError(
            f"The tracking address '{shown(uri)}' is not supported; expected a database or an HTTP server (MLflow no "
            f"longer takes folders): {_FORMS}."
        )
    patience = FILE_SECONDS if kind == "sqlite" else DATABASE_SECONDS if kind in _DATABASES else 2 * PROBE_SECONDS
    wrong = within(patience, lambda: _ask(uri), late="no answer")
    if wrong is not None:
        raise TrackingError(
            f"The tracking address '{shown(uri)}' cannot be used ({wrong}); expected a working MLflow {_noun(uri)}: "
            f"mend it or {_FORMS}."
        )


def _noun(uri: str) -> str:
    return "server" if is_server(uri) else "database"


def _ask(uri: str) -> str | None:
    try:
        foreign = None if is_server(uri) else _foreign_table(uri)
        if foreign is not None:
            return f"it has tables of another program, such as '{foreign}'"
        client_for(uri).search_experiments(max_results=1)
    except ValueError as error:
        return why(error)
    except OUTAGES as error:
        message = why(error)
        return f"{message}; run: mlflow db upgrade {shown(uri)}" if "out-of-date" in message else message
    return None


def _foreign_table(uri: str) -> str | None:
    """A table of a database that is in use and not MLflow's; tables of MLflow alone may be just being made."""
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.db.utils import create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(uri)
    try:
        tables = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if {"alembic_version", "experiments"} <= tables:
        return None
    return min(tables - {"alembic_version", *Base.metadata.tables}, default=None)


def _check_http(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise TrackingError(
            f"The tracking address '{shown(uri)}' cannot be read; expected http://HOST:PORT, of an IPv6 host "
            f"http://[HOST]:PORT: mend it or {_FORMS}."
        ) from None
    if not host:
        raise TrackingError(f"The tracking address '{shown(uri)}' names no host; {_FORMS}.")
    wrong = probe(uri)
    if wrong is not None:
        raise TrackingError(
            f"The tracking server {shown(uri)} cannot be reached ({wrong}); expected a running MLflow server: start "
            f"it or pass {DEFAULT_URI}."
        )


def _check_sqlite(uri: str) -> None:
    path = sqlite_path(uri)
    if path is None:
        raise TrackingError(f"The tracking address '{shown(uri)}' names no database file; {_FORMS}.")
    if not path.parent.is_dir():
        raise TrackingError(
            f"The tracking address '{shown(uri)}' lies in the folder {path.parent}, which does not exist; create it or "
            f"{_FORMS}."
        )
    is_new = not path.exists()
    try:
        with closing(sqlite3.connect(path, timeout=PROBE_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("PRAGMA user_version").fetchone()
            connection.rollback()
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(f"folder {path.parent} is read-only")
    except (sqlite3.Error, OSError) as error:
        raise TrackingError(
            f"The tracking database {path} cannot be written ({_first_line(error)}); expected a writable SQLite file "
            f"in a writable folder: mend its permissions or {_FORMS}."
        ) from None
    finally:
        if is_new and path.exists() and path.stat().st_size == 0:
            path.unlink()


def shown(uri: str) -> str:
    """The address without a password, for messages and pages."""
    head, mark, tail = uri.partition("://")
    if _follows_user(uri):
        uri = f"{head}{mark}{tail.split(':', 1)[0]}@{tail.rpartition('@')[2]}"
    return _IN_QUERY.sub(r"\1***", uri)


def has_password(uri: str) -> bool:
    """Whether an address of a server or database holds a password, behind the user's name or in the query."""
    return shown(uri) != uri


def _follows_user(uri: str) -> bool:
    """Whether a password stands behind the user's name; of a malformed address, whether one may."""
    try:
        if is_server(uri):
            parts = urlsplit(uri)
            _ = parts.port  # raises ValueError where a '/' in a password cuts the address
            return bool(parts.password)
        return bool(make_url(uri).password)
    except (ValueError, ArgumentError):
        return ":" in uri.partition("://")[2].rpartition("@")[0]


def why(error: Exception) -> str:
    """An error's first line, fit to stand in a sentence; of a missing module also what to install."""
    line = _first_line(error)
    if not isinstance(error, ImportError) or not error.name:
        return line
    root = error.name.split(".", 1)[0]
    return f"{line}; install it: pip install {_PACKAGES.get(root, root)}"


def _first_line(error: Exception) -> str:
    """An error's first line, fit to stand in a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".;: ")[:300] if lines else type(error).__name__
