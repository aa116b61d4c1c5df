"""The room that a stage store takes: what is in use, what was used last, and what goes first when there is too much.

A running fold holds a *use*: a lease whose name says since when. Whatever was used since the oldest use began is kept.
All times are those of files in the store, which one clock sets, its file system's; clocks of nodes are never compared.
"""

from __future__ import annotations

import math
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainables.files import discard, writer_of
from trainables.leases import Lease, held, is_gone, own_process
from trainables.stage_files import (
    CHECKPOINT_SUFFIX,
    CHECKPOINTS,
    LEASES,
    MANIFEST,
    UNFINISHED,
    USES,
    last_used,
    lease_path,
    remove_stage,
    stage_folders,
)

ABANDONED_AFTER = 14 * 86400.0
"""Seconds after which what nobody has a lease on, such as the state of a stopped training, is swept away."""
USE_BEAT_EVERY = 10.0
USE_DEAD_AFTER = 60.0
"""A use whose heartbeat stood still for so long, by the store's clock, has no fold any more."""
_COARSEST = 2_000_000_000
"""Nanoseconds to which the coarsest file systems round the time of a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What takes room in a store: a finished stage's folder, or the file with the state of a stopped training.

    Args:
        path: of the folder or file.
        bytes: what removing it frees: files that lie elsewhere under a second name count nothing.
        used: when it was last used, in nanoseconds of the store's clock.
        bare: whether it has a manifest alone, as a training that diverged: it takes no room and saves computing.
    """

    path: Path
    bytes: int
    used: int
    bare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """What an eviction removed; what it kept because it is in use, though its turn had come; what is left in all."""

    count: int = 0
    bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    left_bytes: int = 0


def store_clock(root: Path) -> int:
    """The time on the store's clock, in nanoseconds: that of a file just written there."""
    probe = root / USES / f".{uuid.uuid4().hex}.{own_process()}.tmp"
    try:
        probe.write_bytes(b"0")
        return probe.stat().st_mtime_ns
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def in_use(root: Path) -> Iterator[None]:
    """Keep every stage that is used from now on until the end of the block.

    A use that another host took for dead, after this one stood still for long, is there again with the next beat.
    """
    use = Lease(root / USES / f"{store_clock(root)}-{uuid.uuid4().hex}")
    use.try_acquire()
    with held(use, beat_every=USE_BEAT_EVERY, retake=True):
        yield


def uses(root: Path) -> list[int]:
    """Since when each running fold uses stages, in nanoseconds of the store's clock; uses of dead ones are removed."""
    now = store_clock(root)
    found = []
    for path in (root / USES).iterdir():
        since = path.name.partition("-")[0]
        if not since.isdecimal() or path.suffix:
            continue
        if is_live(path, now):
            found.append(int(since))
        else:
            path.unlink(missing_ok=True)
    return found


def is_live(path: Path, now: int) -> bool:
    """Whether the holder of a lease runs on this host, or its heartbeat, by the store's clock, goes on."""
    age, lives = _age(path, now), Lease(path).lives()
    return age is not None and (age < USE_DEAD_AFTER if lives is None else lives)


def _age(path: Path, now: int) -> float | None:
    """Seconds since a file changed; None if it has gone."""
    try:
        return (now - path.lstat().st_mtime_ns) / 1e9
    except OSError:
        return None


def entries(root: Path) -> list[Entry]:
    """What takes room, the least recently used first."""
    found = [entry for folder in stage_folders(root) if (entry := _stage_entry(folder)) is not None]
    for path in _checkpoints(root):
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append(Entry(path=path, bytes=status.st_size, used=status.st_mtime_ns))
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def _stage_entry(folder: Path) -> Entry | None:
    try:
        files = {path.name: path.stat() for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return None
    manifest = files.get(MANIFEST)
    return Entry(
        path=folder,
        bytes=sum(status.st_size for status in files.values() if status.st_nlink == 1),
        used=manifest.st_mtime_ns if manifest is not None else 0,
        bare=set(files) == {MANIFEST},
    )


def _checkpoints(root: Path) -> list[Path]:
    return [path for path in (root / CHECKPOINTS).glob(f"*{CHECKPOINT_SUFFIX}") if not path.name.startswith(".")]


def _lease_of(root: Path, checkpoint: Path) -> Path:
    stage, _, digest = checkpoint.name.removesuffix(CHECKPOINT_SUFFIX).partition("-")
    return lease_path(root, stage, digest)


def evict(root: Path, limit_bytes: float, *, unused_for: float = math.inf, keep_since: float = math.inf) -> Evicted:
    """Remove the least recently used stages, and states of stopped trainings, until the rest is within the limit.

    Nothing goes that a running fold has used, nor the state of a running training. Several processes may evict at
    once, and one that is killed leaves a store that works. It looks at every stage: call it about once a minute.

    Args:
        root: of the store.
        limit_bytes: what may be left.
        unused_for: seconds; what was not used for so long goes whatever the limit.
        keep_since: seconds since the epoch, by the store's clock; what was used since then is kept.
    """
    now = store_clock(root)
    found = entries(root)
    # after the look at the stages: who used one before it had said so, who uses one later is noticed on removal
    protected = min([*uses(root), keep_since * 1e9]) - _COARSEST
    left = wanted = sum(entry.bytes for entry in found)
    count = freed = kept = kept_bytes = 0
    for entry in found:
        is_due = (now - entry.used) / 1e9 >= unused_for or (wanted > limit_bytes and not entry.bare)
        if not is_due or _is_training(root, entry.path, now):
            continue
        if entry.used >= protected:
            kept, kept_bytes, wanted = kept + 1, kept_bytes + entry.bytes, wanted - entry.bytes
        elif _remove(root, entry):
            count, freed = count + 1, freed + entry.bytes
            left, wanted = left - entry.bytes, wanted - entry.bytes
        elif not entry.path.exists():  # another process was faster
            left, wanted = left - entry.bytes, wanted - entry.bytes
    return Evicted(count=count, bytes=freed, kept=kept, kept_bytes=kept_bytes, left_bytes=left)


def _is_training(root: Path, path: Path, now: int) -> bool:
    return path.parent.name == CHECKPOINTS and is_live(_lease_of(root, path), now)


def _remove(root: Path, entry: Entry) -> bool:
    """Remove an entry unless it was used since it was looked at."""
    try:
        if entry.path.parent.name == CHECKPOINTS:
            entry.path.unlink()
            return True
        # looked at once more out of reach: who touched it before that has found it, who comes later does not
        unused = last_used(entry.path) <= entry.used
        return unused and remove_stage(root, entry.path, only_if=lambda aside: last_used(aside) <= entry.used)
    except OSError:  # another user's, or gone
        return False


def sweep(root: Path) -> None:
    """Remove what processes that are gone left behind; safe while others compute.

    Of processes of this host that is everything at once; of other hosts what is ``ABANDONED_AFTER`` old.
    """
    now = store_clock(root)
    for left in (root / UNFINISHED).iterdir():
        if is_gone(left.name.partition(".")[2]) or _is_old(left, now):
            shutil.rmtree(left, ignore_errors=True)
    for left in (*(root / LEASES).iterdir(), *(root / USES).iterdir()):
        Lease(left).free_if_gone()
        if _is_old(left, now):
            left.unlink(missing_ok=True)
    for left in (*(root / CHECKPOINTS).glob(".*.tmp"), *(root / USES).glob(".*.tmp")):
        if is_gone(writer_of(left)) or _is_old(left, now):
            discard(left)
    for left in _checkpoints(root):
        if not is_live(_lease_of(root, left), now) and (_is_old(left, now) or _is_finished(root, left)):
            left.unlink(missing_ok=True)
    uses(root)


def _is_old(path: Path, now: int) -> bool:
    age = _age(path, now)
    return age is not None and age >= ABANDONED_AFTER


def _is_finished(root: Path, checkpoint: Path) -> bool:
    """Whether the stage that a state belongs to is there; its own state is then with it."""
    stage, _, digest = checkpoint.name.removesuffix(CHECKPOINT_SUFFIX).partition("-")
    return (root / stage / digest).exists()
