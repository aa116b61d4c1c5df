"""Typed configuration of one trial; the only place where flat dictionaries become typed values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from spaces.budget import Budget
from spaces.errors import ConfigError, nearest, require
from spaces.generators import GENERATORS, SCRATCH, GeneratorConfig, NoGeneratorConfig
from spaces.parameter import Value
from spaces.space import Assignment, digest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """Crop, intensity scaling and size; percentiles are fitted on the training fold (paper 1, section 4.1)."""

    pixels: int = 32
    low_percentile: float = 0.5
    high_percentile: float = 99.5

    def __post_init__(self) -> None:
        require(
            16 <= self.pixels <= 512 and self.pixels % 16 == 0,
            "preprocess.pixels",
            self.pixels,
            "a multiple of 16, 16 to 512",
        )
        require(
            0 <= self.low_percentile < self.high_percentile <= 100,
            "preprocess.low_percentile / high_percentile",
            (self.low_percentile, self.high_percentile),
            "0 <= low < high <= 100",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticConfig:
    """How many synthetic images a trial takes from the pool (methods: pool).

    ``ratio`` is synthetic / real; ``balance`` fills minority classes first.
    """

    ratio: float = 1.0
    balance: bool = False

    def __post_init__(self) -> None:
        require(0 < self.ratio <= 2, "synthetic.ratio", self.ratio, "more than 0, at most 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealConfig:
    """Real images only."""

    name: ClassVar[str] = "real"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendConfig:
    """Real and synthetic images together, unmixed."""

    name: ClassVar[str] = "blend"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixupConfig:
    """Mixup of real with real images, lambda ~ Beta(alpha, alpha) (Zhang et al. 2018)."""

    name: ClassVar[str] = "mixup"
    mixup_alpha: float = 0.2

    def __post_init__(self) -> None:
        require(0 < self.mixup_alpha <= 10, "mixer.mixup_alpha", self.mixup_alpha, "more than 0, at most 10")


@dataclass(frozen=True, slots=True, kw_only=True)
class CutmixConfig:
    """CutMix of real with real images: a box of the partner, its area from Beta(alpha, alpha) (Yun et al. 2019)."""

    name: ClassVar[str] = "cutmix"
    cutmix_alpha: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.cutmix_alpha <= 10, "mixer.cutmix_alpha", self.cutmix_alpha, "more than 0, at most 10")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmixConfig:
    """AugMix of real images: chains of operations, mixed, and a consistency loss (Hendrycks et al. 2020).

    ``depth`` 0 draws each chain's length from 1 to 3; ``js_weight`` 0 trains on the augmented images alone.
    """

    name: ClassVar[str] = "augmix"
    width: int = 3
    depth: int = 0
    severity: int = 3
    js_weight: float = 12.0

    def __post_init__(self) -> None:
        require(1 <= self.width <= 10, "mixer.width", self.width, "1 to 10")
        require(0 <= self.depth <= 10, "mixer.depth", self.depth, "1 to 10, or 0 (drawn from 1 to 3)")
        require(1 <= self.severity <= 10, "mixer.severity", self.severity, "1 to 10")
        require(0 <= self.js_weight <= 100, "mixer.js_weight", self.js_weight, "0 to 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenMixConfig:
    """GenMix: lambda ~ Beta(alpha, 1) weighs a partner from the pool or from synthetic images alone (Lee et al. 2024).

    ``partner`` "pool" is synthetic and real images together; "synthetic" is the paper's equation 1.
    """

    name: ClassVar[str] = "genmix"
    genmix_alpha: float = 0.3
    partner: str = "pool"

    def __post_init__(self) -> None:
        require(0 < self.genmix_alpha <= 10, "mixer.genmix_alpha", self.genmix_alpha, "more than 0, at most 10")
        if self.partner not in GENMIX_PARTNERS:
            raise ConfigError(f"mixer.partner is '{self.partner}'; {nearest(self.partner, GENMIX_PARTNERS)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """The classifier and its training.

    ``patience`` is the number of epochs without a lower validation loss after which training stops (0: never);
    ``pretrained`` a file or hub id with ImageNet weights; ``amp`` bfloat16 autocast on a GPU, nothing on a CPU.
    ``schedule_epochs`` is what the schedule is laid over (0: ``epochs``): where it is the same, a training of fewer
    epochs is the beginning of one of more.
    """

    name: str = "small_cnn"
    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    class_weights: bool = True
    optimizer: str = "adamw"
    schedule: str = "cosine"
    schedule_epochs: int = 0
    patience: int = 0
    label_smoothing: float = 0.0
    pretrained: str = SCRATCH
    amp: bool = True

    def __post_init__(self) -> None:
        for field, valid in (("name", CLASSIFIERS), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            value = getattr(self, field)
            if value not in valid:
                raise ConfigError(f"classifier.{field} is '{value}'; {nearest(value, valid)}.")
        require(self.epochs >= 1, "classifier.epochs", self.epochs, "at least 1")
        require(
            self.schedule_epochs == 0 or self.schedule_epochs >= self.epochs,
            "classifier.schedule_epochs",
            self.schedule_epochs,
            f"at least classifier.epochs ({self.epochs}), or 0 (as many)",
        )
        require(self.batch_size >= 2, "classifier.batch_size", self.batch_size, "at least 2")
        require(0 < self.learning_rate <= 1, "classifier.learning_rate", self.learning_rate, "more than 0, at most 1")
        require(0 <= self.weight_decay <= 1, "classifier.weight_decay", self.weight_decay, "0 to 1")
        require(self.patience >= 0, "classifier.patience", self.patience, "a number of epochs, or 0 (never stop)")
        require(
            0 <= self.label_smoothing < 1, "classifier.label_smoothing", self.label_smoothing, "at least 0, below 1"
        )
        require(self.pretrained != "", "classifier.pretrained", "", f"a file, a hub id or '{SCRATCH}'")
        if self.pretrained != SCRATCH and self.name not in PRETRAINED_CLASSIFIERS:
            raise ConfigError(
                f"classifier.pretrained is '{self.pretrained}', and {self.name} has no ImageNet weights; set "
                f"classifier.name to one of {', '.join(PRETRAINED_CLASSIFIERS)}, or classifier.pretrained={SCRATCH}."
            )

    @property
    def span(self) -> int | None:
        """Epochs that the schedule is laid over; None where it has no end."""
        return None if self.schedule == "constant" else self.schedule_epochs or self.epochs


MixerConfig: TypeAlias = RealConfig | BlendConfig | MixupConfig | CutmixConfig | AugmixConfig | GenMixConfig

MIXERS: Mapping[str, type[MixerConfig]] = {
    each.name: each for each in (RealConfig, BlendConfig, MixupConfig, CutmixConfig, AugmixConfig, GenMixConfig)
}
GENMIX_PARTNERS: tuple[str, ...] = ("pool", "synthetic")
"""From where GenMix draws partners: synthetic and real images together, or synthetic images alone."""
CLASSIFIERS: tuple[str, ...] = ("small_cnn", "resnet50", "xception", "vgg16")
PRETRAINED_CLASSIFIERS: tuple[str, ...] = ("resnet50", "xception", "vgg16")
"""Classifiers that can start from ImageNet weights."""
SMALLEST_PIXELS: Mapping[str, int] = {"vgg16": 32}
"""Classifiers that smaller images do not reach the end of."""
OPTIMIZERS: tuple[str, ...] = ("adamw", "rmsprop", "adam", "sgd")
SCHEDULES: tuple[str, ...] = ("cosine", "constant", "one_cycle")
SYNTHETIC_MIXERS: tuple[str, ...] = (BlendConfig.name, GenMixConfig.name)
"""Mixers that use synthetic images; ``generator.*`` and ``synthetic.*`` exist only under these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """Everything that one trial computes with, stage by stage."""

    preprocess: PreprocessConfig
    generator: GeneratorConfig
    synthetic: SyntheticConfig | None
    mixer: MixerConfig
    affine: bool
    classifier: ClassifierConfig

    def __post_init__(self) -> None:
        wants = self.mixer.name in SYNTHETIC_MIXERS
        has = not isinstance(self.generator, NoGeneratorConfig) and self.synthetic is not None
        smallest = SMALLEST_PIXELS.get(self.classifier.name, 16)
        require(
            self.preprocess.pixels >= smallest,
            "preprocess.pixels",
            self.preprocess.pixels,
            f"at least {smallest} for classifier.name={self.classifier.name}",
        )
        if wants and not has:
            raise ConfigError(
                f"mixer.name={self.mixer.name} needs synthetic images; set generator.name to a generator."
            )
        if not wants and (has or self.synthetic is not None):
            raise ConfigError(
                f"mixer.name={self.mixer.name} uses no synthetic images; leave generator.* and synthetic.* out."
            )

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits; equal exactly where the trial computes the same."""
        return digest_of(as_dict(self))


def as_dict(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain nested data, each component with its name."""
    data: dict[str, Any] = {}
    if isinstance(getattr(type(config), "name", None), str):
        data["name"] = config.name
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        data[field.name] = as_dict(value) if dataclasses.is_dataclass(value) else value
    return data


def trial_config(flat: Mapping[str, Value], budget: Budget) -> TrialConfig:
    """Parse a flat configuration over a budget's settings.

    Args:
        flat: dotted names to values, as sampled from a space; absent names take the budget's value, then
            the default of the component.
        budget: supplies sizes and lengths that are not searched.

    Returns:
        The typed configuration.

    Raises:
        ConfigError: on an unknown name or component, or a value outside its bounds.
    """
    settings: Assignment = {**budget.settings, **flat}
    mixer_type = _component(MIXERS, "mixer.name", settings.pop("mixer.name", "real"))
    generator_type = _component(GENERATORS, "generator.name", settings.pop("generator.name", "none"))
    presets = {f"generator.{key}": value for key, value in budget.generators.get(generator_type.name, {}).items()}
    settings = {**presets, **settings}
    affine = settings.pop("affine", False)
    require(isinstance(affine, bool), "affine", affine, "on or off")
    synthetic_type = SyntheticConfig if generator_type is not NoGeneratorConfig else None
    config = TrialConfig(
        preprocess=_take(PreprocessConfig, "preprocess", settings),
        generator=_take(generator_type, "generator", settings),
        synthetic=_take(synthetic_type, "synthetic", settings) if synthetic_type else None,
        mixer=_take(mixer_type, "mixer", settings),
        affine=bool(affine),
        classifier=_take(ClassifierConfig, "classifier", settings),
    )
    if settings:
        name = min(settings)
        chosen = f"mixer.name={mixer_type.name}, generator.name={generator_type.name}"
        valid = names_under(mixer_type.name, generator_type.name)
        raise ConfigError(f"'{name}' is no setting of {chosen}; {nearest(name, valid)}.")
    return config


def names_under(mixer: str, generator: str) -> tuple[str, ...]:
    """The flat names that a configuration with this mixer and this generator ("none": without one) understands."""
    parts: list[tuple[str, type[Any]]] = [
        ("preprocess", PreprocessConfig),
        ("generator", GENERATORS[generator]),
        ("mixer", MIXERS[mixer]),
    ]
    parts += [("synthetic", SyntheticConfig)] if generator != NoGeneratorConfig.name else []
    return _flat_names([*parts, ("classifier", ClassifierConfig)])


def _component(registry: Mapping[str, type[Any]], name: str, value: Value) -> type[Any]:
    if value not in registry:
        raise ConfigError(f"{name} is '{value}'; {nearest(str(value), registry)}.")
    return registry[str(value)]


def _take(kind: type[Any], group: str, settings: Assignment) -> Any:
    """Build ``kind`` from the settings of its group, and take these out of ``settings``."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    given = {name: settings.pop(f"{group}.{name}") for name in fields if f"{group}.{name}" in settings}
    for name, value in given.items():
        given[name] = _typed(f"{group}.{name}", value, str(fields[name].type))
    return kind(**given)


def _typed(name: str, value: Value, kind: str) -> Value:
    """Check a value against a field's annotation; an int is a float too, a bool is neither."""
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    expected = {"bool": bool, "int": int, "str": str}.get(kind)
    if expected is not None and isinstance(value, expected) and (kind == "bool" or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{name} is {value!r}; expected {kind}.")


def known_names() -> tuple[str, ...]:
    """Every flat name that some configuration understands."""
    groups: list[tuple[str, type[Any]]] = [("preprocess", PreprocessConfig), ("synthetic", SyntheticConfig)]
    groups += [("generator", each) for each in GENERATORS.values()] + [("mixer", each) for each in MIXERS.values()]
    return _flat_names([*groups, ("classifier", ClassifierConfig)])


def _flat_names(groups: Sequence[tuple[str, type[Any]]]) -> tuple[str, ...]:
    names = {f"{group}.{field.name}" for group, kind in groups for field in dataclasses.fields(kind)}
    return tuple(sorted(names | {"affine", "mixer.name", "generator.name"}))
