"""The space ``dae_gan``: which part of DAE GAN does what (paper 1's parts, each switched off on its own)."""

from __future__ import annotations

from spaces.config import BlendConfig
from spaces.generators import MIXTURES, DaeGanConfig
from spaces.parameter import Choice
from spaces.space import GENERATOR_NAME, Dimension, Space, When

_DAE_GAN = When(parent=GENERATOR_NAME, values=(DaeGanConfig.name,))


def _switch(name: str, meaning: str) -> Dimension:
    return Dimension(parameter=Choice(name=name, options=(False, True), default=True, meaning=meaning), when=_DAE_GAN)


DAE_GAN = Space(
    name="dae_gan",
    description="Which of DAE GAN's parts helps: an ablation (with --sampler grid, of all combinations).",
    dimensions=(
        Dimension(
            parameter=Choice(
                name="mixer.name",
                options=(BlendConfig.name,),
                default=BlendConfig.name,
                meaning="how a training batch is composed: real plus synthetic images",
            )
        ),
        Dimension(
            parameter=Choice(
                name=GENERATOR_NAME,
                options=(DaeGanConfig.name,),
                default=DaeGanConfig.name,
                meaning="which model makes the synthetic images, trained on the training fold alone",
            ),
            when=When(parent="mixer.name", values=(BlendConfig.name,)),
        ),
        _switch("generator.residual", "residual blocks in both networks; off: DCGAN's layers"),
        _switch("generator.attention", "one self-attention module in each network"),
        Dimension(
            parameter=Choice(
                name="generator.mixture",
                options=MIXTURES,
                default="static",
                meaning="Gaussian-mixture latent, its components as drawn or learnt; off: a standard normal one",
            ),
            when=_DAE_GAN,
        ),
        _switch("generator.mixed_input", "the discriminator learns from real and generated images mixed"),
        Dimension(
            parameter=Choice(
                name="generator.affine_copies",
                options=(0, 4),
                default=4,
                meaning="transformed copies of each training image that the generator learns from too; 0: none",
            ),
            when=_DAE_GAN,
        ),
    ),
)
