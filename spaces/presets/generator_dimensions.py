"""What is searched of each generator, for the named spaces to choose from.

Lengths and sizes that are not here stay as the budget has them.
"""

from __future__ import annotations

from spaces.generators import (
    SCRATCH,
    DaeGanConfig,
    DiffusionConfig,
    EganConfig,
    StyleganConfig,
    TextualInversionConfig,
)
from spaces.parameter import Choice, Float, Int, Parameter
from spaces.space import GENERATOR_NAME, Dimension, When

DIFFUSION_MODELS = ("google/ddpm-cifar10-32",)
"""Hub ids of pretrained diffusion models (unconditional, 32 px); apart from them, random weights."""
LATENT_DIFFUSION_MODELS = ("CompVis/ldm-text2im-large-256", "CompVis/stable-diffusion-v1-4")
"""Hub ids of latent diffusion pipelines for textual inversion."""


def _under(*generators: str) -> When:
    return When(parent=GENERATOR_NAME, values=generators)


def _dimensions(*parameters: Parameter, when: When) -> tuple[Dimension, ...]:
    return tuple(Dimension(parameter=parameter, when=when) for parameter in parameters)


GAMMA = Float(
    name="generator.gamma",
    low=0.001,
    high=0.1,
    default=0.005,
    log=True,
    meaning="weight of diversity against quality in the fitness that selects the mutated generators "
    "(published: 0.002 to 0.01 on images, 2 on toys)",
)
SURVIVORS = Int(
    name="generator.survivors",
    low=1,
    high=2,
    default=1,
    meaning="generators that survive a generation (mu); each has three children, so two cost twice as much",
)


def _discriminator_steps(default: int) -> Int:
    return Int(
        name="generator.discriminator_steps",
        low=1,
        high=3,
        default=default,
        meaning="discriminator updates per generation",
    )


MIXING_ALPHA = Float(
    name="generator.mixing_alpha",
    low=0.05,
    high=2.0,
    default=0.2,
    log=True,
    meaning="the discriminator learns from real and generated images mixed by lambda ~ Beta(alpha, alpha)",
)
COMPONENTS = Int(
    name="generator.components",
    low=2,
    high=32,
    default=8,
    log=True,
    meaning="components of the Gaussian-mixture latent (K)",
)
LATENT_SIZE = Int(
    name="generator.latent_size", low=16, high=128, default=64, log=True, meaning="length of the latent vector (d)"
)
CENTRE_RANGE = Float(
    name="generator.centre_range",
    low=0.1,
    high=4.0,
    default=1.0,
    log=True,
    meaning="the components' centres are drawn from U[-c, c]^d",
)
SIGMA = Float(
    name="generator.sigma",
    low=0.05,
    high=2.0,
    default=0.5,
    log=True,
    meaning="variance of each component",
)
MIXTURE = Choice(
    name="generator.mixture",
    options=("static", "learnt"),
    default="static",
    meaning="whether the components stay where they were drawn or are parameters of the generator",
)

EGAN = (
    *_dimensions(GAMMA, SURVIVORS, when=_under(EganConfig.name, DaeGanConfig.name)),
    *_dimensions(_discriminator_steps(EganConfig().discriminator_steps), when=_under(EganConfig.name)),
    *_dimensions(_discriminator_steps(DaeGanConfig().discriminator_steps), when=_under(DaeGanConfig.name)),
)
"""How generators evolve; the discriminator steps have a default of their own in either."""

DAE_GAN = _dimensions(
    MIXING_ALPHA, COMPONENTS, LATENT_SIZE, CENTRE_RANGE, SIGMA, MIXTURE, when=_under(DaeGanConfig.name)
)

STYLEGAN = _dimensions(
    Float(
        name="generator.r1_weight",
        low=2e-5,
        high=2e-3,
        default=2e-4,
        log=True,
        meaning="the R1 penalty's gamma is this times pixels squared / batch size",
    ),
    Choice(
        name="generator.augmentation",
        options=("ada", "diffaugment"),
        default="ada",
        meaning="what the discriminator's images go through: adaptive augmentation or DiffAugment",
    ),
    when=_under(StyleganConfig.name),
)

DIFFUSION = _dimensions(
    Int(
        name="generator.sampling_steps",
        low=2,
        high=200,
        default=12,
        log=True,
        around=2,
        meaning="DDIM steps from noise to an image",
    ),
    Float(
        name="generator.guidance",
        low=1.0,
        high=4.0,
        default=1.0,
        meaning="weight of classifier-free guidance; 1: the class's own prediction alone",
    ),
    Choice(
        name="generator.pretrained",
        options=(SCRATCH, *DIFFUSION_MODELS),
        default=SCRATCH,
        open=True,
        meaning="where the training starts: random weights (none), or a model in a folder or of a hub id",
    ),
    when=_under(DiffusionConfig.name),
)

TEXTUAL_INVERSION = _dimensions(
    Choice(
        name="generator.pretrained",
        options=LATENT_DIFFUSION_MODELS,
        default=LATENT_DIFFUSION_MODELS[0],
        open=True,
        meaning="the frozen latent diffusion pipeline, in a folder or of a hub id",
    ),
    Int(
        name="generator.tokens_per_class",
        low=1,
        high=8,
        default=4,
        log=True,
        meaning="new words for each class",
    ),
    Int(
        name="generator.steps",
        low=1,
        high=100_000,
        default=500,
        log=True,
        around=2,
        meaning="updates of the new words",
    ),
    Float(
        name="generator.strength",
        low=0.3,
        high=1.0,
        default=1.0,
        meaning="how much noise a training image is given before it is denoised with its class's words; 1: pure noise",
    ),
    when=_under(TextualInversionConfig.name),
)
