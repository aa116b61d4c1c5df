"""Where the files of a stage store lie, and whether a stage's files are the ones that were written.

    STORE/STAGE/DIGEST/             a finished stage: its files and its manifest
    STORE/unfinished/               stages being written, and what is being removed
    STORE/leases/STAGE-DIGEST       who is computing what
    STORE/checkpoints/              states of trainings that are not finished
    STORE/uses/                     which running folds read stages, and since when

A manifest's time of change is when its stage was last used.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.files import read_json
from trainables.leases import own_process

MANIFEST = "stage.json"
LEASES = "leases"
UNFINISHED = "unfinished"
CHECKPOINTS = "checkpoints"
USES = "uses"
PARTS = (LEASES, UNFINISHED, CHECKPOINTS, USES)
CHECKPOINT_SUFFIX = ".safetensors"

_SETTLED_SECONDS = 2.0
_DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESTALE, errno.EIO})
_hashed: dict[tuple[int, int, int, int], str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was recorded with a stage when it was computed.

    Args:
        seconds: what computing it took.
        failed: why the training diverged; None if it did not.
        peak_bytes: of GPU memory while it was computed; 0 if unknown.
        created: seconds since the epoch, by the clock of who computed it.
        files: the digest of each file.
    """

    seconds: float
    failed: str | None
    peak_bytes: int
    created: float
    files: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest in a stage's folder. Raises: OSError, or ValueError if it is not one."""
        data: Any = read_json(folder / MANIFEST)
        try:
            return cls(
                seconds=float(data["seconds"]),
                failed=data.get("failed"),
                peak_bytes=int(data.get("peak_bytes", 0)),
                created=float(data.get("created", 0.0)),
                files=dict(data["files"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"'{folder / MANIFEST}' is no manifest of a stage; remove its folder.") from error


def make_parts(root: Path) -> None:
    """Create the folders that are no stages'."""
    for part in PARTS:
        (root / part).mkdir(parents=True, exist_ok=True)


def stage_folders(root: Path) -> Iterator[Path]:
    """The folders of all finished stages, whole or damaged."""
    for kind in sorted(root.iterdir()):
        if kind.name not in PARTS and kind.is_dir():
            with suppress(FileNotFoundError):
                yield from sorted(kind.iterdir())


def lease_path(root: Path, stage: str, digest: str) -> Path:
    """The lease on computing a stage."""
    return root / LEASES / f"{stage}-{digest}"


def is_whole(path: Path) -> bool:
    """Whether a file of a finished stage is the one that was recorded with it."""
    try:
        return Manifest.read(path.parent).files[path.name] == _digest(path)
    except (OSError, ValueError, KeyError):
        return False


def digests(folder: Path, *, fresh: bool = False) -> dict[str, str]:
    """BLAKE2b of every file but the manifest, by name."""
    return {path.name: _digest(path, fresh=fresh) for path in sorted(folder.iterdir()) if path.name != MANIFEST}


def _digest(path: Path, *, fresh: bool = False) -> str:
    """BLAKE2b of a file, read once per process and state of the file.

    A file that is written again, or replaced, has another time of change, size or inode and is read again; so is every
    file in a new process, which finds what changed without a trace, as on a failing disk. A file that has just been
    written is not remembered: a second writing within one tick of the file system's clock would leave the same time.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = None if fresh else _hashed.get(state)
        if known is not None:
            return known
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    if time.time() - status.st_mtime > _SETTLED_SECONDS:
        _hashed[state] = found
    return found


def touch(folder: Path) -> None:
    """Record that a stage is used now, by the clock of the storage; a storage that cannot, forgets it sooner."""
    with suppress(OSError):
        os.utime(folder / MANIFEST)


def last_used(folder: Path) -> int:
    """When a stage was last used, in nanoseconds of the storage's clock; 0 if it has no manifest.

    The file is opened, since network file systems answer from memory until then.
    """
    try:
        with (folder / MANIFEST).open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0


def new_unfinished(root: Path) -> Path:
    """A path under ``unfinished`` that nobody else uses, and that is swept away once this process is gone."""
    return root / UNFINISHED / f"{uuid.uuid4().hex}.{own_process()}"


def remove_stage(root: Path, folder: Path, *, only_if: Callable[[Path], bool]) -> bool:
    """Take a stage out of the store in one step, then delete it; a process killed meanwhile leaves it to the sweep.

    Args:
        root: of the store.
        folder: the stage's.
        only_if: asked once the stage is out of reach; False puts it back.

    Returns: whether this call removed it.
    """
    aside = new_unfinished(root)
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return False
    if not only_if(aside):
        with suppress(OSError):  # it has been computed again in the meantime
            aside.rename(folder)
            return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def verified(
    root: Path, folder: Path, *, fresh: bool = False, on_damage: Callable[[], None] = lambda: None
) -> Manifest | None:
    """The manifest of a stage whose files are all as they were written; None if there is none, or it was damaged.

    A damaged stage is removed.

    Args:
        root: of the store.
        folder: the stage's.
        fresh: read every file again, whatever this process has read before.
        on_damage: called when a damaged stage was removed.

    Raises: OSError if the storage refuses to be read.
    """
    if not folder.exists():
        return None
    manifest = _whole_manifest(folder, fresh=fresh)
    # looked at once more out of reach: it may have been evicted, or computed again, while it was read
    if manifest is None and remove_stage(root, folder, only_if=lambda aside: _whole_manifest(aside) is None):
        on_damage()
    return manifest


def _whole_manifest(folder: Path, *, fresh: bool = False) -> Manifest | None:
    try:
        manifest = Manifest.read(folder)
        return manifest if manifest.files == digests(folder, fresh=fresh) else None
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        return None
    except ValueError:
        return None
