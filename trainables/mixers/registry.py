"""The mixers by the name of their configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from spaces.config import (
    AugmixConfig,
    BlendConfig,
    CutmixConfig,
    GenMixConfig,
    MixerConfig,
    MixupConfig,
    RealConfig,
)
from trainables.mixers.augmix import Augmix
from trainables.mixers.base import Mixer
from trainables.mixers.blend import Blend
from trainables.mixers.cutmix import Cutmix
from trainables.mixers.genmix import GenMix
from trainables.mixers.mixup import Mixup
from trainables.mixers.real import Real

MIXER_VERSION = 1
"""Raised by hand when any mixer composes other batches than before; part of the classifier stage's key."""

MIXERS: Mapping[str, Callable[[Any], Mixer]] = MappingProxyType(
    {
        RealConfig.name: Real,
        BlendConfig.name: Blend,
        MixupConfig.name: Mixup,
        CutmixConfig.name: Cutmix,
        AugmixConfig.name: Augmix,
        GenMixConfig.name: GenMix,
    }
)


def build(config: MixerConfig) -> Mixer:
    """The mixer that a configuration describes."""
    return MIXERS[config.name](config)
