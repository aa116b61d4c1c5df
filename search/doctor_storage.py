"""Checks of the folder of searches, and of the shared memory that Ray uses."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from search.doctor_finding import Finding, fine, wary, wrong
from search.sizes import format_bytes
from search.storage_checks import probe_storage
from spaces.budget import Budget

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "beegfs", "gpfs", "ceph", "glusterfs", "9p", "afs")
_IN_MEMORY = ("tmpfs", "ramfs")
_NEEDED: Mapping[str, float] = MappingProxyType({"quick": 1e9, "standard": 10e9, "paper": 200e9})
"""Bytes of stages, roughly and rather too many, that a search of a budget leaves with its own number of trials."""
_LITTLE_SHARED = 0.5e9


def storage_works(storage: Path) -> Finding:
    """Whether the folder can hold searches; one that is not there yet is judged by the folder it would lie in."""
    folder = existing(storage)
    lacking = probe_storage(folder)
    if lacking is not None:
        return wrong(f"{folder} cannot hold searches ({lacking}); name another folder with --storage")
    where = f"{storage.resolve()}" if folder == storage.resolve() else f"{storage.resolve()}, which will be created"
    return fine(f"{where}: files can be written, replaced atomically and created exclusively")


def kind_of_storage(storage: Path) -> Finding:
    """On which file system the folder lies."""
    kind, mount = file_system(existing(storage), _mounts())
    if kind in _IN_MEMORY:
        return wary(f"{kind} at {mount}: searches are gone when the machine restarts; name a folder on a disk")
    if kind == "overlay":
        return wary(f"overlay at {mount}: searches are gone with the container; name a mounted folder with --storage")
    if is_network(kind):
        return fine(f"{kind} at {mount}, which several machines can share; keep an SQLite tracking database off it")
    return fine(f"{kind} at {mount}: nodes of a cluster on other machines would not see it")


def room(storage: Path, budget: Budget) -> Finding:
    """Whether there is room for a search of the budget."""
    free = shutil.disk_usage(existing(storage)).free
    needed = _NEEDED.get(budget.name, 0.0)
    if free < needed:
        return wary(
            f"{format_bytes(free)} are free, and a search of the budget {budget.name} may take {format_bytes(needed)}: "
            f"give --stage-limit {max(1, int(free / 2e9))}GB, or make room"
        )
    return fine(
        f"{format_bytes(free)} are free; a search of the budget {budget.name} takes up to {format_bytes(needed)}"
    )


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108 - looked at, not written to
    """Whether Ray has room for what its processes share."""
    if not folder.is_dir():
        return wary(f"{folder} is not there; Ray uses a folder on the disk instead, which is slower")
    size = shutil.disk_usage(folder).free
    if size < _LITTLE_SHARED:
        return wary(f"{format_bytes(size)} are free in {folder}; start the container with --shm-size=1g")
    return fine(f"{format_bytes(size)} are free in {folder}")


def existing(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    found = folder.resolve()
    while not found.exists() and found != found.parent:
        found = found.parent
    return found


def is_network(kind: str) -> bool:
    """Whether a kind of file system lies on another machine, as mounted buckets do too."""
    return kind in NETWORK or kind.startswith("fuse.")


def file_system(folder: Path, mounts: str) -> tuple[str, str]:
    """The kind of the file system that a folder lies on, and where that is mounted.

    Args:
        folder: absolute.
        mounts: the content of ``/proc/mounts``.
    """
    best = ("unknown", "/")
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= len(best[1]):
            best = fields[2], point
    return best


def network_of(folder: Path) -> str | None:
    """The kind of network file system that a folder lies on; None for a local one."""
    kind, _ = file_system(existing(folder), _mounts())
    return kind if is_network(kind) else None


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
