"""The space ``table_genmix``: eleven ways to use real and synthetic images, with VGG-16 (paper 2, table 1)."""

from __future__ import annotations

from types import MappingProxyType

from spaces.config import SYNTHETIC_MIXERS
from spaces.generators import DcganConfig, DiffusionConfig, NoGeneratorConfig, StyleganConfig, TextualInversionConfig
from spaces.paper_table import CLASSIFIER_NAME, PIPELINE, GainClaim, OrderClaim, PaperTable, Row, by_budget, fixed
from spaces.parameter import Choice, Value
from spaces.presets.classifier_presets import CLASSIFIER_PRESETS
from spaces.presets.generator_dimensions import LATENT_DIFFUSION_MODELS
from spaces.space import GENERATOR_NAME, Dimension, Space, When

_GENERATORS = {
    DcganConfig.name: "DCGAN",
    StyleganConfig.name: "StyleGAN",
    TextualInversionConfig.name: "Textual Inversion",
    DiffusionConfig.name: "Diffusion Model",
}
_GAINS = tuple((label, f"GenMix ({label})") for label in _GENERATORS.values())


def _under(*mixers: str) -> When:
    return When(parent="mixer.name", values=mixers)


def _constant(name: str, value: Value, meaning: str, when: When) -> Dimension:
    return Dimension(parameter=Choice(name=name, options=(value,), default=value, meaning=meaning), when=when)


TABLE_GENMIX = Space(
    name="table_genmix",
    description="Table 1 of the GenMix paper: eleven ways to use real and synthetic images, with VGG-16.",
    dimensions=(
        Dimension(
            parameter=Choice(
                name=CLASSIFIER_NAME,
                options=("vgg16",),
                default="vgg16",
                open=True,
                meaning="the paper's classifier; --set takes any other",
            )
        ),
        Dimension(
            parameter=Choice(
                name="mixer.name",
                options=("real", "mixup", "augmix", "blend", "genmix"),
                default="real",
                meaning="how a training batch is composed",
            )
        ),
        Dimension(
            parameter=Choice(
                name=GENERATOR_NAME,
                options=tuple(_GENERATORS),
                default=DcganConfig.name,
                meaning="which model makes the synthetic images, trained on the training fold alone",
            ),
            when=_under(*SYNTHETIC_MIXERS),
            otherwise=NoGeneratorConfig.name,
        ),
        Dimension(
            parameter=Choice(
                name=PIPELINE,
                options=LATENT_DIFFUSION_MODELS[:1],
                default=LATENT_DIFFUSION_MODELS[0],
                open=True,
                meaning="the frozen latent diffusion pipeline, in a folder or of a hub id; the paper's was trained on "
                "LAION-400M",
            ),
            when=When(parent=GENERATOR_NAME, values=(TextualInversionConfig.name,)),
        ),
        _constant("synthetic.ratio", 1.0, "synthetic images per real training image", _under(*SYNTHETIC_MIXERS)),
        _constant("synthetic.balance", False, "as many of a class as there are real ones", _under(*SYNTHETIC_MIXERS)),
        _constant("mixer.mixup_alpha", 0.2, "mixup: lambda ~ Beta(alpha, alpha); the paper is silent", _under("mixup")),
        _constant("mixer.genmix_alpha", 0.3, "GenMix: lambda ~ Beta(alpha, 1) weighs the partner", _under("genmix")),
        _constant("mixer.partner", "pool", "GenMix: real images meet synthetic and real ones", _under("genmix")),
        fixed("affine", False, "no classical augmentation"),
    ),
)


def _row(label: str, accuracy: float, macro_f1: float, settings: dict[str, Value]) -> Row:
    published = {"vgg16": {"accuracy": accuracy, "macro_f1": macro_f1}}
    return Row(label=label, settings=MappingProxyType(settings), published=MappingProxyType(published))


def _made(mixer: str, generator: str) -> dict[str, Value]:
    return {"mixer.name": mixer, GENERATOR_NAME: generator}


GENMIX_TABLE = PaperTable(
    title="Performance comparison for various data augmentation methods",
    source="the GenMix paper, table 1",
    space=TABLE_GENMIX,
    classifiers=("vgg16",),
    rows=(
        _row("Baseline (Real)", 0.723, 0.607, {"mixer.name": "real"}),
        _row("MixUp (Real)", 0.741, 0.617, {"mixer.name": "mixup"}),
        _row("AugMix (Real)", 0.705, 0.609, {"mixer.name": "augmix"}),
        _row("DCGAN", 0.720, 0.600, _made("blend", DcganConfig.name)),
        _row("StyleGAN", 0.759, 0.639, _made("blend", StyleganConfig.name)),
        _row("Textual Inversion", 0.720, 0.605, _made("blend", TextualInversionConfig.name)),
        _row("Diffusion Model", 0.756, 0.656, _made("blend", DiffusionConfig.name)),
        _row("GenMix (DCGAN)", 0.769, 0.634, _made("genmix", DcganConfig.name)),
        _row("GenMix (StyleGAN)", 0.808, 0.696, _made("genmix", StyleganConfig.name)),
        _row("GenMix (Textual Inversion)", 0.814, 0.706, _made("genmix", TextualInversionConfig.name)),
        _row("GenMix (Diffusion Model)", 0.798, 0.693, _made("genmix", DiffusionConfig.name)),
    ),
    scores=("accuracy", "macro_f1", "balanced_accuracy"),
    claimed=("accuracy", "macro_f1"),
    claims=(
        OrderClaim(
            text="GenMix with a generator is above that generator's plain images, for every generator", pairs=_GAINS
        ),
        GainClaim(text="GenMix gains most with the least faithful generator", pairs=_GAINS),
        OrderClaim(
            text="GenMix is above no augmentation, for every generator",
            pairs=tuple(("Baseline (Real)", with_genmix) for _, with_genmix in _GAINS),
        ),
    ),
    presets=MappingProxyType(
        {
            # steps of eight images cost a CPU nearly as much as steps of 32: the weights are what takes the time
            "standard": {
                **CLASSIFIER_PRESETS["genmix"],
                "classifier.epochs": 12,
                "classifier.patience": 4,
                "classifier.batch_size": 32,
            },
            "paper": CLASSIFIER_PRESETS["genmix"],
        }
    ),
    repeats=by_budget(quick=1, standard=1, paper=5),
    notes=(
        "The paper trained once, on one fixed split. Its StyleGAN row has 40 % synthetic images (ratio 2/3); "
        "all rows here have as many synthetic images as real ones.",
        "The paper's VGG-16 starts from ImageNet weights, which --set classifier.pretrained=FILE does too, and its "
        "diffusion model from a pretrained one, where this one starts from random weights.",
        "The paper's specificities are defined in two ways and are not shown; its images are private, so that orders "
        "can be compared, values cannot.",
    ),
)
"""Published values: paper 2, table 1, accuracy and F1 in percent there."""
