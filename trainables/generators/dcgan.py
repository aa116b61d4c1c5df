"""DCGAN (Radford et al. 2016) with the non-saturating loss, conditional or one per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from spaces.generators import DcganConfig
from trainables import seeding
from trainables.data.image_set import ImageSet
from trainables.generators.base import History, OnStep
from trainables.generators.evolution import discriminator_loss
from trainables.generators.fitted import FittedGan, load_gan
from trainables.generators.networks.dcgan import DcganDiscriminator, DcganGenerator, create
from trainables.generators.training import Curves, Deck, TrainingImages, fit_gan

STAGE_VERSION = 1
BETAS = (0.5, 0.999)
"""Adam's decays (Radford et al. 2016, section 4)."""


class Dcgan:
    """One discriminator and one generator step in turn, on the same generated batch."""

    def __init__(self, config: DcganConfig) -> None:
        self._config = config

    def fit(self, train: ImageSet, *, seed: int, device: torch.device, on_step: OnStep) -> FittedGan:
        """Learn from the training fold. Raises: DataError, DivergedError, StopRequested."""
        return fit_gan(self._train, self._config, train, seed=seed, device=device, on_step=on_step)

    def load(
        self, state: Mapping[str, Tensor], history: History, *, n_classes: int, pixels: int, device: torch.device
    ) -> FittedGan:
        """The fitted generator whose ``state()`` and ``history`` these are."""
        return load_gan(
            partial(_network, self._config),
            state,
            history,
            per_class=self._config.per_class,
            n_classes=n_classes,
            pixels=pixels,
            device=device,
        )

    def _train(
        self, images: TrainingImages, *, seed: int, device: torch.device, on_step: Callable[[int], None]
    ) -> tuple[DcganGenerator, History]:
        config = self._config
        network, discriminator = _networks(config, images, seed=seed, device=device)
        rate = config.learning_rate
        network_adam = torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS, fused=True)
        discriminator_adam = torch.optim.Adam(discriminator.parameters(), lr=rate, betas=BETAS, fused=True)
        deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        latents_rng = seeding.generator(seed, "latents")
        curves = Curves("discriminator_loss", "generator_loss")
        for step in range(config.steps):
            real_NCHW, labels_N = images.at(deck.deal(config.batch_size))
            latents_NL = torch.randn(config.batch_size, config.latent_size, generator=latents_rng).to(device)
            fake_NCHW: Tensor = network(latents_NL, labels_N)

            discriminator_adam.zero_grad()
            real_logits_N, fake_logits_N = (
                discriminator(real_NCHW, labels_N),
                discriminator(fake_NCHW.detach(), labels_N),
            )
            against = discriminator_loss(real_logits_N, fake_logits_N)
            torch.autograd.backward(against)
            discriminator_adam.step()

            network_adam.zero_grad()
            deceiving = functional.softplus(-discriminator(fake_NCHW, labels_N)).mean()
            torch.autograd.backward(deceiving, inputs=list(network.parameters()))
            network_adam.step()

            curves.record(against, deceiving)
            on_step(step + 1)
        return network, curves.lists()


def _networks(
    config: DcganConfig, images: TrainingImages, *, seed: int, device: torch.device
) -> tuple[DcganGenerator, DcganDiscriminator]:
    pixels, n_classes = images.images_NCHW.shape[-1], images.n_classes
    network = create(
        lambda: _network(config, pixels, n_classes),
        rng=seeding.generator(seed, "generator"),
        device=device,
    )
    discriminator = create(
        lambda: DcganDiscriminator(pixels=pixels, width=config.width, n_classes=n_classes, batch_norm=True),
        rng=seeding.generator(seed, "discriminator"),
        device=device,
    )
    return network, discriminator


def _network(config: DcganConfig, pixels: int, n_classes: int) -> DcganGenerator:
    return DcganGenerator(pixels=pixels, latent_size=config.latent_size, width=config.width, n_classes=n_classes)
