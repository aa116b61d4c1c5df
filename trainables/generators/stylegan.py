"""StyleGAN2 for small images and small sets, with ADA or DiffAugment (Karras et al. 2020, 2020a)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import softplus

from spaces.generators import StyleganConfig
from trainables import seeding
from trainables.generators.adversary import AdversarialTraining, Augmentation, adversary
from trainables.generators.augmentation import AdaController, apply_ada, draw_ada
from trainables.generators.networks.dcgan import create
from trainables.generators.networks.stylegan2 import StyleganDiscriminator, StyleganGenerator
from trainables.generators.precision import computing_in
from trainables.generators.regularisation import path_lengths, path_penalty, r1
from trainables.generators.training import NetworkGenerator, TrainingImages
from trainables.training.adam import adam
from trainables.training.graphs import Drawn
from trainables.training.parts import Part, named, under

STAGE_VERSION = 1
BETAS = (0.0, 0.99)
"""Adam's decays (Karras et al. 2020, appendix B)."""
R1_EVERY = 16
"""Discriminator steps between two with the R1 penalty (Karras et al. 2020, section 3.1)."""
PATH_EVERY = 4
"""Generator steps between two with the path length penalty (the authors' code; 8 in the paper)."""
PATH_DECAY = 0.01
"""Share of a new mean in the average path length (Karras et al. 2020, appendix B)."""
PATH_SHRINK = 2
"""The path length is measured on this part of a batch (the authors' code)."""


class Stylegan(NetworkGenerator[StyleganConfig]):
    """One discriminator and one generator step in turn, on the same generated batch; penalties every few steps."""

    def network(self, pixels: int, n_classes: int) -> StyleganGenerator:
        """The generator's network."""
        config = self.config
        return StyleganGenerator(
            pixels=pixels,
            latent_size=config.latent_size,
            width=config.width,
            mapping_layers=config.mapping_layers,
            n_classes=n_classes,
        )

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> StyleganTraining:
        """The training of one network, before its first step."""
        pixels, n_classes, config = images.pixels, images.n_classes, self.config
        network = create(
            lambda: self.network(pixels, n_classes), rng=seeding.generator(seed, "generator"), device=device
        )
        discriminator = adversary(
            lambda: StyleganDiscriminator(pixels=pixels, width=config.width, n_classes=n_classes),
            config,
            keep_scale=False,
            seed=seed,
            device=device,
        )
        return StyleganTraining(config, network, discriminator, images, seed=seed)


class StyleganTraining(AdversarialTraining):
    """One network against one discriminator, with the optimisers of lazy regularisation."""

    def __init__(
        self,
        config: StyleganConfig,
        network: StyleganGenerator,
        discriminator: StyleganDiscriminator,
        images: TrainingImages,
        *,
        seed: int,
    ) -> None:
        curves = ("discriminator_loss", "generator_loss", "ada_probability", "r1")
        super().__init__(config, network, discriminator, images, seed=seed, betas=BETAS, curves=curves)
        self._config = config
        self._synthesis = network
        self._gamma = config.r1_weight * images.pixels**2 / config.batch_size
        rate = config.learning_rate
        self._discriminator_adam = lazy_adam(discriminator, rate=rate, every=R1_EVERY if self._gamma else None)
        self._network_adam = lazy_adam(network, rate=rate, every=PATH_EVERY if config.path_length else None)
        self._controller = AdaController(target=config.ada_target, ramp=config.ada_ramp)
        if config.augmentation == "ada":
            self._augment = AdaptiveAugmentation(self._controller, pixels=images.pixels, rng=self._augment.rng)
        self._penalty_rng = seeding.generator(seed, "penalties")
        self._memory = Memory(images.images_NCHW.device)

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that changes from step to step."""
        own: dict[str, Part] = {
            "controller": self._controller,
            "penalties": self._penalty_rng,
            "memory": self._memory,
        }
        return {**super().parts, **own}

    def step(self) -> None:
        """One discriminator step, then one generator step, each followed by one on its penalty where that is due."""
        probability = torch.tensor(self._controller.probability)
        against, deceiving, r1_now, real_logits_N = self._graphs.run(self._update, self._draw())
        if self._average is not None:
            self._average.update(self._network)
        if self._config.augmentation == "ada":
            self._controller.observe(real_logits_N)
        self._memory.steps += 1
        self.curves.record(against, deceiving, probability, r1_now)

    def _draw(self) -> Drawn:
        """One batch, what it goes through, and what the penalties that are due are measured on."""
        config, steps = self._config, self._memory.steps
        drawn = {**self._draw_batch(), **self._draw_looks("real", "fake")}
        if self._gamma and steps % R1_EVERY == 0:
            drawn |= {**named("slopes", {"positions_N": drawn["positions_N"]}), **self._draw_looks("slopes")}
        drawn |= self._draw_looks("deceiving")
        if config.path_length and steps % PATH_EVERY == 0:
            count, pixels = max(self._batch_size // PATH_SHRINK, 1), self._images.pixels
            drawn |= {
                "paths/noise_NM": self._synthesis.noise(count, rng=self._penalty_rng),
                "paths/directions_NCHW": torch.randn(count, 1, pixels, pixels, generator=self._penalty_rng),
            }
        return drawn

    def _draw_batch(self) -> Drawn:
        """As there; with style mixing, later layers of some images take the style of another latent."""
        drawn = super()._draw_batch()
        if not self._config.style_mixing:
            return drawn
        network, count = self._synthesis, self._batch_size
        return {
            **drawn,
            "other_NM": network.noise(count, rng=self._noise_rng),
            "later_NL": draw_crossovers(
                count, network.style_count, probability=self._config.style_mixing, rng=self._noise_rng
            ),
        }

    def _update(self, drawn: Drawn) -> tuple[Tensor, ...]:
        """One step; also returns the real images' logits."""
        labels_N, fake_NCHW, real_logits_N, against = self._contest(drawn)
        if "slopes/positions_N" in drawn:
            self._penalise_slopes(drawn)

        deceiving = softplus(-self._logits("deceiving", drawn, fake_NCHW, labels_N)).mean()
        self._update_network(deceiving)
        if "paths/noise_NM" in drawn:
            self._penalise_paths(under("paths", drawn), labels_N)
        return against, deceiving.detach(), self._memory.r1.clone(), real_logits_N

    def _fake(self, drawn: Drawn, labels_N: Tensor) -> Tensor:
        """Generated images, of mixed styles where some were drawn."""
        if "other_NM" not in drawn:
            return super()._fake(drawn, labels_N)
        network = self._synthesis
        with computing_in(self._precision, labels_N.device):
            styles_NS, others_NS = (network.styles(drawn[name], labels_N) for name in ("noise_NM", "other_NM"))
            styles_NLS = torch.where(drawn["later_NL"][:, :, None], others_NS[:, None], styles_NS[:, None])
            images_NCHW = network.synthesize(styles_NLS, drawn["noise_NM"])
        return images_NCHW.float()

    def _penalise_slopes(self, drawn: Drawn) -> None:
        """A step on R1 alone: of the images before augmentation, through it, as in Karras et al. 2020a's code."""
        drawn = under("slopes", drawn)
        real_NCHW, labels_N = self._real(drawn)
        real_NCHW = real_NCHW.detach().requires_grad_()
        penalty = r1(self._discriminator(self._augment.apply(real_NCHW, drawn), labels_N), real_NCHW)
        self._update_discriminator(penalty * (self._gamma / 2 * R1_EVERY))
        self._memory.r1.copy_(penalty.detach())

    def _penalise_paths(self, drawn: Drawn, labels_N: Tensor) -> None:
        """A step on the path length penalty alone."""
        network, noise_NM = self._synthesis, drawn["noise_NM"]
        styles_NLS = network.styles(noise_NM, labels_N[: len(noise_NM)])[:, None].expand(-1, network.style_count, -1)
        images_NCHW = network.synthesize(styles_NLS, noise_NM)
        lengths_N = path_lengths(images_NCHW, styles_NLS, directions_NCHW=drawn["directions_NCHW"])
        penalty, average = path_penalty(lengths_N, self._memory.path_length, decay=PATH_DECAY)
        self._network_adam.zero_grad()
        torch.autograd.backward(penalty * (self._config.path_length * PATH_EVERY), inputs=list(network.parameters()))
        self._network_adam.step()
        self._memory.path_length.copy_(average)


class AdaptiveAugmentation(Augmentation):
    """ADA's augmentations with the probability that its controller holds at the time.

    Args:
        controller: says how probable they are.
        pixels: height and width of the images.
        rng: CPU generator of the draws.
    """

    def __init__(self, controller: AdaController, *, pixels: int, rng: torch.Generator) -> None:
        super().__init__("ada", pixels=pixels, rng=rng)
        self._controller = controller

    def draw(self, count: int) -> Drawn:
        """One draw for ``count`` images; nothing as long as the probability is 0, though numbers are drawn."""
        probability = self._controller.probability
        draws = draw_ada(count, self._pixels, probability=probability, rng=self.rng)
        return draws if probability else {}

    def apply(self, images_NCHW: Tensor, drawn: Drawn) -> Tensor:
        """Images through a draw."""
        return apply_ada(images_NCHW, drawn) if "matrices_N33" in drawn else images_NCHW


class Memory:
    """What a training keeps besides networks and optimisers: its steps, the last R1, the average path length."""

    def __init__(self, device: torch.device) -> None:
        self.steps = 0
        self.r1 = torch.zeros((), device=device)
        self.path_length = torch.zeros((), device=device)

    def state(self) -> dict[str, Tensor]:
        """What it holds."""
        return {"steps": torch.tensor(self.steps), "r1": self.r1, "path_length": self.path_length}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self.steps = int(state["steps"])
        self.r1.copy_(state["r1"])
        self.path_length.copy_(state["path_length"])


def lazy_adam(network: torch.nn.Module, *, rate: float, every: int | None) -> torch.optim.Adam:
    """Adam for a network whose penalty has a step of its own after every ``every`` steps.

    Args:
        network: whose parameters are optimised.
        rate: learning rate without the penalty.
        every: k; learning rate and decays are those of k / (k + 1) of a step. None: there is no penalty.

    Source: Karras et al. 2020, appendix B.
    """
    share = 1.0 if every is None else every / (every + 1)
    return adam(network.parameters(), rate=rate * share, betas=(BETAS[0] ** share, BETAS[1] ** share))


def draw_crossovers(count: int, layers: int, *, probability: float, rng: torch.Generator) -> Tensor:
    """Which layers of each image take the second of two styles.

    Args:
        count: number of images.
        layers: styles of an image.
        probability: of two styles.
        rng: CPU generator.

    Returns:
        bool (count, layers): all False, or False up to a crossover in [1, layers) and True from there on.

    Source: Karras et al. 2019, section 3.1.
    """
    crossover_N = torch.randint(1, layers, (count,), generator=rng)
    mixed_N = torch.rand(count, generator=rng) < probability
    return mixed_N[:, None] & (torch.arange(layers) >= crossover_N[:, None])
