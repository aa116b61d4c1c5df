"""ImageNet weights that a classifier starts from: a local file or folder, or a hub id in the local cache."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from spaces.config import PRETRAINED_CLASSIFIERS
from spaces.generators import SCRATCH
from trainables.errors import DataError

SUFFIXES = (".safetensors", ".pth", ".bin")
"""Endings of files of weights; none is read by running code that is in it."""
IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
"""What such a file is called in a folder of the hub; the first that is there is read."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def available(architecture: str, value: str) -> str | None:
    """Say why a classifier cannot start from ``value`` here; nothing is downloaded.

    The weights' names and shapes are checked, which reads the file.

    Args:
        architecture: of ``spaces.config.CLASSIFIERS``.
        value: of ``classifier.pretrained``; "none" for random weights.

    Returns:
        None where it can; else one sentence with what is wrong and what to pass.
    """
    if value == SCRATCH:
        return None
    if architecture not in PRETRAINED_CLASSIFIERS:
        return (
            f"classifier.pretrained={value}: there are no ImageNet weights of {architecture}; set classifier.name to "
            f"one of {', '.join(PRETRAINED_CLASSIFIERS)}, or classifier.pretrained={SCRATCH}."
        )
    from trainables.classifiers.imagenet import imagenet_weights  # imports PyTorch, which nothing else here needs

    try:
        imagenet_weights(architecture, value)
    except DataError as error:
        return str(error)
    return None


def ensure(value: str | Path, *, allow_download: bool = False) -> Path:
    """Find the file of weights.

    Args:
        value: a ``.safetensors`` or ``.pth`` file, a folder as the hub has them, or a hub id such as
            "timm/resnet50.tv_in1k".
        allow_download: whether a hub id that is not in the local cache may be downloaded: only where a user named it.

    Returns:
        The file. A file or folder with that name goes before a hub id.

    Raises:
        DataError: there is no such thing, or it could not be downloaded.
    """
    path = Path(value).expanduser()
    if path.is_dir():
        return _in_folder(path, value)
    if path.is_file() and path.suffix in SUFFIXES:
        return path.resolve()
    if path.exists() or not _HUB_ID.fullmatch(str(value)):
        raise DataError(
            f"classifier.pretrained={value} is {'no file of weights' if path.exists() else 'no file and no hub id'}; "
            "expected NAME.safetensors or NAME.pth, or a hub id OWNER/NAME. Pass one of these, or "
            f"classifier.pretrained={SCRATCH}."
        )
    return _in_folder(_from_hub(str(value), allow_download=allow_download), value)


def _in_folder(folder: Path, value: str | Path) -> Path:
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise DataError(
        f"classifier.pretrained={value} has no {' or '.join(IN_FOLDERS)} in {folder}; expected one of these. Pass the "
        "file of weights itself."
    )


def _from_hub(name: str, *, allow_download: bool) -> Path:
    if find_spec("huggingface_hub") is None:
        raise DataError(
            f"classifier.pretrained={name} is a hub id, and the package huggingface_hub is not installed here. Run: "
            "pip install huggingface_hub, or pass a local file."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=not allow_download, allow_patterns=list(IN_FOLDERS)))
    except (OSError, ValueError) as error:  # not cached, no network, no such id: all of the library's are one of these
        tried = f"and could not be downloaded ({type(error).__name__})" if allow_download else "on this machine"
        raise DataError(
            f"classifier.pretrained={name} is neither a file here nor in the local hub cache {tried}. Pass a local "
            f"file, or run: hf download {name}"
        ) from error


def content_digest(value: str | Path) -> str:
    """Name weights by what is in their file, wherever it lies.

    Returns:
        32 hexadecimal digits. A file is read once in a process, and again where its size or time has changed.

    Raises:
        DataError: there is no such file.
    """
    path = ensure(value)
    status = path.stat()
    return _file_digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_digest(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
