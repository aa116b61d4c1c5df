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
from trainables.generators.augmentation import apply_diffaugment, draw_diffaugment
from trainables.generators.averages import WeightAverage
from trainables.generators.curves import Curves
from trainables.generators.evolution import discriminator_loss
from trainables.generators.networks.dcgan import DcganGenerator, Network, create
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.networks.spectral import normalised
from trainables.generators.precision import computing_in
from trainables.generators.training import Deck, NetworkGenerator, TrainingImages
from trainables.training.adam import adam
from trainables.training.graphs import Drawn, Graphs
from trainables.training.parts import Part, named, under

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
    """One generating network against one discriminator, each with Adam; a ``NetworkTraining``.

    A subclass says what it draws for a step and what it computes from it; see ``graphs``.

    Args:
        config: of the generator.
        network: makes the images; filled.
        discriminator: judges them; filled.
        images: to learn from.
        seed: every random draw of the training descends from it.
        betas: of both optimisers.
        curves: names of what ``_update`` returns.
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
        self._precision = config.precision
        self._network = network
        self._discriminator = discriminator
        self._network_adam = adam(network.parameters(), rate=config.learning_rate, betas=betas)
        self._discriminator_adam = adam(discriminator.parameters(), rate=config.learning_rate, betas=betas)
        self._average = WeightAverage(network, decay=config.ema) if config.ema else None
        self._augment = Augmentation(
            config.augmentation, pixels=images.pixels, rng=seeding.generator(seed, "augmentation")
        )
        self._deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        self._noise_rng = seeding.generator(seed, "latents")
        self._graphs = Graphs(images.images_NCHW.device)
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

    def step(self) -> None:
        """One more step. Raises: DivergedError."""
        recorded = self._graphs.run(self._update, self._draw())
        if self._average is not None:
            self._average.update(self._network)
        self.curves.record(*recorded)

    @abstractmethod
    def _draw(self) -> Drawn:
        """All that is random in the next step."""

    @abstractmethod
    def _update(self, drawn: Drawn) -> tuple[Tensor, ...]:
        """One step of both networks; returns a value for each curve."""

    def sampler(self) -> ImageNetwork:
        """A copy of the network, or of its average."""
        return copy.deepcopy(self._network if self._average is None else self._average.network)

    def _draw_batch(self) -> Drawn:
        """Which real images are next, and the noise of as many generated ones."""
        return {
            "positions_N": self._deck.deal(self._batch_size),
            "noise_NM": self._network.noise(self._batch_size, rng=self._noise_rng),
        }

    def _real(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """The drawn real images and their labels."""
        return self._images.at(drawn["positions_N"])

    def _fake(self, drawn: Drawn, labels_N: Tensor) -> Tensor:
        """Generated images of these labels, attached to the network's weights."""
        with computing_in(self._precision, labels_N.device):
            images_NCHW: Tensor = self._network(drawn["noise_NM"], labels_N)
        return images_NCHW.float()

    def _draw_looks(self, *looks: str) -> Drawn:
        """What a batch goes through before each of these looks of the discriminator."""
        drawn: dict[str, Tensor] = {}
        for look in looks:
            drawn |= named(look, self._augment.draw(self._batch_size))
        return drawn

    def _logits(self, look: str, drawn: Drawn, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """The discriminator's, (N,), of images as they are augmented for this look."""
        with computing_in(self._precision, labels_N.device):
            logits_N: Tensor = self._discriminator(self._augment.apply(images_NCHW, under(look, drawn)), labels_N)
        return logits_N.float()

    def _contest(self, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One discriminator step, on the looks "real" and "fake" of one batch.

        Returns:
            Labels; generated images, attached to the network's weights; logits of the real images; the loss.
        """
        real_NCHW, labels_N = self._real(drawn)
        fake_NCHW = self._fake(drawn, labels_N)
        real_logits_N = self._logits("real", drawn, real_NCHW, labels_N)
        fake_logits_N = self._logits("fake", drawn, fake_NCHW.detach(), labels_N)
        loss = discriminator_loss(real_logits_N, fake_logits_N)
        self._update_discriminator(loss)
        return labels_N, fake_NCHW, real_logits_N.detach(), loss.detach()

    def _update_discriminator(self, *losses: Tensor) -> None:
        """One step down the sum of some losses that share no computation."""
        self._discriminator_adam.zero_grad()
        for loss in losses:
            torch.autograd.backward(loss, inputs=list(self._discriminator.parameters()))
        self._discriminator_adam.step()

    def _update_network(self, loss: Tensor) -> None:
        self._network_adam.zero_grad()
        torch.autograd.backward(loss, inputs=list(self._network.parameters()))
        self._network_adam.step()


class Augmentation:
    """What generated and real images go through before the discriminator sees them.

    Args:
        name: "none" or "diffaugment".
        pixels: height and width of the images.
        rng: CPU generator of the draws.
    """

    def __init__(self, name: str, *, pixels: int, rng: torch.Generator) -> None:
        self._name = name
        self._pixels = pixels
        self.rng = rng

    def draw(self, count: int) -> Drawn:
        """One draw for ``count`` images; nothing where there is no augmentation."""
        return {} if self._name == "none" else draw_diffaugment(count, self._pixels, rng=self.rng)

    def apply(self, images_NCHW: Tensor, drawn: Drawn) -> Tensor:
        """Images through a draw, which can be applied as often as wished; other names in it are left aside."""
        return images_NCHW if self._name == "none" else apply_diffaugment(images_NCHW, drawn)


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
