"""What one machine of a cluster sees of storage, packages, code and images; sent there, it needs no library."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from search.storage_checks import probe_storage

PACKAGES = ("spaces", "trainables", "mlflow_tracking", "search")
"""This project's own."""
NONCE = "nonce"
"""The file that the driver has written into the probe folder."""
PYTHON = "python"
"""Stands for the interpreter among the packages."""
MISSING = "not installed"
"""Stands for the version of a package that is not there."""
_SAMPLES = 16
_SAMPLE_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What one node sees.

    Args:
        there: whether the folder of searches can be seen.
        nonce: what the file says that the driver has written into it; None if the node does not see that file.
        exclusive: whether the node is refused when it creates that file, which is there, once more.
        lacking: what ``probe_storage`` misses; None if nothing.
        file_system: the kind of file system that the folder lies on, as ``nfs4``.
        versions: of the packages asked for; "not installed" for those that are not there.
        sources: digest of this project's own source files.
        sources_at: the folder of its package ``search``.
        cohort: digest of the decoded images; None if they cannot be read, or where there are none.
    """

    there: bool
    nonce: str | None
    exclusive: bool
    lacking: str | None
    file_system: str
    versions: Mapping[str, str]
    sources: str
    sources_at: str
    cohort: str | None


def look(storage: Path, cohort_folder: Path | None, names: Sequence[str], *, probe: Path) -> NodeReport:
    """What this machine sees; it needs nothing but the standard library.

    Args:
        storage: the folder of searches.
        cohort_folder: the decoded images.
        names: of packages whose versions count.
        probe: a folder in the storage, in which the driver has written a file ``nonce``.
    """
    nonce = read_text(probe / NONCE)
    return NodeReport(
        there=_is_folder(storage),
        nonce=nonce,
        exclusive=nonce is None or not _creates(probe / NONCE),
        lacking=probe_storage(storage) if nonce is not None else None,
        file_system=file_system(storage),
        versions={name: _version(name) for name in names},
        sources=sources_digest(),
        sources_at=str(_folder_of("search")),
        cohort=None if cohort_folder is None else cohort_digest(cohort_folder),
    )


def sources_digest() -> str:
    """Digest of the Python files of this project's packages, as a new import in this process would find them."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in PACKAGES:
        folder = _folder_of(name)
        files = sorted(folder.rglob("*.py")) if folder is not None else []
        for file in files:
            content = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
            hasher.update(f"{name}/{file.relative_to(folder or file).as_posix()} {content}\n".encode())
    return hasher.hexdigest()


def cohort_digest(folder: Path) -> str | None:
    """Digest of a cohort's table, and of the size and parts of its pixels: all of those of a small one.

    Returns:
        None if they cannot be read.
    """
    hasher = hashlib.blake2b(digest_size=16)
    try:
        hasher.update((folder / "cohort.json").read_bytes())
        with (folder / "pixels.npy").open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            hasher.update(str(size).encode())
            for number in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                hasher.update(file.read(_SAMPLE_BYTES))
    except OSError:
        return None
    return hasher.hexdigest()


def file_system(folder: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that a folder lies on, as ``nfs4``, ``tmpfs`` or ``overlay``.

    Returns:
        "unknown file system" where the kernel does not say.

    Source: proc(5), "mountinfo".
    """
    kind, longest = "unknown file system", -1
    with suppress(OSError, ValueError, IndexError):
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            point = before.split(" ")[4].replace("\\040", " ")
            if folder.is_relative_to(point) and len(point) >= longest:
                kind, longest = after.split(" ")[0], len(point)
    return kind


def look_and_answer(
    node: str, storage: Path, cohort_folder: Path | None, names: Sequence[str], probe: Path
) -> NodeReport:
    """What runs on each node: look, and leave a file for the driver to find."""
    report = look(storage, cohort_folder, names, probe=probe)
    if report.nonce is not None:
        with suppress(OSError):
            (probe / node).write_text(report.nonce, encoding="utf-8")
    return report


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a folder above it may not be entered
        return False


def _creates(path: Path) -> bool:
    """Whether a file that is there can be created once more: its file system then has no exclusive create."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:
        return False
    return True


def read_text(path: Path) -> str | None:
    """What a small file says; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _version(name: str) -> str:
    if name == PYTHON:
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def _folder_of(package: str) -> Path | None:
    """Where a package would be imported from."""
    found = importlib.util.find_spec(package)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(places[0]) if places else None
