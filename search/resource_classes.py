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


_SIZES = (
    "generator.name",
    "generator.width",
    "generator.batch_size",
    "generator.latent_size",
    "generator.survivors",
    "generator.pretrained",
    "classifier.name",
    "classifier.batch_size",
    "preprocess.pixels",
)


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
    """The most that a stage of a trial with networks of the same size needed; 0: not all of them were measured."""
    peaks: dict[str, int] = {"classifier": 0, **({"generator": 0} if "generator.name" in config else {})}
    for trial in trials:
        if _sizes(trial.config) == _sizes(config):
            for stage in (stage for fold in trial.folds for stage in fold.stages):
                peaks[stage.name] = max(peaks.get(stage.name, 0), stage.peak_bytes)
    return max(peaks.values()) if peaks["classifier"] and peaks.get("generator", 1) else 0


def _sizes(config: Mapping[str, Value]) -> tuple[Value | None, ...]:
    """What memory depends on, as far as it may be searched; the rest is the budget's."""
    return tuple(config.get(name) for name in _SIZES)
