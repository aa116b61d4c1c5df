"""The states of a training that is a position on a trajectory: what was stopped goes on from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

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
            if done > steps:
                continue
            if path.name == TRAINING_FILE:
                touch(path.parent)
                if not is_whole(path):
                    continue
            with suppress(*_UNREADABLE):
                state = load_file(path)
                self.inherited = _seconds(path)
                return state
        return None

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Keep a state, whose tensor ``done`` is its position, in place of the last one; atomic."""
        save_state(self._own, state, seconds=self.inherited + self._clock() - self._began)

    def clear(self) -> None:
        """Remove the state of this stage: it is finished."""
        self._own.unlink(missing_ok=True)


def save_state(path: Path, state: Mapping[str, Tensor], *, seconds: float | None = None) -> None:
    """Write named tensors, among them ``done``, so that a reader sees the old file, or the whole new one.

    ``seconds`` is what computing them took; a finished stage has that in its manifest, and equal bytes without it.
    """
    spent = {} if seconds is None else {"seconds": str(seconds)}
    with written_aside(path) as aside:
        save_file(dict(state), aside, metadata={"done": str(int(state["done"])), **spent})


def _seconds(path: Path) -> float:
    """What a saved state had cost to compute; 0 where that is not on record."""
    try:
        if path.name == TRAINING_FILE:
            return float(read_json(path.with_name(MANIFEST))["seconds"])
        with safe_open(path, framework="pt") as file:
            return float(file.metadata()["seconds"])
    except (*_UNREADABLE, KeyError, TypeError, ValueError):
        return 0.0


def _done(path: Path) -> int | None:
    """The position of a saved state; None if the file is not one, or has gone."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.metadata()["done"])
    except (*_UNREADABLE, KeyError, TypeError, ValueError):
        return None
