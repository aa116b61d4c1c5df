"""Named search spaces, one file each; some of them end in a table of a paper."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spaces.paper_table import PaperTable
from spaces.presets.dae_gan import DAE_GAN
from spaces.presets.genmix import GENMIX
from spaces.presets.sweep_ratio import SWEEP_RATIO, SWEEP_TABLE
from spaces.presets.table_dae_gan import DAE_GAN_TABLE, TABLE_DAE_GAN
from spaces.presets.table_genmix import GENMIX_TABLE, TABLE_GENMIX
from spaces.space import Space

PRESETS: Mapping[str, Space] = {
    space.name: space for space in (GENMIX, DAE_GAN, TABLE_DAE_GAN, TABLE_GENMIX, SWEEP_RATIO)
}

TABLES: Mapping[str, PaperTable] = MappingProxyType(
    {table.space.name: table for table in (DAE_GAN_TABLE, GENMIX_TABLE, SWEEP_TABLE)}
)
"""The tables that searches end in, by the name of their space."""
