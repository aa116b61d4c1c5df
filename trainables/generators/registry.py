"""All generators by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from spaces.generators import GeneratorConfig
from trainables.generators import dcgan, egan, none
from trainables.generators.base import Generator

GENERATORS: Mapping[str, type[Any]] = MappingProxyType(
    {"none": none.NoGenerator, "dcgan": dcgan.Dcgan, "egan": egan.Egan}
)
"""Each is constructed with its configuration, ``spaces.config.GENERATORS`` of the same name."""

STAGE_VERSIONS: Mapping[str, int] = MappingProxyType(
    {"none": none.STAGE_VERSION, "dcgan": dcgan.STAGE_VERSION, "egan": egan.STAGE_VERSION}
)
"""Each generator's version: raised when its numbers change, part of the key of its stages."""


def build(config: GeneratorConfig) -> Generator:
    """The untrained generator of a configuration."""
    generator: Generator = GENERATORS[config.name](config)
    return generator
