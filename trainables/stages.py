"""The stage store: content-addressed folders of finished work, shared by all trials of a storage.

A stage is computed once: into a temporary folder that is renamed when it is whole, under a lease so that two processes
do not compute it side by side. What is found is verified file by file against the digests that were recorded with it;
a stage that does not match is removed and computed anew. A training that diverged is a stage too: it is recorded as
failed with its reason, and fails at once wherever it is asked for again.

A stage may be a position on a trajectory (a training of so many steps). Its state is saved while it is computed, and
the states of all positions of a trajectory are found by each other: what was killed goes on from its last checkpoint,
and more steps continue fewer ones.
"""

from __future__ import annotations

import errno
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spaces.space import digest_of
from trainables import stage_space
from trainables.errors import DivergedError
from trainables.files import write_json
from trainables.fold_order import StageStatus
from trainables.leases import Lease, held
from trainables.results import StageRecord
from trainables.stage_checkpoints import StageCheckpoints
from trainables.stage_files import (
    MANIFEST,
    digests,
    lease_path,
    make_parts,
    new_unfinished,
    touch,
    verified,
)
from trainables.stage_space import Evicted

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
        clock: what a stage's seconds are measured by.
    """

    def __init__(
        self,
        root: Path,
        *,
        on_wait: Callable[[str], None] = lambda stage: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._root = root
        self._on_wait = on_wait
        self._clock = clock
        make_parts(root)

    def obtain(self, key: StageKey, compute: Callable[[Path], float | None], *, device: str) -> Stage:
        """Find a stage, or compute it, or wait until another process has.

        Args:
            key: identifies the stage.
            compute: writes the stage's files into the empty folder it is given; where it went on from the state of an
                earlier computation it returns the seconds that this had taken.
            device: where it computes, for the record.

        Returns:
            The finished stage; ``record.reused`` says whether it had been computed before, ``record.seconds`` what
            computing it cost, then or now, with all that it went on from.

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
        touch(folder)  # before it is read, so that nobody evicts what is being read
        manifest = verified(self._root, folder)
        if manifest is None:
            return None
        if manifest.failed is not None:
            raise DivergedError(manifest.failed)
        record = StageRecord(
            name=stage, key=digest, seconds=manifest.seconds, reused=True, peak_bytes=manifest.peak_bytes
        )
        return Stage(folder=folder, record=record)

    def status(self, key: StageKey) -> StageStatus:
        """How far a stage is; cheap, nothing is verified."""
        if (self._root / key.stage / key.digest).exists():
            return "finished"
        return "busy" if self._lease(key).is_held() else "free"

    def touch_in_order_of_eviction(self, records: Sequence[StageRecord]) -> None:
        """Mark the stages of a fold as used now, so that what was made from a stage goes before that stage.

        Images can be sampled again from a generator, and a generator without its images is as dear as both.

        Args:
            records: in the order in which they were made.
        """
        for record in reversed(records):
            touch(self._root / record.name / record.key)

    def checkpoints(self, key: StageKey) -> StageCheckpoints:
        """Where the training of a stage, whose key has a position, goes on from and is saved to."""
        return StageCheckpoints(
            self._root, stage=key.stage, trajectory=key.trajectory, digest=key.digest, clock=self._clock
        )

    def in_use(self) -> AbstractContextManager[None]:
        """Keep every stage that is obtained in the block from being evicted before its end."""
        return stage_space.in_use(self._root)

    def evict(self, limit_bytes: int) -> Evicted:
        """Remove the least recently used stages, and states of stopped trainings, until the rest is within the limit.

        Nothing that is in use goes. It looks at every stage: call it about once a minute.
        """
        return stage_space.evict(self._root, limit_bytes)

    def sweep(self) -> None:
        """Remove what processes that are gone left behind; safe while others compute."""
        stage_space.sweep(self._root)

    def _lease(self, key: StageKey) -> Lease:
        return Lease(lease_path(self._root, key.stage, key.digest))

    def _compute(self, key: StageKey, compute: Callable[[Path], float | None], device: str) -> Stage:
        unfinished = new_unfinished(self._root)
        unfinished.mkdir()
        diverged: DivergedError | None = None
        try:
            memory, inherited = _PeakMemory(device), 0.0
            start = self._clock()
            try:
                inherited = compute(unfinished) or 0.0
            except DivergedError as error:
                diverged = error
                for path in unfinished.iterdir():
                    path.unlink()
            seconds, peak_bytes = inherited + self._clock() - start, memory.bytes()
            manifest = {
                "key": asdict(key),
                "seconds": seconds,
                "peak_bytes": peak_bytes,
                "failed": str(diverged) if diverged else None,
                "device": device,
                "processor": platform.processor() or platform.machine(),
                "torch": torch.__version__,
                "host": platform.node(),
                "created": time.time(),
                "files": digests(unfinished),
            }
            write_json(unfinished / MANIFEST, manifest)
            folder = self._keep(unfinished, key)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        if key.position is not None:
            self.checkpoints(key).clear()
        if diverged is not None:
            raise diverged
        record = StageRecord(name=key.stage, key=key.digest, seconds=seconds, reused=False, peak_bytes=peak_bytes)
        return Stage(folder=folder, record=record)

    def _keep(self, unfinished: Path, key: StageKey) -> Path:
        """Give a whole stage its place; who loses the race keeps the winner's, if that is whole."""
        folder = self._root / key.stage / key.digest
        folder.parent.mkdir(exist_ok=True)
        while True:
            try:
                unfinished.rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if self.find(key.stage, key.digest) is None:
                    continue
            return folder


class _PeakMemory:
    """The GPU memory of this process from now on; that of its other work on the device counts as well.

    Args:
        device: where it computes, as ``torch.device`` has it.
    """

    def __init__(self, device: str) -> None:
        self._device = device if device.startswith("cuda") else None
        if self._device is not None:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(self._device)

    def bytes(self) -> int:
        """The most that was allocated at a time; 0 on the CPU."""
        return 0 if self._device is None else torch.cuda.max_memory_allocated(self._device)
