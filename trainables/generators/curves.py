"""The curves of a training: recorded at every step, looked at every few steps, so that a lost training ends early."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.errors import DivergedError
from trainables.generators.base import History

CHECKED_EVERY = 25
JUDGED_FROM = 100
"""Steps from which a training is judged by what it has led to."""
WON_BELOW = 1e-3
"""A discriminator that has had this loss, or found images this likely to be real, over the last quarter of a training
has left the generator nothing to learn."""
SIGNS_OF_DEFEAT = ("discriminator_loss", "quality/minimax", "quality/heuristic", "quality/least_squares")
"""Curves in which a discriminator that has won shows."""


class Curves:
    """Numbers by name, one scalar or vector per step."""

    def __init__(self, *names: str) -> None:
        self._pending: dict[str, list[Tensor]] = {name: [] for name in names}
        self._lists: dict[str, list[float] | list[list[float]]] = {name: [] for name in names}
        self._steps = 0

    def record(self, *values: Tensor) -> None:
        """Append one scalar or vector per name.

        Raises: DivergedError if a value is not finite, or the discriminator has won; at the latest ``CHECKED_EVERY``
            records later.
        """
        for pending, value in zip(self._pending.values(), values, strict=True):
            pending.append(value.detach())
        self._steps += 1
        if self._steps % CHECKED_EVERY == 0:
            self._flush()
            check_contest(self._lists)

    def lists(self) -> History:
        """All that was recorded, by name. Raises: DivergedError if a value is not finite."""
        self._flush()
        return self._lists

    def state(self) -> dict[str, Tensor]:
        """The curves as float64 tensors."""
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in self.lists().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        for name in self._lists:
            self._pending[name].clear()
            self._lists[name] = state[name].tolist()
            self._steps = len(self._lists[name])

    def _flush(self) -> None:
        for name, pending in self._pending.items():
            if not pending:
                continue
            values = torch.stack(pending).double()
            pending.clear()
            lost_T = ~values.isfinite().flatten(1).all(1) if values.ndim > 1 else ~values.isfinite()
            if bool(lost_T.any()):
                first = int(lost_T.nonzero()[0])
                raise DivergedError(
                    f"the training diverged: {name} was {values[first].tolist()} "
                    f"in step {len(self._lists[name]) + first + 1}; expected finite numbers. Lower "
                    "generator.learning_rate."
                )
            self._lists[name] += values.tolist()


def check_contest(curves: History) -> None:
    """Check that the discriminator has not won.

    Args:
        curves: of one training so far. Fewer steps than ``JUDGED_FROM`` are not judged, curves of other names neither.

    Raises:
        DivergedError: over the last quarter (at least ``JUDGED_FROM`` steps) it tells every generated image from the
            real ones.
    """
    shown = [name for name in SIGNS_OF_DEFEAT if name in curves]
    steps = min((len(curves[name]) for name in shown), default=0)
    if steps < JUDGED_FROM:
        return
    last = max(JUDGED_FROM, steps // 4)
    means = {name: float(torch.tensor(curves[name][-last:], dtype=torch.float64).mean()) for name in shown}
    quality = {name: value for name, value in means.items() if name != "discriminator_loss"}
    lost = [name for name in ("discriminator_loss",) if name in means and means[name] < WON_BELOW]
    if quality and max(quality.values()) < WON_BELOW:
        lost.append(max(quality, key=lambda name: quality[name]))
    if lost:
        raise DivergedError(
            f"the discriminator has won and the generator makes noise: over the last {last} of {steps} steps the mean "
            f"{lost[0]} was {means[lost[0]]:.2g}; expected at least {WON_BELOW}. Lower generator.learning_rate, or set "
            "generator.spectral_norm or generator.augmentation."
        )
