"""The states of a training that is a position on a trajectory: what was stopped goes on from them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables.files import read_json, written_aside
from trainables.stage_files import CHECKPOINT_SUFFIX, CHECKPOINTS, MANIFEST, is_whole, touch

TRAINING_FILE = "training.safetensors"
"""In the folder of a stage with a position: the state from which more steps go on."""
_UNREADABLE = (OSError, SafetensorError, RuntimeError)
"""Where a state has gone or is damaged; PyTorch raises a RuntimeError where a file vanishes while it is opened."""


class StageCheckpoints:
    """The states of a trajectory: of its finished stages, and of those being computed.

    Args:
        root: of the store.
        stage: the stage's name.
        trajectory: what all its positions share.
        digest: the key of the position that is computed.
        clock: what its seconds are measured by, from now on.

    ``inherited`` is what the state that ``latest`` gave had cost to compute, in seconds.
    """

    def __init__(
        self,
        root: Path,
        *,
        stage: str,
        trajectory: str,
        digest: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._began = clock()
        self.inherited = 0.0
        self._stages = root / stage
        self._folder = root / CHECKPOINTS
        self._trajectory = trajectory
        self._own = self._folder / f"{stage}-{digest}{CHECKPOINT_SUFFIX}"
        self._pattern = f"{stage}-{trajectory}-*{CHECKPOINT_SUFFIX}"

    def latest(self, steps: int) -> Mapping[str, Tensor] | None:
        """The state that is furthest without being beyond ``steps``; None if there is none that can be read."""
        finished = (folder / TRAINING_FILE for folder in self._stages.glob(f"{self._trajectory}-*"))
        found = [(done, path) for path in (*finished, *self._folder.glob(self._pattern)) if (done := _done(path))]
        for done, path in sorted(found, reverse=True):
            state = self._read(path) if done <= steps else None
            # looked at once more: another process may have saved a further one since
            if state is not None and int(state["done"]) <= steps:
                self.inherited = _seconds(path)
                return state
        return None

    def _read(self, path: Path) -> Mapping[str, Tensor] | None:
        """A state; None where it has gone, or is not the one that was written."""
        is_finished = path.name == TRAINING_FILE
        if is_finished:
            touch(path.parent)
            if not is_whole(path):
                return None
        with suppress(*_UNREADABLE):
            state = load_file(path)
            if is_finished or _metadata(path).get("digest") == _digest(state):
                return state
        return None

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Keep a state, whose tensor ``done`` is its position, in place of the last one; atomic."""
        seconds = self.inherited + self._clock() - self._began
        _write(self._own, state, {"seconds": str(seconds), "digest": _digest(state)})

    def clear(self) -> None:
        """Remove the state of this stage: it is finished."""
        self._own.unlink(missing_ok=True)


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write the state of a finished stage: named tensors, among them ``done``; equal states are equal bytes."""
    _write(path, state, {})


def _write(path: Path, state: Mapping[str, Tensor], further: Mapping[str, str]) -> None:
    """Write named tensors so that a reader sees the old file, or the whole new one."""
    with written_aside(path) as aside:
        save_file(dict(state), aside, metadata={"done": str(int(state["done"])), **further})


def _digest(state: Mapping[str, Tensor]) -> str:
    """BLAKE2b over named tensors: a state that a disk has changed is not gone on from."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        hasher.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        hasher.update(values.flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _seconds(path: Path) -> float:
    """What a saved state had cost to compute; 0 where that is not on record."""
    try:
        if path.name == TRAINING_FILE:
            return float(read_json(path.with_name(MANIFEST))["seconds"])
        return float(_metadata(path)["seconds"])
    except (*_UNREADABLE, KeyError, TypeError, ValueError):
        return 0.0


def _done(path: Path) -> int | None:
    """The position of a saved state; None if the file is not one, or has gone."""
    try:
        return int(_metadata(path)["done"])
    except (*_UNREADABLE, KeyError, TypeError, ValueError):
        return None
