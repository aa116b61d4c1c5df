"""An SQLite tracking database per test, copied from one whose tables were made once."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from mlflow_tracking.connect import check_server


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    with warnings.catch_warnings():  # the tracker's own use of its database library
        warnings.simplefilter("ignore", DeprecationWarning)
        check_server(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
