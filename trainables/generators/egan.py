"""Evolutionary GAN (Wang et al. 2019): three losses compete for every generator step, conditional or one per class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from spaces.generators import EganConfig
from trainables import seeding
from trainables.generators.adversary import BETAS, AdversarialGenerator, Augmentation, adversary, frozen
from trainables.generators.curves import Curves
from trainables.generators.evolution import (
    MUTATIONS,
    discriminator_loss,
    fitness,
    fittest,
    mutation_gradients,
    real_gradients,
)
from trainables.generators.networks.dcgan import DcganDiscriminator
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.parts import Part
from trainables.generators.population import Individual, Population, child_of, embody, first_individual, images_of
from trainables.generators.training import Deck, TrainingImages

STAGE_VERSION = 2

Judge: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A child's images to its quality F_q and diversity F_d."""


class Egan(AdversarialGenerator[EganConfig]):
    """Discriminator steps, then every survivor mutates three ways and the fittest children survive."""

    def discriminator(self, pixels: int, n_classes: int) -> nn.Module:
        """The discriminator; no layer of it may let one image's logit depend on another image."""
        return DcganDiscriminator(pixels=pixels, width=self.config.width, n_classes=n_classes, batch_norm=False)

    def filled_discriminator(self, images: TrainingImages, *, seed: int, device: torch.device) -> nn.Module:
        """The discriminator before its first step."""
        return adversary(
            lambda: self.discriminator(images.pixels, images.n_classes),
            self.config,
            keep_scale=True,
            seed=seed,
            device=device,
        )

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> EganTraining:
        """The training of one population, before its first generation."""
        return EganTraining(self, images, seed=seed, device=device)


class EganTraining:
    """A population against one discriminator; a ``NetworkTraining``.

    Its curves have one entry per generation: ``discriminator_loss``; ``selected``, per survivor the index of its
    mutation in the order of ``evolution.MUTATIONS``, fittest first; and per parent ``loss/NAME``, ``quality/NAME``
    (F_q) and ``diversity/NAME`` (F_d) of the child of each mutation.
    """

    def __init__(self, owner: Egan, images: TrainingImages, *, seed: int, device: torch.device) -> None:
        config = owner.config
        self._config = config
        self._images = images
        networks = [
            owner.filled_network(images, rng=seeding.generator(seed, f"generator{index}"), device=device)
            for index in range(config.survivors)
        ]
        self._network = networks[0]
        self.population = Population(tuple(first_individual(each, averaged=config.ema > 0) for each in networks))
        self._discriminator = owner.filled_discriminator(images, seed=seed, device=device)
        self._weights = tuple(self._discriminator.parameters())
        self._adam = torch.optim.Adam(self._weights, lr=config.learning_rate, betas=BETAS, fused=True)
        self._augment = Augmentation(config.augmentation, rng=seeding.generator(seed, "augmentation"))
        self._deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        self._noise_rng = seeding.generator(seed, "latents")
        self._evaluation_rng = seeding.generator(seed, "evaluation")
        measured = [f"{quantity}/{name}" for quantity in ("loss", "quality", "diversity") for name in MUTATIONS]
        self.curves = Curves("discriminator_loss", "selected", *measured)

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that changes from generation to generation."""
        return {
            "population": self.population,
            "discriminator": self._discriminator,
            "adam": self._adam,
            "augmentation": self._augment.rng,
            "deck": self._deck,
            "noise": self._noise_rng,
            "evaluation": self._evaluation_rng,
        }

    def step(self) -> None:
        """Train the discriminator, mutate every survivor, keep the fittest children."""
        discriminator_losses = [self._train_discriminator() for _ in range(self._config.discriminator_steps)]
        children: list[Individual] = []
        losses: list[Tensor] = []
        with frozen(self._discriminator):
            for survivor in self.population.survivors:
                offspring, child_losses = self.mutate(survivor)
                children += offspring
                losses += child_losses
            quality, diversity = self.evaluate(children)
        chosen = fittest((quality + self._config.gamma * diversity).tolist(), self._config.survivors)
        self.population.survivors = tuple(children[child] for child in chosen)
        by_mutation = [each.view(-1, len(MUTATIONS)).unbind(1) for each in (torch.stack(losses), quality, diversity)]
        self.curves.record(
            torch.stack(discriminator_losses).mean(),
            torch.tensor(chosen) % len(MUTATIONS),
            *(column_P for columns in by_mutation for column_P in columns),
        )

    def sampler(self) -> ImageNetwork:
        """A copy of the fittest of the last generation."""
        network = copy.deepcopy(self._network)
        embody(network, self.population.survivors[0])
        return network

    def _train_discriminator(self) -> Tensor:
        """One step on real images and on fresh generated ones, split evenly over the survivors."""
        real_NCHW, labels_N = self._images.at(self._deck.deal(self._config.batch_size))
        survivors = self.population.survivors
        shares = zip(
            survivors,
            self._noise(len(labels_N), self._noise_rng).tensor_split(len(survivors)),
            labels_N.tensor_split(len(survivors)),
            strict=True,
        )
        with torch.no_grad():
            fake_NCHW = torch.cat([images_of(self._network, *share) for share in shares if len(share[1])])
        self._adam.zero_grad()
        loss = self._discriminator_loss(real_NCHW, fake_NCHW, labels_N)
        torch.autograd.backward(loss)
        self._adam.step()
        return loss.detach()

    def _discriminator_loss(self, real_NCHW: Tensor, fake_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """What the discriminator learns to make small."""
        return discriminator_loss(
            self._discriminator(self._augment(real_NCHW), labels_N),
            self._discriminator(self._augment(fake_NCHW), labels_N),
        )

    def mutate(self, parent: Individual) -> tuple[list[Individual], list[Tensor]]:
        """The parent's children and their losses, in the order of the mutations; all share noise and augmentation."""
        config = self._config
        positions_N = torch.randint(len(self._images), (config.batch_size,), generator=self._noise_rng)
        _, labels_N = self._images.at(positions_N)
        noise_NM = self._noise(len(labels_N), self._noise_rng)
        start = Individual(
            parameters=tuple(each.detach().requires_grad_() for each in parent.parameters),
            buffers=tuple(each.clone() for each in parent.buffers),
            moments=parent.moments,
            average=parent.average,
        )
        augment = self._augment.draw(len(labels_N), self._images.pixels)
        gradients, logits_N = mutation_gradients(
            images_of(self._network, start, noise_NM, labels_N),
            start.parameters,
            lambda images_NCHW: self._discriminator(augment(images_NCHW), labels_N),
        )
        children = [
            child_of(parent, each, start.buffers, learning_rate=config.learning_rate, betas=BETAS, decay=config.ema)
            for each in gradients
        ]
        return children, [loss(logits_N) for loss in MUTATIONS.values()]

    def evaluate(self, children: Sequence[Individual]) -> tuple[Tensor, Tensor]:
        """F_q and F_d of each child, on one real and one noise batch for all of them."""
        positions_M = torch.randperm(len(self._images), generator=self._evaluation_rng)
        real_NCHW, labels_N = self._images.at(positions_M[: self._config.evaluation_batch])
        noise_NM = self._noise(len(labels_N), self._evaluation_rng)
        judge = self._judge(real_NCHW, labels_N)
        found = []
        for child in children:
            with torch.no_grad():
                fake_NCHW = images_of(self._network, child, noise_NM, labels_N)
            found.append(torch.stack(judge(fake_NCHW)))
        quality, diversity = torch.stack(found).unbind(1)
        return quality, diversity

    def _judge(self, real_NCHW: Tensor, labels_N: Tensor) -> Judge:
        """How children are judged beside a batch of real images, of the same labels as theirs."""
        augment = self._augment.draw(len(labels_N), self._images.pixels)
        shared = real_gradients(self._discriminator(augment(real_NCHW), labels_N), self._weights)
        return lambda fake_NCHW: fitness(self._discriminator(augment(fake_NCHW), labels_N), self._weights, shared)

    def _noise(self, count: int, rng: torch.Generator) -> Tensor:
        return self._network.noise(count, rng=rng).to(self._images.images_NCHW.device)
