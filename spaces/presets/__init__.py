"""Named search spaces, one file each."""

from __future__ import annotations

from collections.abc import Mapping

from spaces.presets.dae_gan import DAE_GAN
from spaces.presets.genmix import GENMIX
from spaces.space import Space

PRESETS: Mapping[str, Space] = {space.name: space for space in (GENMIX, DAE_GAN)}
