"""What a crash may leave in a storage: what was under way, what was computed twice, what nobody has cleared away."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trainables.files import read_json
from trainables.leases import is_gone
from trainables.ledger import SHARED, Ledger
from trainables.stage_files import (
    CHECKPOINT_SUFFIX,
    CHECKPOINTS,
    LEASES,
    MANIFEST,
    UNFINISHED,
    USES,
    stage_folders,
)

_RECORDED = ("trial.json", "state.json", "fold_*.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Underway:
    """A stage that was being computed.

    Args:
        stage: its name and key.
        pid: the process that computed it.
        started: when, in seconds since the epoch.
        saved: when its last checkpoint was written, if there is one.
        position: the steps in that checkpoint.
    """

    stage: str
    pid: int
    started: float
    saved: float | None
    position: int | None

    def lost(self, now: float) -> float:
        """Seconds of computation that a kill at this moment takes away."""
        return max(0.0, now - max(self.started, self.saved or 0.0))


def underway(stages: Path) -> list[Underway]:
    """What is being computed by processes that live; exact where they are frozen."""
    if not stages.exists():
        return []
    folders = {path.name.partition(".")[2]: path for path in (stages / UNFINISHED).iterdir()}
    found = []
    for lease in (stages / LEASES).iterdir():
        with suppress(OSError, ValueError, KeyError):
            holder = json.loads(lease.read_text(encoding="utf-8"))["process"]
            if is_gone(holder):
                continue
            saved = stages / CHECKPOINTS / f"{lease.name}{CHECKPOINT_SUFFIX}"
            found.append(
                Underway(
                    stage=lease.name,
                    pid=int(holder.partition(".")[0]),
                    started=folders[holder].stat().st_mtime,
                    saved=saved.stat().st_mtime if saved.exists() else None,
                    position=_position(saved),
                )
            )
    return found


def _position(path: Path) -> int | None:
    try:
        with safe_open(path, framework="np") as file:
            return int(file.metadata()["done"])
    except (OSError, RuntimeError, SafetensorError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The record and the finished stages at one moment, as far as they must never change again.

    Args:
        files: of the ledger: time of change, inode and digest of each fold, end and configuration.
        stages: inode of each stage's manifest, and when it says that the stage was computed.
    """

    files: Mapping[str, tuple[int, int, str]]
    stages: Mapping[str, tuple[int, float]]

    @classmethod
    def take(cls, ledger: Ledger) -> Snapshot:
        """Read it. Raises: ValueError if a file of the ledger or a manifest is not whole."""
        paths = [path for pattern in _RECORDED for path in ledger.folder.glob(f"trials/*/{pattern}")]
        for path in paths:
            read_json(path)
        files = {str(path.relative_to(ledger.folder)): _state(path) for path in paths}
        root = ledger.storage / SHARED / "stages"
        stages = {}
        for folder in stage_folders(root) if root.exists() else ():
            manifest = folder / MANIFEST
            stages[f"{folder.parent.name}-{folder.name}"] = (
                manifest.stat().st_ino,
                float(read_json(manifest)["created"]),
            )
        return cls(files=files, stages=stages)

    def changed(self, later: Snapshot) -> list[str]:
        """What was there and is gone, or was written again."""
        files = [f"{name} was written again" for name, state in self.files.items() if later.files.get(name) != state]
        stages = [
            f"{name} was computed again" for name, state in self.stages.items() if later.stages.get(name) != state
        ]
        return files + stages


def _state(path: Path) -> tuple[int, int, str]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def folds_recomputed(ledger: Ledger) -> list[str]:
    """Folds that were computed once more after they were on record.

    Who computes a fold marks its stages as used, at the end its classifier, and then records it. A classifier that one
    fold alone has, and that was used after that fold was recorded, says that the fold was computed again.
    """
    users: dict[str, list[Path]] = {}
    for path in ledger.folder.glob("trials/*/fold_*.json"):
        for stage in read_json(path)["stages"]:
            if stage["name"] == "classifier":
                users.setdefault(stage["key"], []).append(path)
    found = []
    for key, paths in users.items():
        manifest = ledger.storage / SHARED / "stages" / "classifier" / key / MANIFEST
        with suppress(OSError):
            if len(paths) == 1 and manifest.stat().st_mtime_ns > paths[0].stat().st_mtime_ns:
                found.append(f"{paths[0].relative_to(ledger.folder)} was computed again after it was on record")
    return found


def stages_twice(ledger: Ledger) -> list[str]:
    """Stages that more than one fold says to have computed."""
    computed = Counter(
        f"{stage['name']}-{stage['key']}"
        for path in ledger.folder.glob("trials/*/fold_*.json")
        for stage in read_json(path)["stages"]
        if not stage["reused"]
    )
    return [f"{name} was computed {count} times" for name, count in computed.items() if count > 1]


def leftovers(ledger: Ledger) -> list[str]:
    """What an ended search may not leave behind: temporary files and folders, leases, uses, states of trainings."""
    root = ledger.storage / SHARED / "stages"
    kept = [path for part in (UNFINISHED, LEASES, USES, CHECKPOINTS) for path in (root / part).iterdir()]
    kept += [path for path in (ledger.folder / "driver.lease",) if path.exists()]
    kept += [path for path in _files(ledger.storage, but=ledger.folder / "tune") if path.suffix in (".tmp", ".next")]
    kept += [path for path in ledger.folder.glob("trials/*") if not (path / "trial.json").exists()]
    return sorted({f"{path.relative_to(ledger.storage)} is left" for path in kept})


def _files(folder: Path, *, but: Path) -> Iterable[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(at, name) != but]
        yield from (Path(at, name) for name in names)


def half_written(ledger: Ledger) -> list[str]:
    """Files of the record that cannot be read."""
    found = []
    for path in (ledger.folder / "search.json", *ledger.folder.glob("trials/*/*.json")):
        try:
            read_json(path)
        except (OSError, ValueError) as error:
            found.append(f"{path.relative_to(ledger.folder)} is not whole ({error})")
    return found


def settle(ledger: Ledger, *, patience: float = 3.0) -> list[str]:
    """What is left behind once the last processes have had some seconds to go."""
    deadline = time.monotonic() + patience
    while (found := leftovers(ledger)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
