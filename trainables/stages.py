"""The stage store: content-addressed folders of finished work, shared by all trials of a storage.

A stage is computed once: into a temporary folder that is renamed when it is whole, under a lease so that two processes
do not compute it side by side. What is found is verified file by file against the digests that were recorded with it;
a stage that does not match is set aside and computed anew.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spaces.space import digest_of
from trainables.files import read_json, write_json
from trainables.leases import Lease, held, is_gone, own_process
from trainables.results import StageRecord

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
    """

    stage: str
    version: int
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    seed: int
    threads: int

    @property
    def digest(self) -> str:
        """32 hexadecimal digits."""
        return digest_of(asdict(self), digits=32)


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
        for part in ("leases", "unfinished"):
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
            Whatever ``compute`` raises; nothing is stored then.
        """
        lease = Lease(self._root / "leases" / f"{key.stage}-{key.digest}")
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
        """The stage of that name and key, verified; None if there is none or it was damaged (then it is removed)."""
        folder = self._root / stage / digest
        if not folder.exists():
            return None
        try:
            manifest = read_json(folder / _MANIFEST)
            if manifest["files"] == _digests(folder):
                record = StageRecord(name=stage, key=digest, seconds=manifest["seconds"], reused=True)
                return Stage(folder=folder, record=record)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        self._discard(folder)
        return None

    def _compute(self, key: StageKey, compute: Callable[[Path], None], device: str) -> Stage:
        folder = self._root / key.stage / key.digest
        unfinished = self._root / "unfinished" / f"{uuid.uuid4().hex}.{own_process()}"
        unfinished.mkdir()
        try:
            start = time.perf_counter()
            compute(unfinished)
            seconds = time.perf_counter() - start
            manifest = {
                "key": asdict(key),
                "seconds": seconds,
                "device": device,
                "processor": platform.processor() or platform.machine(),
                "torch": torch.__version__,
                "host": platform.node(),
                "created": time.time(),
                "files": _digests(unfinished),
            }
            write_json(unfinished / _MANIFEST, manifest)
            folder.parent.mkdir(exist_ok=True)
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        record = StageRecord(name=key.stage, key=key.digest, seconds=seconds, reused=False)
        return Stage(folder=folder, record=record)

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


def _digests(folder: Path) -> dict[str, str]:
    """BLAKE2b of every file but the manifest, by name."""
    digests: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name == _MANIFEST:
            continue
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return digests
