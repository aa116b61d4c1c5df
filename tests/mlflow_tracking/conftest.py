"""An SQLite tracking database per test, copied from one whose tables were made once."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

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


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved during the test, in order; they are written as well."""
    saved: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, path: Path) -> None:
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", remember)
    return saved


def texts(figure: Figure) -> list[str]:
    """What is written on a figure and its parts; what was written on the figure itself is in that order."""
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
