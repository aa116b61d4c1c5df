"""The space ``sweep_ratio``: the score against the proportion of synthetic images, for each generator (paper 1)."""

from __future__ import annotations

from types import MappingProxyType

from spaces.config import BlendConfig, RealConfig
from spaces.generators import (
    AcganConfig,
    DaeGanConfig,
    DcganConfig,
    DiffusionConfig,
    EganConfig,
    NoGeneratorConfig,
    StyleganConfig,
)
from spaces.paper_table import OrderClaim, PaperTable, Row, by_budget, fixed
from spaces.parameter import Choice
from spaces.presets.classifier_presets import CLASSIFIER_PRESETS
from spaces.space import GENERATOR_NAME, Dimension, Space, When

GENERATORS = {
    DcganConfig.name: "DCGAN",
    AcganConfig.name: "ACGAN",
    EganConfig.name: "Evolutionary GAN",
    DaeGanConfig.name: "DAE GAN",
    StyleganConfig.name: "StyleGAN",
    DiffusionConfig.name: "Diffusion Model",
}
RATIOS = (0.25, 0.5, 1.0, 1.5, 2.0)
_BASELINE = "Real images only"
_BLEND = When(parent="mixer.name", values=(BlendConfig.name,))

SWEEP_RATIO = Space(
    name="sweep_ratio",
    description="How the score depends on the proportion of synthetic images, for each generator.",
    dimensions=(
        Dimension(
            parameter=Choice(
                name="mixer.name",
                options=(RealConfig.name, BlendConfig.name),
                default=BlendConfig.name,
                meaning="real images only, or with synthetic ones beside them",
            )
        ),
        Dimension(
            parameter=Choice(
                name=GENERATOR_NAME,
                options=tuple(GENERATORS),
                default=DcganConfig.name,
                meaning="which model makes the synthetic images, trained on the training fold alone",
            ),
            when=_BLEND,
            otherwise=NoGeneratorConfig.name,
        ),
        Dimension(
            parameter=Choice(
                name="synthetic.ratio",
                options=RATIOS,
                default=1.0,
                meaning="synthetic images per real training image",
            ),
            when=_BLEND,
        ),
        fixed("affine", False, "no classical augmentation"),
    ),
)


def _label(generator: str, ratio: float) -> str:
    return f"{GENERATORS[generator]}, ratio {ratio:g}"


SWEEP_TABLE = PaperTable(
    title="Influence of the proportion of synthetic images",
    source="the DAE GAN paper, its question on the proportion",
    space=SWEEP_RATIO,
    classifiers=(),
    rows=(
        Row(label=_BASELINE, settings=MappingProxyType({"mixer.name": RealConfig.name})),
        *(
            Row(
                label=_label(generator, ratio),
                settings=MappingProxyType(
                    {"mixer.name": BlendConfig.name, GENERATOR_NAME: generator, "synthetic.ratio": ratio}
                ),
            )
            for generator in GENERATORS
            for ratio in RATIOS
        ),
    ),
    scores=("balanced_accuracy", "auroc", "accuracy"),
    claimed=("balanced_accuracy",),
    claims=(
        OrderClaim(
            text="As many synthetic images as real ones are better than none, for every generator",
            pairs=tuple((_BASELINE, _label(generator, 1.0)) for generator in GENERATORS),
        ),
        OrderClaim(
            text="Twice as many synthetic images as real ones are better than a quarter, for every generator",
            pairs=tuple((_label(generator, 0.25), _label(generator, 2.0)) for generator in GENERATORS),
        ),
    ),
    presets=MappingProxyType({"paper": CLASSIFIER_PRESETS["dae_gan"]}),
    repeats=by_budget(quick=1, standard=2, paper=5),
    metric="balanced_accuracy",
)
"""The paper asks for this and prints no numbers; its table 2 is ``table_dae_gan``."""
