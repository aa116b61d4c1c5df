"""How much there is to compute in a stage: what its seconds are in proportion to, roughly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spaces.budget import Budget
from spaces.config import SYNTHETIC_MIXERS, TrialConfig, as_dict, trial_config
from spaces.generators import TrainedConfig


def generator_work(settings: Mapping[str, Any], *, steps: int, pixels: int) -> float:
    """Of a generator's training: steps, images of a step, channels, area.

    Args:
        settings: of the generator.
        steps: of its training.
        pixels: edge of an image.
    """
    return float(steps * settings.get("batch_size", 1) * settings.get("width", 1) * pixels**2)


def classifier_work(*, epochs: int, images: int, pixels: int) -> float:
    """Of a classifier's training: epochs, training images, area."""
    return float(epochs * images * pixels**2)


class RelativeWork:
    """How many times as much a configuration computes as one of a budget's own settings.

    Args:
        budget: whose settings those are.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._own: dict[str, TrialConfig] = {}

    def __call__(self, stage: str, config: TrialConfig) -> float:
        """Of one stage; what depends on neither area nor length counts as the budget's."""
        return _work(stage, config) / _work(stage, self.own(config.generator.name))

    def own(self, generator: str) -> TrialConfig:
        """A configuration of the budget's own settings. Raises: ConfigError if there is no such generator."""
        if generator not in self._own:
            given = {"mixer.name": SYNTHETIC_MIXERS[0], "generator.name": generator} if generator != "none" else {}
            self._own[generator] = trial_config(given, self._budget)
        return self._own[generator]


def _work(stage: str, config: TrialConfig) -> float:
    area, generator = config.preprocess.pixels**2, config.generator
    if stage == "classifier":
        return classifier_work(epochs=config.classifier.epochs, images=1, pixels=config.preprocess.pixels)
    if stage == "generator" and isinstance(generator, TrainedConfig):
        return generator_work(as_dict(generator), steps=generator.steps, pixels=config.preprocess.pixels)
    if stage == "pool":
        return float(area * getattr(generator, "sampling_steps", 1))
    return float(area) if stage in ("extractor", "fidelity") else 1.0
