"""The stage store: content-addressed folders of finished work, shared by all trials of a storage.

A stage is computed once: into a temporary folder that is renamed when it is whole, under a lease so that two processes
do not compute it side by side. What is found is verified file by file against the digests that were recorded with it;
a stage that does not match is set aside and computed anew. A training that diverged is a stage too: it is recorded as
failed with its reason, and fails at once wherever it is asked for again.

A stage may be a position on a trajectory (a training of so many steps). Its state is saved while it is computed, and
the states of all positions of a trajectory are found by each other: what was killed goes on from its last checkpoint,
and more steps continue fewer ones.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from spaces.space import digest_of
from trainables.errors import DivergedError
from trainables.files import read_json, write_json
from trainables.leases import Lease, held, is_gone, own_process
from trainables.results import StageRecord

TRAINING_FILE = "training.safetensors"
"""In the folder of a stage with a position: the state from which more steps go on."""
CHECKPOINTS = "checkpoints"
StageStatus: TypeAlias = Literal["finished", "busy", "free"]
"""How far a stage is: there, being computed, or neither."""
_MANIFEST = "stage.json"
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKey:
    """Everything that a stage's bytes depend on.

    Args:
        stage: the stage's name, such as "generator"; also the folder under which it lies.
        version: the stage's ``STAGE_VERSION``, raised by hand when its numbers change.
        config: the stage's slice of the configuration, plain data.
        inputs: keys of the stages before it, or digests of the data it starts from.
        seed: the stage's random stream.
        threads: CPU threads it computes with (sums are ordered by it).
        position: where the stage is a position on a trajectory, its number of steps.
    """

    stage: str
    version: int
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    seed: int
    threads: int
    position: int | None = None

    @property
    def trajectory(self) -> str:
        """32 hexadecimal digits, the same for all positions."""
        return digest_of({**asdict(self), "position": None}, digits=32)

    @property
    def digest(self) -> str:
        """The trajectory, and the position where there is one."""
        return self.trajectory if self.position is None else f"{self.trajectory}-{self.position}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A finished stage: its folder and its record for the trial that uses it."""

    folder: Path
    record: StageRecord


class StageStore:
    """Finished stages under ``root``.

    Args:
        root: a folder that all processes of the search share.
        on_wait: called with the stage's name about ten times a second while another process computes it; may raise
            to give up waiting.
    """

    def __init__(self, root: Path, *, on_wait: Callable[[str], None] = lambda stage: None) -> None:
        self._root = root
        self._on_wait = on_wait
        for part in ("leases", "unfinished", CHECKPOINTS):
            (root / part).mkdir(parents=True, exist_ok=True)

    def obtain(self, key: StageKey, compute: Callable[[Path], None], *, device: str) -> Stage:
        """Find a stage, or compute it, or wait until another process has.

        Args:
            key: identifies the stage.
            compute: writes the stage's files into the empty folder it is given.
            device: where it computes, for the record.

        Returns:
            The finished stage; ``record.reused`` says whether it had been computed before, ``record.seconds`` what
            computing it cost, then or now.

        Raises:
            DivergedError: as ``compute`` raises it, now or when the stage was first computed.
            Whatever else ``compute`` raises; nothing is stored then.
        """
        lease = self._lease(key)
        while True:
            found = self.find(key.stage, key.digest)
            if found is not None:
                return found
            if lease.try_acquire():
                break
            self._on_wait(key.stage)
            time.sleep(_POLL_SECONDS)
        with held(lease):
            found = self.find(key.stage, key.digest)
            return found or self._compute(key, compute, device)

    def find(self, stage: str, digest: str) -> Stage | None:
        """The stage of that name and key, verified; None if there is none or it was damaged (then it is removed).

        Raises: DivergedError if it is recorded as failed.
        """
        folder = self._root / stage / digest
        if not folder.exists():
            return None
        try:
            manifest = read_json(folder / _MANIFEST)
            intact = manifest["files"] == _digests(folder)
            failed, seconds = manifest.get("failed"), manifest["seconds"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            self._discard(folder)
            return None
        if failed is not None:
            raise DivergedError(failed)
        return Stage(folder=folder, record=StageRecord(name=stage, key=digest, seconds=seconds, reused=True))

    def status(self, key: StageKey) -> StageStatus:
        """How far a stage is; cheap, nothing is verified."""
        if (self._root / key.stage / key.digest).exists():
            return "finished"
        return "busy" if self._lease(key).is_held() else "free"

    def checkpoints(self, key: StageKey) -> StageCheckpoints:
        """Where the training of a stage, whose key has a position, goes on from and is saved to."""
        return StageCheckpoints(self._root, key)

    def _lease(self, key: StageKey) -> Lease:
        return Lease(self._root / "leases" / f"{key.stage}-{key.digest}")

    def _compute(self, key: StageKey, compute: Callable[[Path], None], device: str) -> Stage:
        unfinished = self._root / "unfinished" / f"{uuid.uuid4().hex}.{own_process()}"
        unfinished.mkdir()
        diverged: DivergedError | None = None
        try:
            start = time.perf_counter()
            try:
                compute(unfinished)
            except DivergedError as error:
                diverged = error
                for path in unfinished.iterdir():
                    path.unlink()
            seconds = time.perf_counter() - start
            manifest = {
                "key": asdict(key),
                "seconds": seconds,
                "failed": str(diverged) if diverged else None,
                "device": device,
                "processor": platform.processor() or platform.machine(),
                "torch": torch.__version__,
                "host": platform.node(),
                "created": time.time(),
                "files": _digests(unfinished),
            }
            write_json(unfinished / _MANIFEST, manifest)
            folder = self._keep(unfinished, key)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        if key.position is not None:
            self.checkpoints(key).clear()
        if diverged is not None:
            raise diverged
        record = StageRecord(name=key.stage, key=key.digest, seconds=seconds, reused=False)
        return Stage(folder=folder, record=record)

    def _keep(self, unfinished: Path, key: StageKey) -> Path:
        """Give a whole stage its place; who loses the race keeps the winner's."""
        folder = self._root / key.stage / key.digest
        folder.parent.mkdir(exist_ok=True)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        return folder

    def _discard(self, folder: Path) -> None:
        aside = self._root / "unfinished" / f"{uuid.uuid4().hex}.{own_process()}"
        with suppress(FileNotFoundError):
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what processes of this host that are gone left behind; safe while others compute."""
        for left in (self._root / "unfinished").iterdir():
            if is_gone(left.name.partition(".")[2]):
                shutil.rmtree(left, ignore_errors=True)
        for left in (self._root / "leases").iterdir():
            Lease(left).free_if_gone()
        for left in (self._root / CHECKPOINTS).glob(".*.tmp"):
            if is_gone(left.name.partition(".safetensors.")[2].partition(".")[2].removesuffix(".tmp")):
                left.unlink(missing_ok=True)


class StageCheckpoints:
    """The states of a trajectory: of its finished stages, and of those being computed.

    Args:
        root: of the store.
        key: the stage that is computed; has a position.
    """

    def __init__(self, root: Path, key: StageKey) -> None:
        self._stages = root / key.stage
        self._folder = root / CHECKPOINTS
        self._trajectory = key.trajectory
        self._own = self._folder / f"{key.stage}-{key.digest}.safetensors"
        self._pattern = f"{key.stage}-{key.trajectory}-*.safetensors"

    def latest(self, steps: int) -> Mapping[str, Tensor] | None:
        """The state that is furthest without being beyond ``steps``; None if there is none that can be read."""
        finished = (folder / TRAINING_FILE for folder in self._stages.glob(f"{self._trajectory}-*"))
        found = [(done, path) for path in (*finished, *self._folder.glob(self._pattern)) if (done := _done(path))]
        for done, path in sorted(found, reverse=True):
            if done <= steps and (path.name != TRAINING_FILE or _is_intact(path)):
                with suppress(OSError, SafetensorError):
                    return load_file(path)
        return None

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Keep a state, whose tensor ``done`` is its position, in place of the last one; atomic."""
        save_state(self._own, state)

    def clear(self) -> None:
        """Remove the state of this stage: it is finished."""
        self._own.unlink(missing_ok=True)


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write named tensors, among them ``done``, so that a reader sees the old file, or the whole new one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.{own_process()}.tmp")
    try:
        save_file(dict(state), temporary, metadata={"done": str(int(state["done"]))})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_intact(path: Path) -> bool:
    """Whether a file of a finished stage is the one that was recorded with it."""
    try:
        return bool(read_json(path.with_name(_MANIFEST))["files"][path.name] == _digest(path))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _done(path: Path) -> int | None:
    """The position of a saved state; None if the file is not one, or has gone."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.metadata()["done"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _digests(folder: Path) -> dict[str, str]:
    """BLAKE2b of every file but the manifest, by name."""
    digests: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name == _MANIFEST:
            continue
        digests[path.name] = _digest(path)
    return digests


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
