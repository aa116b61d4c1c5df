"""Making room for a search: a name is taken once, and freed where the search was killed before it was recorded."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from search.settings import SettingsError
from search.storage import reserve


def grown_old(folder: Path) -> None:
    long_ago = time.time() - 3600
    os.utime(folder, (long_ago, long_ago))


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    assert reserve(tmp_path, "mine", "genmix") == tmp_path / "mine"
    with pytest.raises(SettingsError, match="--name 'mine' is in use"):
        reserve(tmp_path, "mine", "genmix")


def test_searches_without_a_name_get_different_ones(tmp_path: Path) -> None:
    assert len({reserve(tmp_path, None, "genmix") for _ in range(3)}) == 3


def test_the_folder_of_a_search_that_was_killed_before_it_was_recorded_is_taken_over(tmp_path: Path) -> None:
    folder = reserve(tmp_path, "mine", "genmix")
    (folder / "locked.json").write_text("{}")
    with pytest.raises(SettingsError):
        reserve(tmp_path, "mine", "genmix")
    grown_old(folder)
    assert reserve(tmp_path, "mine", "genmix") == folder
    assert not list(folder.iterdir())


@pytest.mark.parametrize("content", ["search.json", "notes.txt"])
def test_a_folder_that_holds_anything_else_is_never_taken_over(tmp_path: Path, content: str) -> None:
    folder = reserve(tmp_path, "mine", "genmix")
    (folder / content).write_text("kept")
    grown_old(folder)
    with pytest.raises(SettingsError):
        reserve(tmp_path, "mine", "genmix")
    assert (folder / content).read_text() == "kept"
