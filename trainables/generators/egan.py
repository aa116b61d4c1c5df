"""Evolutionary GAN (Wang et al. 2019): three losses compete for every generator step, conditional or one per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call

from spaces.generators import EganConfig
from trainables import seeding
from trainables.data.image_set import ImageSet
from trainables.generators.adam import Moments, adam_step, no_moments
from trainables.generators.base import History, OnStep
from trainables.generators.evolution import (
    MUTATIONS,
    discriminator_loss,
    fitness,
    fittest,
    mutation_gradients,
    real_gradients,
)
from trainables.generators.fitted import FittedGan, load_gan
from trainables.generators.networks.dcgan import DcganDiscriminator, DcganGenerator, create
from trainables.generators.training import Curves, Deck, TrainingImages, fit_gan

STAGE_VERSION = 1
BETAS = (0.5, 0.999)
"""Adam's decays, of the discriminator and of all mutations."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Individual:
    """One generator of the population: weights, batch normalisation buffers (updated in place), Adam's memory."""

    parameters: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...]
    moments: Moments


class Egan:
    """Discriminator steps, then every survivor mutates three ways and the fittest children survive.

    Its curves have one entry per generation: ``discriminator_loss``; ``selected``, per survivor the index of its
    mutation in the order of ``evolution.MUTATIONS``, fittest first; and per parent ``loss/NAME``, ``quality/NAME``
    (F_q) and ``diversity/NAME`` (F_d) of the child of each mutation.
    """

    def __init__(self, config: EganConfig) -> None:
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
        evolution = _Evolution(self._config, images, seed=seed, device=device)
        for step in range(self._config.steps):
            evolution.generation()
            on_step(step + 1)
        return evolution.best(), evolution.curves.lists()


class _Evolution:
    """One training: the discriminator, the survivors (fittest first), the random streams, the curves."""

    def __init__(self, config: EganConfig, images: TrainingImages, *, seed: int, device: torch.device) -> None:
        self._config = config
        self._images = images
        self._device = device
        pixels, n_classes = images.images_NCHW.shape[-1], images.n_classes
        networks = [
            create(
                lambda: _network(config, pixels, n_classes),
                rng=seeding.generator(seed, f"generator{index}"),
                device=device,
            )
            for index in range(config.survivors)
        ]
        self._network = networks[0]
        self._survivors = tuple(_individual(each) for each in networks)
        self._discriminator = create(
            lambda: DcganDiscriminator(pixels=pixels, width=config.width, n_classes=n_classes, batch_norm=False),
            keep_scale=True,
            rng=seeding.generator(seed, "discriminator"),
            device=device,
        )
        self._weights = tuple(self._discriminator.parameters())
        self._adam = torch.optim.Adam(self._weights, lr=config.learning_rate, betas=BETAS, fused=True)
        self._deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        self._latents_rng = seeding.generator(seed, "latents")
        self._evaluation_rng = seeding.generator(seed, "evaluation")
        measured = [f"{quantity}/{name}" for quantity in ("loss", "quality", "diversity") for name in MUTATIONS]
        self.curves = Curves("discriminator_loss", "selected", *measured)

    def generation(self) -> None:
        """Train the discriminator, mutate every survivor, keep the fittest children."""
        discriminator_losses = [self._train_discriminator() for _ in range(self._config.discriminator_steps)]
        children: list[Individual] = []
        losses: list[Tensor] = []
        for survivor in self._survivors:
            offspring, child_losses = self._mutate(survivor)
            children += offspring
            losses += child_losses
        quality, diversity = self._evaluate(children)
        chosen = fittest((quality + self._config.gamma * diversity).tolist(), self._config.survivors)
        self._survivors = tuple(children[child] for child in chosen)
        by_mutation = [each.view(-1, len(MUTATIONS)).unbind(1) for each in (torch.stack(losses), quality, diversity)]
        self.curves.record(
            torch.stack(discriminator_losses).mean(),
            torch.tensor(chosen) % len(MUTATIONS),
            *(column_P for columns in by_mutation for column_P in columns),
        )

    def best(self) -> DcganGenerator:
        """The fittest of the last generation."""
        with torch.no_grad():
            for parameter, value in zip(self._network.parameters(), self._survivors[0].parameters, strict=True):
                parameter.copy_(value)
        return self._network

    def _train_discriminator(self) -> Tensor:
        """One step on real images and on fresh generated ones, split evenly over the survivors."""
        real_NCHW, labels_N = self._images.at(self._deck.deal(self._config.batch_size))
        shares = zip(
            self._survivors,
            self._latents(len(labels_N), self._latents_rng).tensor_split(len(self._survivors)),
            labels_N.tensor_split(len(self._survivors)),
            strict=True,
        )
        with torch.no_grad():
            fake_NCHW = torch.cat([self._images_of(*share) for share in shares if len(share[1])])
        self._adam.zero_grad()
        loss = discriminator_loss(self._discriminator(real_NCHW, labels_N), self._discriminator(fake_NCHW, labels_N))
        torch.autograd.backward(loss)
        self._adam.step()
        return loss.detach()

    def _mutate(self, parent: Individual) -> tuple[list[Individual], list[Tensor]]:
        """The parent's children and their losses, in the order of the mutations; all share one noise batch."""
        positions_N = torch.randint(len(self._images), (self._config.batch_size,), generator=self._latents_rng)
        _, labels_N = self._images.at(positions_N)
        latents_NL = self._latents(len(labels_N), self._latents_rng)
        start = Individual(
            parameters=tuple(each.detach().requires_grad_() for each in parent.parameters),
            buffers=tuple(each.clone() for each in parent.buffers),
            moments=parent.moments,
        )
        fake_NCHW = self._images_of(start, latents_NL, labels_N)
        gradients, logits_N = mutation_gradients(
            fake_NCHW, start.parameters, lambda images_NCHW: self._discriminator(images_NCHW, labels_N)
        )
        children = []
        for each in gradients:
            parameters, moments = adam_step(
                parent.parameters, each, parent.moments, learning_rate=self._config.learning_rate, betas=BETAS
            )
            buffers = tuple(buffer.clone() for buffer in start.buffers)
            children.append(Individual(parameters=parameters, buffers=buffers, moments=moments))
        return children, [loss(logits_N) for loss in MUTATIONS.values()]

    def _evaluate(self, children: list[Individual]) -> tuple[Tensor, Tensor]:
        """F_q and F_d of each child, on one real and one noise batch for all of them."""
        positions_M = torch.randperm(len(self._images), generator=self._evaluation_rng)
        real_NCHW, labels_N = self._images.at(positions_M[: self._config.evaluation_batch])
        latents_NL = self._latents(len(labels_N), self._evaluation_rng)
        shared = real_gradients(self._discriminator(real_NCHW, labels_N), self._weights)
        found = []
        for child in children:
            with torch.no_grad():
                fake_NCHW = self._images_of(child, latents_NL, labels_N)
            found.append(torch.stack(fitness(self._discriminator(fake_NCHW, labels_N), self._weights, shared)))
        quality, diversity = torch.stack(found).unbind(1)
        return quality, diversity

    def _images_of(self, individual: Individual, latents_NL: Tensor, labels_N: Tensor) -> Tensor:
        """Images in training mode; updates the individual's buffers."""
        names = (name for name, _ in self._network.named_parameters())
        buffer_names = (name for name, _ in self._network.named_buffers())
        tensors = dict(zip(names, individual.parameters, strict=True))
        tensors |= dict(zip(buffer_names, individual.buffers, strict=True))
        images_NCHW: Tensor = functional_call(self._network, tensors, (latents_NL, labels_N))
        return images_NCHW

    def _latents(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randn(count, self._config.latent_size, generator=rng).to(self._device)


def _individual(network: DcganGenerator) -> Individual:
    """A network as a member of the first generation."""
    parameters = tuple(each.detach().clone() for each in network.parameters())
    buffers = tuple(each.clone() for each in network.buffers())
    return Individual(parameters=parameters, buffers=buffers, moments=no_moments(parameters))


def _network(config: EganConfig, pixels: int, n_classes: int) -> DcganGenerator:
    return DcganGenerator(pixels=pixels, latent_size=config.latent_size, width=config.width, n_classes=n_classes)
