from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from search.cli import EXIT_BAD_INPUT, main
from search.storage_checks import LEAST_FREE, probe_storage
from tests.search.tiny_search import NAME
from trainables.ledger import Ledger


def test_a_usual_folder_can_hold_searches_and_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("yes")
    assert probe_storage(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert probe_storage(tmp_path / "gone") == "it does not exist there"
    assert probe_storage(tmp_path / "file") == "it is no folder"


@pytest.mark.parametrize("command", [f"refit {NAME}", f"confirm {NAME}", f"synthesize {NAME} --out made", "stages"])
@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [(errno.EROFS, EXIT_BAD_INPUT, "cannot be written (Read-only"), (errno.ENOSPC, 75, "The storage is full")],
    ids=["read only", "full"],
)
def test_commands_that_write_say_what_is_wrong_with_a_storage(
    command: str,
    wrong: int,
    code: int,
    said: str,
    tiny_search: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tiny_search.storage.parent)
    touch = Path.touch

    def refuse(self: Path, *given: int, **named: bool) -> None:
        if self.parent == tiny_search.storage:
            raise OSError(wrong, os.strerror(wrong))
        touch(self, *given, **named)

    monkeypatch.setattr(Path, "touch", refuse)
    assert main([*command.split(), "--storage", str(tiny_search.storage)]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["refit", "confirm", "ui"])
def test_a_search_that_is_tracked_elsewhere_by_now_says_how_to_name_it(
    command: str, tiny_search: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_search.write_search(replace(tiny_search.search(), tracking_uri="http://127.0.0.1:9"))
    assert main([command, NAME, "--storage", str(tiny_search.storage)]) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert f"--resume {NAME}" in said
    assert said.rstrip().endswith("--tracking-uri ADDRESS")


def test_a_file_system_without_exclusive_create_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *rest: real(path, flags & ~os.O_EXCL, *rest))
    assert probe_storage(tmp_path) == "two processes can create the same file (no exclusive create)"
    assert not list(tmp_path.iterdir())


def test_a_mounted_bucket_that_cannot_rename_over_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_replace(path: Path, target: Path) -> Path:
        raise OSError(errno.EEXIST, "File exists")

    monkeypatch.setattr(Path, "replace", no_replace)
    assert probe_storage(tmp_path) == "a file cannot replace another (atomic rename): File exists"
    assert not list(tmp_path.iterdir())


def test_a_rename_that_copies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(path: Path, target: Path) -> Path:
        target.write_bytes(path.read_bytes())
        return target

    monkeypatch.setattr(Path, "replace", copy)
    assert "no atomic rename" in str(probe_storage(tmp_path))


@pytest.mark.parametrize(("code", "refused"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_a_folder_that_cannot_be_flushed_is_refused_unless_it_needs_none(
    code: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - a descriptor, not a path
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert (probe_storage(tmp_path) is not None) == refused


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own in memory."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={LEAST_FREE // 2}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_folder_without_room_is_refused(mounted: Path) -> None:
    assert probe_storage(mounted) == "only 50 MiB are free, 100 at least are needed"


def test_a_full_folder_is_refused_and_left_clean(mounted: Path) -> None:
    with (mounted / "full").open("wb") as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(2**20))
            file.flush()
    assert probe_storage(mounted) is not None
    assert [path.name for path in mounted.iterdir()] == ["full"]


def test_a_folder_that_is_mounted_read_only_is_refused(mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    assert probe_storage(mounted) == "it cannot be written: Read-only file system"
