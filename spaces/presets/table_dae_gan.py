"""The space ``table_dae_gan``: six ways to enhance a training set, two classifiers (paper 1, table 2)."""

from __future__ import annotations

from types import MappingProxyType

from spaces.generators import AcganConfig, DaeGanConfig, DcganConfig, EganConfig, NoGeneratorConfig
from spaces.paper_table import CLASSIFIER_NAME, OrderClaim, PaperTable, Row, by_budget, chain
from spaces.parameter import Choice, Value
from spaces.presets.classifier_presets import CLASSIFIER_PRESETS
from spaces.space import GENERATOR_NAME, Dimension, Space, When

_NONE, _AFFINE, _ACGAN, _DCGAN, _EGAN, _OURS = (
    "No enhancement", "Affine transformation", "ACGAN", "DCGAN", "Evolutionary GAN", "DAE GAN",
)  # fmt: skip
_REAL = When(parent="mixer.name", values=("real",))
_BLEND = When(parent="mixer.name", values=("blend",))

TABLE_DAE_GAN = Space(
    name="table_dae_gan",
    description="Table 2 of the DAE GAN paper: six ways to enhance a training set, with ResNet50 and Xception.",
    dimensions=(
        Dimension(
            parameter=Choice(
                name=CLASSIFIER_NAME,
                options=("resnet50", "xception"),
                default="resnet50",
                open=True,
                meaning="the paper's two classifiers; --set takes any other",
            )
        ),
        Dimension(
            parameter=Choice(
                name="mixer.name",
                options=("real", "blend"),
                default="real",
                meaning="real images only, or with synthetic ones beside them",
            )
        ),
        Dimension(
            parameter=Choice(
                name=GENERATOR_NAME,
                options=(AcganConfig.name, DcganConfig.name, EganConfig.name, DaeGanConfig.name),
                default=DaeGanConfig.name,
                meaning="which model makes the synthetic images, trained on the training fold alone",
            ),
            when=_BLEND,
            otherwise=NoGeneratorConfig.name,
        ),
        Dimension(
            parameter=Choice(
                name="synthetic.ratio",
                options=(1.0,),
                default=1.0,
                meaning="synthetic images per real training image; the paper names no number",
            ),
            when=_BLEND,
        ),
        Dimension(
            parameter=Choice(
                name="affine",
                options=(False, True),
                default=False,
                meaning="classical augmentation: flips, rotations, small shifts and zooms",
            ),
            when=_REAL,
        ),
        Dimension(
            parameter=Choice(
                name="affine",
                options=(False,),
                default=False,
                meaning="off for the classifier where there are synthetic images; DAE GAN has its own, inside",
            ),
            when=_BLEND,
        ),
    ),
)


def _row(label: str, resnet50: float, xception: float, settings: dict[str, Value]) -> Row:
    published = {"resnet50": {"accuracy": resnet50}, "xception": {"accuracy": xception}}
    return Row(label=label, settings=MappingProxyType(settings), published=MappingProxyType(published))


def _blend(generator: str) -> dict[str, Value]:
    return {"mixer.name": "blend", GENERATOR_NAME: generator}


DAE_GAN_TABLE = PaperTable(
    title="Classification results of enhancement methods",
    source="the DAE GAN paper, table 2",
    space=TABLE_DAE_GAN,
    classifiers=("resnet50", "xception"),
    rows=(
        _row(_NONE, 0.7767, 0.7953, {"mixer.name": "real", "affine": False}),
        _row(_AFFINE, 0.8093, 0.8279, {"mixer.name": "real", "affine": True}),
        _row(_DCGAN, 0.8140, 0.8326, _blend(DcganConfig.name)),
        _row(_ACGAN, 0.7915, 0.8054, _blend(AcganConfig.name)),
        _row(_EGAN, 0.8288, 0.8514, _blend(EganConfig.name)),
        _row(_OURS, 0.8478, 0.8698, _blend(DaeGanConfig.name)),
    ),
    scores=("accuracy", "balanced_accuracy", "auroc"),
    claimed=("accuracy",),
    claims=(
        chain(
            "No enhancement < ACGAN < affine < DCGAN < Evolutionary GAN < DAE GAN",
            *(_NONE, _ACGAN, _AFFINE, _DCGAN, _EGAN, _OURS),
        ),
        OrderClaim(
            text="DAE GAN is above every other method",
            pairs=tuple((other, _OURS) for other in (_NONE, _AFFINE, _DCGAN, _ACGAN, _EGAN)),
        ),
    ),
    presets=MappingProxyType(
        {
            # few epochs: on a CPU one of ResNet50 takes 10 to 20 s for 700 images, and there are 300 trainings
            "standard": {**CLASSIFIER_PRESETS["dae_gan"], "classifier.epochs": 15, "classifier.patience": 4},
            "paper": CLASSIFIER_PRESETS["dae_gan"],
        }
    ),
    repeats=by_budget(quick=1, standard=5, paper=5),
    notes=(
        "The paper's sensitivities and specificities do not fit its accuracies and are not shown; its images are "
        "private, so that orders can be compared, values cannot.",
    ),
)
"""Published values: paper 1, table 2."""
