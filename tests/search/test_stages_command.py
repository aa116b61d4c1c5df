"""The subcommand ``stages``: it lists, verifies and prunes, and takes nothing from a running search."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from search.settings import SettingsError
from search.sizes import format_bytes, parse_bytes
from search.stages_command import StagesWish, stages
from search.stages_flags import stages_parser
from trainables.errors import DivergedError
from trainables.files import write_json
from trainables.leases import Lease
from trainables.ledger import SHARED
from trainables.stages import StageKey, StageStore

HOUR = 3600.0
SIZE = 10_000


def key(stage: str, seed: int, position: int | None = None) -> StageKey:
    return StageKey(stage=stage, version=1, config={}, inputs=(), seed=seed, threads=1, position=position)


def obtain(store: StageStore, stage: str, seed: int, *, unused_for: float) -> Path:
    def compute(folder: Path) -> None:
        (folder / "file.bin").write_bytes(bytes(SIZE))

    folder = store.obtain(key(stage, seed), compute, device="cpu").folder
    when = time.time() - unused_for
    os.utime(folder / "stage.json", (when, when))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    """Two pools and a generator, used 1, 2 and 50 hours ago; two generators that diverged for one reason."""

    def diverge(folder: Path) -> None:
        raise DivergedError("The generator's loss is not finite.")

    store = StageStore(tmp_path / SHARED / "stages")
    obtain(store, "pool", 1, unused_for=HOUR)
    obtain(store, "pool", 2, unused_for=2 * HOUR)
    obtain(store, "generator", 1, unused_for=50 * HOUR)
    for seed in (8, 9):
        with pytest.raises(DivergedError):
            store.obtain(key("generator", seed), diverge, device="cpu")
    return store


def printed(capsys: pytest.CaptureFixture[str], wish: StagesWish) -> tuple[int, str]:
    code = stages(wish)
    return code, capsys.readouterr().out


def left(storage: Path) -> list[str]:
    return sorted(f"{path.parent.parent.name}" for path in (storage / SHARED / "stages").glob("*/*/file.bin"))


def test_it_lists_what_there_is_of_each_kind_what_it_cost_and_what_failed(
    store: StageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"done": torch.tensor(40), "weights": torch.zeros(2500)}
    store.checkpoints(key("generator", 3, position=100)).save(state)
    assert Lease(tmp_path / SHARED / "stages" / "leases" / "generator-x").try_acquire()
    with store.in_use():
        code, text = printed(capsys, StagesWish(storage=tmp_path))
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert [row[:3] for row in rows[:3]] == [["generator", "1", "2"], ["pool", "2", "0"], ["total", "3", "2"]]
    assert [row[5:] for row in rows[:3]] == [
        ["0 s ago", "2 d ago"], ["1.0 h ago", "2.0 h ago"], ["0 s ago", "2 d ago"]
    ]  # fmt: skip
    assert rows[3][1:] == ["2", "The generator's loss is not finite."]
    for sentence in ("1 stage is being computed", "1 training is not finished", "1 fold is running"):
        assert sentence in text


def test_it_prints_the_same_for_machines(store: StageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, StagesWish(storage=tmp_path, as_json=True))[1])
    files = [path for path in (tmp_path / SHARED / "stages").glob("*/*/*") if path.is_file()]
    assert found["total"]["bytes"] == sum(path.stat().st_size for path in files)
    assert [(each["stage"], each["finished"], each["failed"]) for each in found["stages"]] == [
        ("generator", 1, 2), ("pool", 2, 0)
    ]  # fmt: skip
    seconds = [json.loads(path.read_text())["seconds"] for path in files if path.name == "stage.json"]
    assert found["total"]["seconds"] == pytest.approx(sum(seconds))
    reason = "The generator's loss is not finite."
    assert found["failures"] == [{"stage": "generator", "reason": reason, "count": 2}]
    assert (found["computing"], found["running_folds"], found["damaged"], found["pruned"]) == (0, 0, None, None)


def test_it_names_and_removes_what_is_damaged_though_the_file_says_it_is_unchanged(
    store: StageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stages(StagesWish(storage=tmp_path, verify=True)) == 0
    assert "none is damaged" in capsys.readouterr().out
    folder = tmp_path / SHARED / "stages" / "pool" / key("pool", 1).digest
    os.utime(folder / "file.bin", (1e9, 1e9))
    assert store.find("pool", folder.name) is not None
    (folder / "file.bin").write_bytes(bytes(SIZE - 1) + b"x")
    os.utime(folder / "file.bin", (1e9, 1e9))
    code, text = printed(capsys, StagesWish(storage=tmp_path, verify=True))
    assert code == 1
    assert f"1 stage is damaged, removed, and computed again where needed:\n  pool/{folder.name}" in text
    assert left(tmp_path) == ["generator", "pool"]
    assert stages(StagesWish(storage=tmp_path, verify=True)) == 0


def test_it_prunes_by_last_use_by_size_and_altogether(
    store: StageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = printed(capsys, StagesWish(storage=tmp_path, prune=True, older_than=24 * HOUR))
    assert (code, left(tmp_path)) == (0, ["pool", "pool"])
    assert "Removed 1 stage (10." in text
    assert stages(StagesWish(storage=tmp_path, prune=True, limit=15_000)) == 0
    assert left(tmp_path) == ["pool"]
    assert store.find("pool", key("pool", 1).digest) is not None
    assert stages(StagesWish(storage=tmp_path, prune=True, everything=True)) == 0
    assert list((tmp_path / SHARED / "stages").glob("*/*")) == []


def test_it_takes_nothing_from_a_search_that_is_running(
    store: StageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "running").mkdir()
    write_json(tmp_path / "running" / "search.json", {"created": time.time() - 10 * HOUR})
    driver = Lease(tmp_path / "running" / "driver.lease")
    assert driver.try_acquire()
    _, text = printed(capsys, StagesWish(storage=tmp_path, prune=True, everything=True))
    assert left(tmp_path) == ["pool", "pool"]
    assert "Kept 4 more" in text
    driver.release()
    assert stages(StagesWish(storage=tmp_path, prune=True, everything=True)) == 0
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"prune": True}, "--prune was given without what to remove"),
        (
            {"prune": True, "everything": True, "older_than": 3.0},
            "--all removes everything, and --older-than would keep some",
        ),
        ({"limit": 5}, "--stage-limit was given without --prune"),
        ({"older_than": 5.0}, "--older-than was given without --prune"),
        ({"everything": True}, "--all was given without --prune"),
    ],
)
def test_it_refuses_to_prune_by_half_a_wish(
    store: StageStore, tmp_path: Path, wish: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        stages(StagesWish(storage=tmp_path, **wish))  # type: ignore[arg-type]
    assert left(tmp_path) == ["generator", "pool", "pool"]


def test_it_says_where_there_are_no_stages(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no stages are in"):
        stages(StagesWish(storage=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", 500_000_000), ("20GB", 20_000_000_000), ("1.5GB", 1_500_000_000), ("1TB", 10**12), ("7kb", 7_000),
        (" 3 MB ", 3_000_000), ("12B", 12),
    ],
)  # fmt: skip
def test_sizes_are_read_in_decimal_units(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "12", "GB", "0GB", "-1GB", "1GiB", "1,5GB", "nan", "1e3GB", "20 G B"])
def test_what_is_no_size_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="is no size with a unit; write 500MB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (13_240_000, "13.2 MB"), (5e15, "5000.0 TB")],
)
def test_sizes_are_written_with_few_digits(size: float, text: str) -> None:
    assert format_bytes(size) == text


def test_the_flags_say_what_they_expected(tmp_path: Path) -> None:
    given = stages_parser().parse_args(["--prune", "--stage-limit", "1.5GB", "--older-than", "30d"])
    assert (given.stage_limit, given.older_than, given.all) == (1_500_000_000, 30 * 24 * HOUR, False)
    for arguments, said in {
        ("--stage-limit", "20XB"): "write 500MB",
        ("--older-than", "30y"): "write 12h or 30d",
    }.items():
        with pytest.raises(SettingsError, match=said):
            stages_parser().parse_args(list(arguments))
