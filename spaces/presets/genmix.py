"""The space ``genmix``: how to make, evolve and mix synthetic images (papers 1 and 2)."""

from __future__ import annotations

from spaces.config import GENMIX_PARTNERS, SYNTHETIC_MIXERS
from spaces.generators import GENERATORS, DcganConfig, NoGeneratorConfig
from spaces.parameter import Choice, Float, Int
from spaces.presets.generator_dimensions import DAE_GAN, DIFFUSION, EGAN, STYLEGAN, TEXTUAL_INVERSION
from spaces.space import GENERATOR_NAME, Dimension, Space, When

GENMIX = Space(
    name="genmix",
    description="Which generator, how it is evolved, how synthetic and real images are mixed.",
    dimensions=(
        Dimension(
            parameter=Choice(
                name="mixer.name",
                options=("real", "blend", "mixup", "cutmix", "augmix", "genmix"),
                default="genmix",
                meaning="how a training batch is composed: real images, real plus synthetic, real mixed with real "
                "(mixup, or a box of it: cutmix), real beside altered versions of itself (augmix), real mixed with "
                "synthetic and real",
            )
        ),
        Dimension(
            parameter=Choice(
                name=GENERATOR_NAME,
                options=tuple(name for name in GENERATORS if name != NoGeneratorConfig.name),
                default=DcganConfig.name,
                meaning="which model makes the synthetic images, trained on the training fold alone",
            ),
            when=When(parent="mixer.name", values=SYNTHETIC_MIXERS),
            otherwise=NoGeneratorConfig.name,
        ),
        *EGAN,
        *DAE_GAN,
        *STYLEGAN,
        *DIFFUSION,
        *TEXTUAL_INVERSION,
        Dimension(
            parameter=Float(
                name="mixer.mixup_alpha",
                low=0.05,
                high=2.0,
                default=0.2,
                log=True,
                meaning="mixup: lambda ~ Beta(alpha, alpha); small values mix little",
            ),
            when=When(parent="mixer.name", values=("mixup",)),
        ),
        Dimension(
            parameter=Float(
                name="mixer.cutmix_alpha",
                low=0.2,
                high=2.0,
                default=1.0,
                log=True,
                meaning="CutMix: lambda ~ Beta(alpha, alpha), the share of an image outside the box; small values "
                "replace nearly nothing or nearly everything",
            ),
            when=When(parent="mixer.name", values=("cutmix",)),
        ),
        Dimension(
            parameter=Int(
                name="mixer.severity",
                low=1,
                high=10,
                default=3,
                meaning="AugMix: how strong its operations are at most; at 10 rotations reach 30 degrees",
            ),
            when=When(parent="mixer.name", values=("augmix",)),
        ),
        Dimension(
            parameter=Float(
                name="mixer.genmix_alpha",
                low=0.05,
                high=2.0,
                default=0.3,
                log=True,
                meaning="GenMix: lambda ~ Beta(alpha, 1) weighs the partner; small values stay close to the real image",
            ),
            when=When(parent="mixer.name", values=("genmix",)),
        ),
        Dimension(
            parameter=Choice(
                name="mixer.partner",
                options=GENMIX_PARTNERS,
                default="pool",
                meaning="GenMix: real images meet synthetic and real ones, or synthetic ones alone",
            ),
            when=When(parent="mixer.name", values=("genmix",)),
        ),
        Dimension(
            parameter=Float(
                name="synthetic.ratio",
                low=0.25,
                high=2.0,
                default=1.0,
                meaning="synthetic images per real training image",
            ),
            when=When(parent="mixer.name", values=SYNTHETIC_MIXERS),
        ),
        Dimension(
            parameter=Choice(
                name="synthetic.balance",
                options=(False, True),
                default=False,
                meaning="spend the synthetic images on the minority classes first",
            ),
            when=When(parent="mixer.name", values=SYNTHETIC_MIXERS),
        ),
        Dimension(
            parameter=Choice(
                name="affine",
                options=(False, True),
                default=False,
                meaning="classical augmentation: flips, rotations, small shifts and zooms, drawn anew each epoch",
            )
        ),
        Dimension(
            parameter=Float(
                name="classifier.learning_rate",
                low=1e-4,
                high=1e-2,
                default=1e-3,
                log=True,
                meaning="step size of the classifier's optimiser",
            )
        ),
    ),
)
