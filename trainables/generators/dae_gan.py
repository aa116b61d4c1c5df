"""DAE GAN (Fu et al. 2020): E-GAN with residual blocks, self-attention, mixture latents and mixed images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spaces.generators import DaeGanConfig
from trainables import seeding
from trainables.generators.egan import Egan, EganTraining, Judge
from trainables.generators.evolution import Judgement
from trainables.generators.latents import Latents, MixtureLatents, NormalLatents
from trainables.generators.mixed_input import mixed_images, mixed_judgement, mixed_loss, real_shares
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.networks.residual import DaeDiscriminator, DaeGenerator, create_dae, without_attention
from trainables.generators.training import TrainingImages
from trainables.training.graphs import Drawn
from trainables.training.parts import Part

STAGE_VERSION = 3
"""3: spectral norm follows a discriminator whose only step is handed on."""


class DaeGan(Egan):
    """E-GAN with paper 1's networks, latents and discriminator input, each of which can be switched off.

    The affine set is made before the training (``affine_copies``), the discriminator learns first in every generation.
    """

    config: DaeGanConfig

    def __init__(self, config: DaeGanConfig) -> None:
        super().__init__(config)

    def network(self, pixels: int, n_classes: int) -> DaeGenerator:
        """The generator's network; a learnt mixture belongs to it, and so evolves with it."""
        config = self.config
        return DaeGenerator(
            pixels=pixels,
            latents=_latents(config),
            width=config.width,
            n_classes=n_classes,
            residual=config.residual,
            attention=config.attention,
        )

    def discriminator(self, pixels: int, n_classes: int) -> nn.Module:
        """The discriminator; no layer of it lets one image's logit depend on another image."""
        config = self.config
        return DaeDiscriminator(
            pixels=pixels,
            width=config.width,
            n_classes=n_classes,
            residual=config.residual,
            attention=config.attention,
        )

    def filled_network(self, images: TrainingImages, *, rng: torch.Generator, device: torch.device) -> ImageNetwork:
        """A network of the first generation, with a mixture of its own."""
        return create_dae(lambda: self.network(images.pixels, images.n_classes), rng=rng, device=device)

    def filled_discriminator(self, images: TrainingImages, *, seed: int, device: torch.device) -> nn.Module:
        """The discriminator before its first step; it does not attend yet."""
        return without_attention(super().filled_discriminator(images, seed=seed, device=device))

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> EganTraining:
        """The training of one population, before its first generation."""
        return DaeGanTraining(self, images, seed=seed, device=device)


class DaeGanTraining(EganTraining):
    """E-GAN's training with a discriminator that may learn from mixed images; curves as there."""

    def __init__(self, owner: DaeGan, images: TrainingImages, *, seed: int, device: torch.device) -> None:
        super().__init__(owner, images, seed=seed, device=device)
        self._mixing = owner.config
        self._mixing_rng = seeding.generator(seed, "mixing")

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that changes from generation to generation."""
        return {**super().parts, "mixing": self._mixing_rng}

    def _draw_contest(self, size: int) -> Drawn:
        """As there, or what mixed images go through."""
        if not self._mixing.mixed_input:
            return super()._draw_contest(size)
        return {"real_share_N": self._real_shares(size), **self._augment.draw(size)}

    def _discriminator_loss(self, real_NCHW: Tensor, fake_NCHW: Tensor, labels_N: Tensor, drawn: Drawn) -> Tensor:
        """Formula 12, or formula 11 where the input is not mixed."""
        if not self._mixing.mixed_input:
            return super()._discriminator_loss(real_NCHW, fake_NCHW, labels_N, drawn)
        mixed_NCHW = mixed_images(real_NCHW, fake_NCHW, drawn["real_share_N"])
        return mixed_loss(self._logits(self._augment.apply(mixed_NCHW, drawn), labels_N), drawn["real_share_N"])

    def _draw_evaluation(self) -> Drawn:
        drawn = super()._draw_evaluation()
        if not self._mixing.mixed_fitness:
            return drawn
        return {**drawn, "real_share_N": self._real_shares(len(drawn["positions_N"]))}

    def _judge(self, real_NCHW: Tensor, labels_N: Tensor, drawn: Drawn) -> Judge:
        """Formulas 7 and 8 on unmixed images; with ``mixed_fitness``, formula 8's bracket is formula 12."""
        if not self._mixing.mixed_fitness:
            return super()._judge(real_NCHW, labels_N, drawn)
        real_share_N = drawn["real_share_N"]

        def judge(fake_NCHW: Tensor) -> Judgement:
            with torch.no_grad():
                fake_logits_N = self._logits(self._augment.apply(fake_NCHW, drawn), labels_N)
            mixed_NCHW = self._augment.apply(mixed_images(real_NCHW, fake_NCHW, real_share_N), drawn)
            return mixed_judgement(fake_logits_N, self._logits(mixed_NCHW, labels_N), real_share_N, self._weights)

        return judge

    def _real_shares(self, count: int) -> Tensor:
        return real_shares(self._mixing.mixing_alpha, count, rng=self._mixing_rng)


def _latents(config: DaeGanConfig) -> Latents:
    if config.mixture == "off":
        return NormalLatents(config.latent_size)
    return MixtureLatents(
        config.latent_size,
        components=config.components,
        centre_range=config.centre_range,
        sigma=config.sigma,
        learnt=config.mixture == "learnt",
    )
