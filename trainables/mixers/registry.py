"""The mixers by the name of their configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from spaces.config import BlendConfig, GenMixConfig, MixerConfig, MixupConfig, RealConfig
from trainables.mixers.base import Mixer
from trainables.mixers.blend import Blend
from trainables.mixers.genmix import GenMix
from trainables.mixers.mixup import Mixup
from trainables.mixers.real import Real

MIXER_VERSION = 1
"""Raised by hand when any mixer composes other batches than before; part of the classifier stage's key."""

MIXERS: Mapping[str, Callable[[Any], Mixer]] = MappingProxyType(
    {RealConfig.name: Real, BlendConfig.name: Blend, MixupConfig.name: Mixup, GenMixConfig.name: GenMix}
)


def build(config: MixerConfig) -> Mixer:
    """The mixer that a configuration describes."""
    return MIXERS[config.name](config)
