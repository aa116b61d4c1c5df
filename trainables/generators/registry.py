"""All generators by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from spaces.config import GeneratorConfig
from trainables.generators.base import Generator
from trainables.generators.dcgan import Dcgan
from trainables.generators.egan import Egan
from trainables.generators.none import NoGenerator

GENERATORS: Mapping[str, type[Any]] = MappingProxyType({"none": NoGenerator, "dcgan": Dcgan, "egan": Egan})
"""Each is constructed with its configuration, ``spaces.config.GENERATORS`` of the same name."""


def build(config: GeneratorConfig) -> Generator:
    """The untrained generator of a configuration."""
    generator: Generator = GENERATORS[config.name](config)
    return generator
