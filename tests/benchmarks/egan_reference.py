"""E-GAN's generation as it was published, without any of the shared work: what the project's own is compared with.

Every mutation has a forward and a backward pass of its own through both networks, weights and Adam's memory are copied
with their state dicts, and every child's fitness has a real pass of its own (Wang et al. 2019, algorithm 1). Networks,
batches and noise are those of ``trainables.generators.egan`` with the same seed, so that both select the same child.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from spaces.generators import EganConfig
from trainables import seeding
from trainables.generators.adversary import BETAS
from trainables.generators.egan import Egan
from trainables.generators.training import Deck, TrainingImages
from trainables.training.determinism import deterministic

PLAIN_MUTATIONS = (
    lambda logits_N: -softplus(logits_N).mean() / 2,
    lambda logits_N: softplus(-logits_N).mean() / 2,
    lambda logits_N: (torch.sigmoid(logits_N) - 1).square().mean(),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Child:
    """A candidate: its weights, its memory and how fit it is."""

    network: dict[str, Any]
    adam: dict[str, Any]
    fitness: float


class PlainEgan:
    """One population of one survivor against one discriminator."""

    def __init__(self, config: EganConfig, images: TrainingImages, *, seed: int, device: torch.device) -> None:
        if config.survivors != 1 or config.augmentation != "none" or config.ema or config.spectral_norm:
            raise ValueError("the plain reference has one survivor and none of the options")
        owner = Egan(config)
        self._config = config
        self._images = images
        self._device = device
        self.network = owner.filled_network(images, rng=seeding.generator(seed, "generator0"), device=device)
        self.discriminator: nn.Module = owner.filled_discriminator(images, seed=seed, device=device)
        rate = config.learning_rate
        self._adam = torch.optim.Adam(self.network.parameters(), lr=rate, betas=BETAS)
        self._discriminator_adam = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=BETAS)
        self._deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        self._noise_rng = seeding.generator(seed, "latents")
        self._evaluation_rng = seeding.generator(seed, "evaluation")
        self.selected: list[int] = []

    def step(self) -> None:
        """One generation: the discriminator's steps, three mutations, their fitness, selection."""
        with deterministic(self._device):
            for _ in range(self._config.discriminator_steps):
                self._train_discriminator()
            self._evolve()

    def _train_discriminator(self) -> None:
        real_NCHW, labels_N = self._images.at(self._deck.deal(self._config.batch_size))
        noise_NM = self._noise(len(labels_N), self._noise_rng)
        with torch.no_grad():
            fake_NCHW = self.network(noise_NM, labels_N)
        self._discriminator_adam.zero_grad()
        self._adversarial(real_NCHW, fake_NCHW, labels_N).backward()
        self._discriminator_adam.step()

    def _evolve(self) -> None:
        positions_N = torch.randint(len(self._images), (self._config.batch_size,), generator=self._noise_rng)
        _, labels_N = self._images.at(positions_N)
        noise_NM = self._noise(len(labels_N), self._noise_rng)
        positions_M = torch.randperm(len(self._images), generator=self._evaluation_rng)
        real_NCHW, evaluated_N = self._images.at(positions_M[: self._config.evaluation_batch])
        evaluation_NM = self._noise(len(evaluated_N), self._evaluation_rng)
        parent, memory = copy.deepcopy(self.network.state_dict()), copy.deepcopy(self._adam.state_dict())
        children: list[_Child] = []
        for mutation in PLAIN_MUTATIONS:
            self.network.load_state_dict(parent)
            self._adam.load_state_dict(copy.deepcopy(memory))
            self._adam.zero_grad()
            mutation(self.discriminator(self.network(noise_NM, labels_N), labels_N)).backward()
            self._adam.step()
            quality, diversity = self._fitness(real_NCHW, evaluation_NM, evaluated_N)
            children.append(
                _Child(
                    network=copy.deepcopy(self.network.state_dict()),
                    adam=copy.deepcopy(self._adam.state_dict()),
                    fitness=quality + self._config.gamma * diversity,
                )
            )
        best = max(range(len(children)), key=lambda index: children[index].fitness)
        self.network.load_state_dict(children[best].network)
        self._adam.load_state_dict(children[best].adam)
        self.selected.append(best)

    def _fitness(self, real_NCHW: Tensor, noise_NM: Tensor, labels_N: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            fake_NCHW = self.network(noise_NM, labels_N)
        self.discriminator.zero_grad()
        self._adversarial(real_NCHW, fake_NCHW, labels_N).backward()
        squares = sum(each.grad.square().sum() for each in self.discriminator.parameters() if each.grad is not None)
        with torch.no_grad():
            quality = torch.sigmoid(self.discriminator(fake_NCHW, labels_N)).mean()
        return float(quality), -float(torch.as_tensor(squares).sqrt().log())

    def _adversarial(self, real_NCHW: Tensor, fake_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        real, fake = self.discriminator(real_NCHW, labels_N), self.discriminator(fake_NCHW, labels_N)
        return softplus(-real).mean() + softplus(fake).mean()

    def _noise(self, count: int, rng: torch.Generator) -> Tensor:
        return self.network.noise(count, rng=rng).to(self._device)
