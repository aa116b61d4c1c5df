"""All generators by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from spaces.config import as_dict
from spaces.generators import SCRATCH, GeneratorConfig, TrainedConfig, training_part
from trainables.generators import acgan, dae_gan, dcgan, diffusion, egan, none, stylegan, textual_inversion, wgan_gp
from trainables.generators.base import Generator

GENERATORS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "none": none.NoGenerator,
        "dcgan": dcgan.Dcgan,
        "acgan": acgan.Acgan,
        "wgan_gp": wgan_gp.WganGp,
        "egan": egan.Egan,
        "dae_gan": dae_gan.DaeGan,
        "stylegan": stylegan.Stylegan,
        "diffusion": diffusion.Diffusion,
        "textual_inversion": textual_inversion.TextualInversion,
    }
)
"""Each is constructed with its configuration, ``spaces.generators.GENERATORS`` of the same name."""

STAGE_VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "none": none.STAGE_VERSION,
        "dcgan": dcgan.STAGE_VERSION,
        "acgan": acgan.STAGE_VERSION,
        "wgan_gp": wgan_gp.STAGE_VERSION,
        "egan": egan.STAGE_VERSION,
        "dae_gan": dae_gan.STAGE_VERSION,
        "stylegan": stylegan.STAGE_VERSION,
        "diffusion": diffusion.STAGE_VERSION,
        "textual_inversion": textual_inversion.STAGE_VERSION,
    }
)
"""Each generator's version: raised when its numbers change, part of the key of its stages."""


def build(config: GeneratorConfig) -> Generator:
    """The untrained generator of a configuration."""
    generator: Generator = GENERATORS[config.name](config)
    return generator


def training_slice(config: TrainedConfig) -> Mapping[str, Any]:
    """What of a configuration a training's numbers depend on, except how long it is.

    Weights that it starts from are named by their content, wherever they lie.
    """
    settings = as_dict(training_part(config))
    settings.pop("steps")
    if settings.get("pretrained", SCRATCH) != SCRATCH:
        from trainables.generators.pretrained import content_digest

        settings["pretrained"] = content_digest(settings["pretrained"])
    return settings
