"""Typed configurations of the generators: what each one computes with, checked where it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeAlias

from spaces.errors import require

AUGMENTATIONS = ("none", "diffaugment")
PRECISIONS = ("float32", "tf32", "bfloat16")
STYLEGAN_AUGMENTATIONS = ("none", "diffaugment", "ada")
MIXTURES = ("off", "static", "learnt")
SCRATCH = "none"
"""The value of ``pretrained`` that means: from random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoGeneratorConfig:
    """No synthetic images."""

    name: ClassVar[str] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedConfig:
    """What every generator that trains has.

    Args:
        steps: a position on the training's trajectory: more steps continue fewer ones.
        batch_size: images of one step.
        learning_rate: of the optimiser.
        affine_copies: transformed copies of each training image that the generator learns from besides the original.
        precision: of training: "float32"; "tf32", in which a GPU's convolutions round what they multiply to 10 bits of
            mantissa (a CPU computes float32); or "bfloat16", in which forward passes have 8 bits; penalties, fitness
            norms, weights and optimisers are float32 then, too, but children are judged by rounded logits. What makes
            the pool is float32 always.

    ``SAMPLING`` names the settings that play no part in training: generators that differ in these alone share it.
    """

    name: ClassVar[str]
    SAMPLING: ClassVar[tuple[str, ...]] = ()
    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 2e-4
    affine_copies: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        _whole("steps", self.steps, 1)
        _one_of("precision", self.precision, self.precisions())
        _whole("batch_size", self.batch_size, 2)
        require(0 < self.learning_rate <= 1, "generator.learning_rate", self.learning_rate, "more than 0, at most 1")
        _whole("affine_copies", self.affine_copies, 0, 16)

    @classmethod
    def precisions(cls) -> tuple[str, ...]:
        """The values of ``precision``."""
        return PRECISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class GanConfig(TrainedConfig):
    """What every adversarial generator has.

    Args:
        latent_size: length of the latent vector.
        width: channels of the largest feature map; the others are multiples of it.
        augmentation: what the discriminator's images go through, real and generated ones alike.
        spectral_norm: whether the discriminator's layers are divided by their largest singular value.
        ema: decay per step of the moving average of the generator's weights that makes the pool; 0: no average.
    """

    latent_size: int = 64
    width: int = 32
    augmentation: str = "none"
    spectral_norm: bool = False
    ema: float = 0.0

    def __post_init__(self) -> None:
        TrainedConfig.__post_init__(self)
        _whole("latent_size", self.latent_size, 1, 1024)
        _whole("width", self.width, 4, 512)
        _one_of("augmentation", self.augmentation, self.augmentations())
        require(0 <= self.ema < 1, "generator.ema", self.ema, "0 (no average), or a decay below 1")

    @classmethod
    def augmentations(cls) -> tuple[str, ...]:
        """The values of ``augmentation``."""
        return AUGMENTATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class DcganConfig(GanConfig):
    """DCGAN (Radford et al. 2016). ``steps`` count generator updates; one discriminator update before each.

    Args:
        per_class: one network for each class, trained on its images alone, in place of one conditional network.
    """

    name: ClassVar[str] = "dcgan"
    per_class: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AcganConfig(GanConfig):
    """ACGAN (Odena et al. 2017): the discriminator also tells the classes apart.

    Args:
        class_weight: weight of the class cross-entropy beside the source loss, in both networks.
    """

    name: ClassVar[str] = "acgan"
    class_weight: float = 1.0

    def __post_init__(self) -> None:
        GanConfig.__post_init__(self)
        require(0 < self.class_weight <= 100, "generator.class_weight", self.class_weight, "more than 0, at most 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class WganGpConfig(GanConfig):
    """WGAN-GP (Gulrajani et al. 2017). ``steps`` count generator updates; ``critic_steps`` before each.

    Args:
        per_class: as in ``DcganConfig``.
        critic_steps: critic updates per generator update.
        penalty: weight lambda of the gradient penalty.
    """

    name: ClassVar[str] = "wgan_gp"
    learning_rate: float = 1e-4
    per_class: bool = False
    critic_steps: int = 5
    penalty: float = 10.0

    def __post_init__(self) -> None:
        GanConfig.__post_init__(self)
        _whole("critic_steps", self.critic_steps, 1, 20)
        require(0 < self.penalty <= 1000, "generator.penalty", self.penalty, "more than 0, at most 1000")

    @classmethod
    def precisions(cls) -> tuple[str, ...]:
        """The values of ``precision``; with TF32, replayed steps had other bytes than computed ones on an H200."""
        return tuple(each for each in PRECISIONS if each != "tf32")


@dataclass(frozen=True, slots=True, kw_only=True)
class EganConfig(GanConfig):
    """Evolutionary GAN (Wang et al. 2019). ``steps`` count generations: D steps, three mutations, selection.

    Args:
        per_class: as in ``DcganConfig``.
        gamma: weight of diversity beside quality in the fitness.
        survivors: generators that survive a generation (mu).
        discriminator_steps: discriminator updates per generation.
        evaluation_batch: real images, and as many generated ones, on which all children of a generation are judged.
        reuse_gradient: the discriminator's first step of a generation takes the gradient by which the fittest child's
            diversity was measured: the same loss of the same networks, on the evaluation's images.
    """

    name: ClassVar[str] = "egan"
    per_class: bool = False
    gamma: float = 0.005
    survivors: int = 1
    discriminator_steps: int = 3
    evaluation_batch: int = 256
    reuse_gradient: bool = False

    def __post_init__(self) -> None:
        GanConfig.__post_init__(self)
        require(self.gamma >= 0, "generator.gamma", self.gamma, "a number >= 0")
        _whole("survivors", self.survivors, 1, 8)
        _whole("discriminator_steps", self.discriminator_steps, 1, 20)
        _whole("evaluation_batch", self.evaluation_batch, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaeGanConfig(EganConfig):
    """DAE GAN (paper 1): E-GAN with residual blocks, self-attention, a mixture latent and a mixed D input.

    Args:
        residual: residual blocks in both networks; off: DCGAN's layers.
        attention: one self-attention module in each network.
        mixture: Gaussian-mixture latent with static or learnt components; off: N(0, I).
        components: K, number of components.
        centre_range: c, component centres are drawn from U[-c, c]^d.
        sigma: variance of each component.
        mixed_input: the discriminator learns from real and generated images mixed, with soft labels (formula 12).
        mixing_alpha: the mix is lambda ~ Beta(alpha, alpha).
        mixed_fitness: diversity F_d is measured on mixed images too.
    """

    name: ClassVar[str] = "dae_gan"
    affine_copies: int = 4
    discriminator_steps: int = 1
    residual: bool = True
    attention: bool = True
    mixture: str = "static"
    components: int = 8
    centre_range: float = 1.0
    sigma: float = 0.5
    mixed_input: bool = True
    mixing_alpha: float = 0.2
    mixed_fitness: bool = False

    def __post_init__(self) -> None:
        EganConfig.__post_init__(self)
        _one_of("mixture", self.mixture, MIXTURES)
        _whole("components", self.components, 1, 256)
        require(0 <= self.centre_range <= 100, "generator.centre_range", self.centre_range, "0 to 100")
        require(0 < self.sigma <= 100, "generator.sigma", self.sigma, "more than 0, at most 100")
        require(0 < self.mixing_alpha <= 10, "generator.mixing_alpha", self.mixing_alpha, "more than 0, at most 10")
        require(
            not self.reuse_gradient or self.mixed_input == self.mixed_fitness,
            "generator.reuse_gradient",
            self.reuse_gradient,
            "false where the discriminator learns from mixed images and diversity is measured on others; set "
            "generator.mixed_fitness as generator.mixed_input",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleganConfig(GanConfig):
    """StyleGAN2 (Karras et al. 2020) for small images and small sets, with ADA or DiffAugment.

    Args:
        per_class: as in ``DcganConfig``.
        ema: decay per step of the average that makes the pool.
        augmentation: "ada" (adaptive, Karras et al. 2020a), "diffaugment" or "none".
        ada_target: share of real images that the discriminator should be sure of.
        ada_ramp: steps in which the augmentation probability could go from 0 to 1 (it stops at 0.8, above which
            augmentations leak into the images): a fifth of the run.
        r1_weight: the R1 penalty's gamma is this times pixels squared / batch_size.
        mapping_layers: depth of the mapping network.
        style_mixing: probability that an image's layers take two styles.
        path_length: weight of path length regularisation; 0: off.
    """

    name: ClassVar[str] = "stylegan"
    learning_rate: float = 2.5e-3
    per_class: bool = False
    ema: float = 0.995
    augmentation: str = "ada"
    ada_target: float = 0.6
    ada_ramp: int = 400
    r1_weight: float = 2e-4
    mapping_layers: int = 2
    style_mixing: float = 0.0
    path_length: float = 0.0

    def __post_init__(self) -> None:
        GanConfig.__post_init__(self)
        require(-1 < self.ada_target < 1, "generator.ada_target", self.ada_target, "more than -1, less than 1")
        _whole("ada_ramp", self.ada_ramp, 1)
        require(0 <= self.r1_weight <= 100, "generator.r1_weight", self.r1_weight, "0 to 100")
        _whole("mapping_layers", self.mapping_layers, 1, 8)
        require(0 <= self.style_mixing <= 1, "generator.style_mixing", self.style_mixing, "0 to 1")
        require(0 <= self.path_length <= 100, "generator.path_length", self.path_length, "0 to 100")

    @classmethod
    def augmentations(cls) -> tuple[str, ...]:
        """The values of ``augmentation``."""
        return STYLEGAN_AUGMENTATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionConfig(TrainedConfig):
    """Class-conditional diffusion (Ho et al. 2020; Dhariwal & Nichol 2021), sampled with DDIM.

    Args:
        width: channels of the largest feature map, where the network is trained from random weights.
        learning_rate: for a width of 32; from random weights it is scaled by 32 / width, so that the two can be
            searched apart.
        ema: decay per step of the average of the weights that makes the pool.
        label_dropout: share of the labels that training replaces by the null class, for guidance.
        sampling_steps: DDIM steps.
        guidance: weight of classifier-free guidance; 1: the conditional prediction alone.
        pretrained: a local folder or hub id to start from; "none": random weights.
    """

    name: ClassVar[str] = "diffusion"
    SAMPLING: ClassVar[tuple[str, ...]] = ("sampling_steps", "guidance")
    batch_size: int = 16
    learning_rate: float = 2e-3
    width: int = 32
    ema: float = 0.995
    label_dropout: float = 0.15
    sampling_steps: int = 12
    guidance: float = 1.0
    pretrained: str = SCRATCH

    def __post_init__(self) -> None:
        TrainedConfig.__post_init__(self)
        _whole("width", self.width, 4, 512)
        require(0 <= self.ema < 1, "generator.ema", self.ema, "0 (no average), or a decay below 1")
        require(0 < self.label_dropout < 1, "generator.label_dropout", self.label_dropout, "more than 0, less than 1")
        _whole("sampling_steps", self.sampling_steps, 2, 1000)
        require(0 <= self.guidance <= 20, "generator.guidance", self.guidance, "0 to 20")
        require(bool(self.pretrained), "generator.pretrained", self.pretrained, "a folder, a hub id, or 'none'")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextualInversionConfig(TrainedConfig):
    """Textual inversion (Gal et al. 2023): new words for the classes in a frozen latent diffusion pipeline.

    Args:
        pretrained: a local folder or hub id of the pipeline; it has no usable default.
        tokens_per_class: new embedding rows of each class.
        ema: decay per step of the average of the words that makes the pool; 0: the last words.
        sampling_steps: denoising steps.
        guidance: weight of classifier-free guidance.
        strength: share of the noise schedule that a training image goes through before it is denoised with the
            class's words; 1: from pure noise.
    """

    name: ClassVar[str] = "textual_inversion"
    SAMPLING: ClassVar[tuple[str, ...]] = ("sampling_steps", "guidance", "strength")
    pretrained: str = ""
    steps: int = 500
    batch_size: int = 4
    learning_rate: float = 5e-3
    tokens_per_class: int = 4
    ema: float = 0.999
    sampling_steps: int = 25
    guidance: float = 5.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        TrainedConfig.__post_init__(self)
        require(
            self.pretrained not in ("", SCRATCH),
            "generator.pretrained",
            self.pretrained,
            "the folder or hub id of a latent diffusion pipeline",
        )
        _whole("tokens_per_class", self.tokens_per_class, 1, 32)
        require(0 <= self.ema < 1, "generator.ema", self.ema, "0 (no average), or a decay below 1")
        _whole("sampling_steps", self.sampling_steps, 2, 1000)
        require(0 <= self.guidance <= 20, "generator.guidance", self.guidance, "0 to 20")
        require(0 < self.strength <= 1, "generator.strength", self.strength, "more than 0, at most 1")


GeneratorConfig: TypeAlias = NoGeneratorConfig | TrainedConfig

GENERATORS: Mapping[str, type[GeneratorConfig]] = {
    each.name: each
    for each in (
        NoGeneratorConfig,
        DcganConfig,
        AcganConfig,
        WganGpConfig,
        EganConfig,
        DaeGanConfig,
        StyleganConfig,
        DiffusionConfig,
        TextualInversionConfig,
    )
}
"""Every generator's configuration by its name."""


def sampling_names(generator: str) -> tuple[str, ...]:
    """The settings of a generator that play no part in its training; none where it is unknown."""
    kind = GENERATORS.get(generator)
    return kind.SAMPLING if kind is not None and issubclass(kind, TrainedConfig) else ()


def training_part(config: TrainedConfig) -> TrainedConfig:
    """The same configuration with the defaults of all that plays no part in training."""
    defaults: dict[str, Any] = {field.name: field.default for field in fields(config) if field.name in config.SAMPLING}
    return replace(config, **defaults)


def _whole(field: str, value: int, low: int, high: int | None = None) -> None:
    expected = f"at least {low}" if high is None else f"{low} to {high}"
    require(low <= value and (high is None or value <= high), f"generator.{field}", value, expected)


def _one_of(field: str, value: str, valid: tuple[str, ...]) -> None:
    require(value in valid, f"generator.{field}", value, f"one of {', '.join(valid)}")
