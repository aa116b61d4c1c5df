"""What adversarial trainings share: two networks and their optimisers, augmented images, averages."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from spaces.generators import GanConfig
from trainables import seeding
from trainables.generators.augmentation import apply, draw_diffaugment
from trainables.generators.averages import WeightAverage
from trainables.generators.curves import Curves
from trainables.generators.networks.dcgan import DcganGenerator, Network, create
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.networks.spectral import normalised
from trainables.generators.parts import Part
from trainables.generators.training import Deck, NetworkGenerator, TrainingImages

BETAS = (0.5, 0.999)
"""Adam's decays (Radford et al. 2016, section 4)."""


Adversarial = TypeVar("Adversarial", bound=GanConfig)


class AdversarialGenerator(NetworkGenerator[Adversarial]):
    """A generator whose images are made by DCGAN's network."""

    def network(self, pixels: int, n_classes: int) -> ImageNetwork:
        """The generator's network."""
        config = self.config
        return DcganGenerator(pixels=pixels, latent_size=config.latent_size, width=config.width, n_classes=n_classes)

    def filled_network(self, images: TrainingImages, *, rng: torch.Generator, device: torch.device) -> ImageNetwork:
        """The network before its first step, its weights drawn from ``rng``."""
        return create(lambda: self.network(images.pixels, images.n_classes), rng=rng, device=device)


class AdversarialTraining(ABC):
    """One generating network against one discriminator, each with Adam; a ``NetworkTraining`` but for its step.

    Args:
        config: of the generator.
        network: makes the images; filled.
        discriminator: judges them; filled.
        images: to learn from.
        seed: every random draw of the training descends from it.
        betas: of both optimisers.
        curves: names of what ``step`` records.
    """

    def __init__(
        self,
        config: GanConfig,
        network: ImageNetwork,
        discriminator: nn.Module,
        images: TrainingImages,
        *,
        seed: int,
        betas: tuple[float, float],
        curves: Sequence[str],
    ) -> None:
        self._images = images
        self._batch_size = config.batch_size
        self._network = network
        self._discriminator = discriminator
        rate = config.learning_rate
        self._network_adam = torch.optim.Adam(network.parameters(), lr=rate, betas=betas, fused=True)
        self._discriminator_adam = torch.optim.Adam(discriminator.parameters(), lr=rate, betas=betas, fused=True)
        self._average = WeightAverage(network, decay=config.ema) if config.ema else None
        self._augment = Augmentation(config.augmentation, rng=seeding.generator(seed, "augmentation"))
        self._deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        self._noise_rng = seeding.generator(seed, "latents")
        self.curves = Curves(*curves)

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

    @abstractmethod
    def step(self) -> None:
        """One more step. Raises: DivergedError."""

    def sampler(self) -> ImageNetwork:
        """A copy of the network, or of its average."""
        return copy.deepcopy(self._network if self._average is None else self._average.network)

    def _real(self) -> tuple[Tensor, Tensor]:
        """The next real images and their labels."""
        return self._images.at(self._deck.deal(self._batch_size))

    def _fake(self, labels_N: Tensor) -> Tensor:
        """Generated images of these labels, attached to the network's weights."""
        noise_NM = self._network.noise(len(labels_N), rng=self._noise_rng).to(labels_N.device)
        images_NCHW: Tensor = self._network(noise_NM, labels_N)
        return images_NCHW

    def _update_discriminator(self, loss: Tensor) -> None:
        self._discriminator_adam.zero_grad()
        torch.autograd.backward(loss, inputs=list(self._discriminator.parameters()))
        self._discriminator_adam.step()

    def _update_network(self, loss: Tensor) -> None:
        self._network_adam.zero_grad()
        torch.autograd.backward(loss, inputs=list(self._network.parameters()))
        self._network_adam.step()
        if self._average is not None:
            self._average.update(self._network)


class Augmentation:
    """What generated and real images go through before the discriminator sees them.

    Args:
        name: "none" or "diffaugment".
        rng: CPU generator of the draws.
    """

    def __init__(self, name: str, *, rng: torch.Generator) -> None:
        self._name = name
        self.rng = rng

    def draw(self, count: int, pixels: int) -> Callable[[Tensor], Tensor]:
        """One draw for ``count`` images, to be applied as often as wished; leaves images alone where there is none."""
        if self._name == "none":
            return lambda images_NCHW: images_NCHW
        draws = draw_diffaugment(count, pixels, rng=self.rng)
        return lambda images_NCHW: apply(images_NCHW, draws)

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Images through a draw of their own."""
        return self.draw(len(images_NCHW), images_NCHW.shape[-1])(images_NCHW)


def adversary(
    make: Callable[[], Network], config: GanConfig, *, keep_scale: bool, seed: int, device: torch.device
) -> Network:
    """A discriminator with its initial weights, spectrally normalised where the configuration says so.

    Args:
        make: builds it; see ``create``.
        config: of the generator that it judges.
        keep_scale: see ``create``.
        seed: of the network's training.
        device: where it computes.
    """
    network = create(make, keep_scale=keep_scale, rng=seeding.generator(seed, "discriminator"), device=device)
    if config.spectral_norm:
        normalised(network, rng=seeding.generator(seed, "spectral"))
    return network


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Evaluate a discriminator as it is: spectral norm vectors stand still, so that equal images have equal logits."""
    network.eval()
    try:
        yield
    finally:
        network.train()
