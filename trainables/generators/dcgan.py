"""DCGAN (Radford et al. 2016) with the non-saturating loss, conditional or one per class."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from spaces.generators import DcganConfig
from trainables import seeding
from trainables.generators.adversary import BETAS, Augmentation, adversary, average_of
from trainables.generators.curves import Curves
from trainables.generators.evolution import discriminator_loss
from trainables.generators.networks.dcgan import DcganDiscriminator, DcganGenerator, create
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.parts import Part
from trainables.generators.training import Deck, NetworkGenerator, TrainingImages

STAGE_VERSION = 2


class Dcgan(NetworkGenerator[DcganConfig]):
    """One discriminator and one generator step in turn, on the same generated batch."""

    def network(self, pixels: int, n_classes: int) -> DcganGenerator:
        """The generator's network."""
        config = self.config
        return DcganGenerator(pixels=pixels, latent_size=config.latent_size, width=config.width, n_classes=n_classes)

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> DcganTraining:
        """The training of one network, before its first step."""
        network = create(
            lambda: self.network(images.pixels, images.n_classes),
            rng=seeding.generator(seed, "generator"),
            device=device,
        )
        return DcganTraining(self.config, network, images, seed=seed, device=device)


class DcganTraining:
    """One network against one discriminator; a ``NetworkTraining``."""

    def __init__(
        self, config: DcganConfig, network: DcganGenerator, images: TrainingImages, *, seed: int, device: torch.device
    ) -> None:
        self._config = config
        self._images = images
        self._network = network
        self._discriminator = adversary(
            lambda: DcganDiscriminator(
                pixels=images.pixels, width=config.width, n_classes=images.n_classes, batch_norm=True
            ),
            config,
            keep_scale=False,
            seed=seed,
            device=device,
        )
        rate = config.learning_rate
        self._network_adam = torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS, fused=True)
        self._discriminator_adam = torch.optim.Adam(self._discriminator.parameters(), lr=rate, betas=BETAS, fused=True)
        self._average = average_of(network, config)
        self._augment = Augmentation(config.augmentation, rng=seeding.generator(seed, "augmentation"))
        self._deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        self._noise_rng = seeding.generator(seed, "latents")
        self.curves = Curves("discriminator_loss", "generator_loss")

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that changes from step to step."""
        parts: dict[str, Part] = {
            "network": self._network,
            "discriminator": self._discriminator,
            "network_adam": self._network_adam,
            "discriminator_adam": self._discriminator_adam,
            "augmentation": self._augment.rng,
            "deck": self._deck,
            "noise": self._noise_rng,
        }
        return parts if self._average is None else {**parts, "average": self._average}

    def step(self) -> None:
        """One discriminator step, then one generator step."""
        real_NCHW, labels_N = self._images.at(self._deck.deal(self._config.batch_size))
        noise_NM = self._network.noise(len(labels_N), rng=self._noise_rng).to(real_NCHW.device)
        fake_NCHW: Tensor = self._network(noise_NM, labels_N)

        self._discriminator_adam.zero_grad()
        real_logits_N = self._discriminator(self._augment(real_NCHW), labels_N)
        fake_logits_N = self._discriminator(self._augment(fake_NCHW.detach()), labels_N)
        against = discriminator_loss(real_logits_N, fake_logits_N)
        torch.autograd.backward(against)
        self._discriminator_adam.step()

        self._network_adam.zero_grad()
        deceiving = functional.softplus(-self._discriminator(self._augment(fake_NCHW), labels_N)).mean()
        torch.autograd.backward(deceiving, inputs=list(self._network.parameters()))
        self._network_adam.step()
        if self._average is not None:
            self._average.update(self._network)
        self.curves.record(against, deceiving)

    def sampler(self) -> ImageNetwork:
        """A copy of the network, or of its average."""
        return copy.deepcopy(self._network if self._average is None else self._average.network)
