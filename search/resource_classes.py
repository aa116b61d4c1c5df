"""How much of a GPU a trial gets: a share, or a whole one; no more classes, or processes could not be reused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spaces.parameter import Value
from trainables.results import TrialResult

SHARE = 0.25
"""Of a GPU, for trials that are known to be small."""
HEADROOM = 1.3
"""Times what was measured a trial must have room for: pools of other sizes, the GPU context of its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceClasses:
    """The two shares of a GPU that trials are given; both 0 on the CPU, equal where the user fixed one.

    Args:
        share: of trials that are known to fit into it.
        whole: of all others.
        gpu_bytes: memory of a GPU; 0 where it is not known, and nothing is then known to fit.
    """

    share: float
    whole: float
    gpu_bytes: int = 0

    def gpus(self, config: Mapping[str, Value], trials: Iterable[TrialResult], *, lacked_memory: bool) -> float:
        """The share of a GPU that a trial gets.

        Args:
            config: the trial.
            trials: of the search so far; what their stages were measured to need says what this one will.
            lacked_memory: whether it ran out of memory before.
        """
        if self.share == self.whole or lacked_memory:
            return self.whole
        needed = _peak_bytes(config, trials)
        return self.share if 0 < needed * HEADROOM <= self.share * self.gpu_bytes else self.whole


def _peak_bytes(config: Mapping[str, Value], trials: Iterable[TrialResult]) -> int:
    """The most that a stage of a trial with the same generator and classifier was measured to need; 0: none was."""
    return max(
        (
            stage.peak_bytes
            for trial in trials
            if _networks(trial.config) == _networks(config)
            for fold in trial.folds
            for stage in fold.stages
        ),
        default=0,
    )


def _networks(config: Mapping[str, Value]) -> tuple[Value | None, ...]:
    return config.get("generator.name"), config.get("classifier.name")
