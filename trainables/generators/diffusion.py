"""Class-conditional diffusion (Ho et al. 2020; Dhariwal & Nichol 2021), from random weights or a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from spaces.generators import SCRATCH, DiffusionConfig
from trainables import seeding
from trainables.generators.averages import WeightAverage
from trainables.generators.curves import Curves
from trainables.generators.networks.ddim import COSINE, noised, schedule_of, target
from trainables.generators.networks.denoiser import (
    DiffusionNetwork,
    fill_pretrained,
    fill_scratch,
    from_scratch,
    read_architecture,
    read_weights,
)
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.precision import computing_in
from trainables.generators.pretrained import ensure
from trainables.generators.training import Deck, NetworkGenerator, TrainingImages
from trainables.training.adam import adam, set_rate
from trainables.training.graphs import Drawn, Graphs
from trainables.training.parts import Part

STAGE_VERSION = 2
"""2: noise is sought in each pool, not in images of the default sampling."""
WARM_UP = 20
"""Steps over which the learning rate rises to its constant value."""
BETAS = (0.9, 0.99)
"""Adam's decays; the second forgets the large gradients of the first steps within a short training."""
RATED_WIDTH = 32
"""The width that the learning rate is meant for; that of a network from random weights goes with 1 / width, so that
the two can be searched independently (Yang et al. 2021, table 3)."""


class Diffusion(NetworkGenerator[DiffusionConfig]):
    """A UNet that takes noise away, sampled with DDIM and classifier-free guidance."""

    def network(self, pixels: int, n_classes: int) -> DiffusionNetwork:
        """The network that makes the images. Raises: DataError where ``pretrained`` cannot be used."""
        config = self.config
        if config.pretrained == SCRATCH:
            architecture, scheduler = from_scratch(pixels, config.width), COSINE
        else:
            architecture, scheduler = read_architecture(ensure(config.pretrained))
        return DiffusionNetwork(
            architecture,
            schedule=schedule_of(scheduler, sampling_steps=config.sampling_steps, clips=True),
            guidance=config.guidance,
            pixels=pixels,
            n_classes=n_classes,
        )

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> DiffusionTraining:
        """The training of one network, before its first step. Raises: DataError."""
        with torch.device("meta"):
            network = self.network(images.pixels, images.n_classes)
        network.to_empty(device="cpu")
        rng = seeding.generator(seed, "denoiser")
        if self.config.pretrained == SCRATCH:
            fill_scratch(network.denoiser, rng=rng)
        else:
            fill_pretrained(network.denoiser, read_weights(ensure(self.config.pretrained)), rng=rng)
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return DiffusionTraining(self.config, network, images, seed=seed)


class DiffusionTraining:
    """One network learns to take noise away; a ``NetworkTraining``."""

    def __init__(
        self, config: DiffusionConfig, network: DiffusionNetwork, images: TrainingImages, *, seed: int
    ) -> None:
        self._config = config
        self._images = images
        self._network = network.train()
        self._rate = config.learning_rate * (RATED_WIDTH / config.width if config.pretrained == SCRATCH else 1)
        self._adam = adam(network.parameters(), rate=self._rate, betas=BETAS)
        self._average = WeightAverage(network, decay=config.ema)
        self._deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        self._rng = seeding.generator(seed, "noise")
        self._steps = Steps()
        self._graphs = Graphs(images.images_NCHW.device)
        self.curves = Curves("loss")

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that changes from step to step."""
        return {
            "network": self._network,
            "adam": self._adam,
            "average": self._average,
            "deck": self._deck,
            "rng": self._rng,
            "steps": self._steps,
        }

    def step(self) -> None:
        """One step down the mean squared error of the prediction, at random time steps."""
        set_rate(self._adam, self._rate * min(1.0, (self._steps.done + 1) / WARM_UP))
        (loss,) = self._graphs.run(self._update, self._draw())
        self._average.update(self._network)
        self._steps.done += 1
        self.curves.record(loss)

    def _draw(self) -> Drawn:
        """Which images, how noisy and which noise, and whose label is dropped."""
        network, alphas_T, size = self._network, self._network.schedule.alphas_T, self._config.batch_size
        positions_N = self._deck.deal(size)
        timesteps_N = torch.randint(len(alphas_T), (size,), generator=self._rng)
        return {
            "positions_N": positions_N,
            "timesteps_N": timesteps_N,
            "alphas_N": alphas_T[timesteps_N],
            "dropped_N": torch.rand(size, generator=self._rng) < self._config.label_dropout,
            "noise_N1SS": torch.randn(size, 1, network.side, network.side, generator=self._rng),
        }

    def _update(self, drawn: Drawn) -> tuple[Tensor, ...]:
        """One step. Source: Ho et al. 2020, equation 14; labels dropped as in Ho & Salimans 2022, algorithm 1."""
        network, alphas_N, noise_N1SS = self._network, drawn["alphas_N"], drawn["noise_N1SS"]
        images_NCHW, labels_N = self._images.at(drawn["positions_N"])
        clean_N1SS = network.padded(images_NCHW)
        labels_N = torch.where(drawn["dropped_N"], network.denoiser.n_classes, labels_N)
        with computing_in(self._config.precision, labels_N.device):
            predicted_N1SS = network.denoiser(
                noised(clean_N1SS, noise_N1SS, alphas_N), drawn["timesteps_N"], labels_N
            ).float()
        wanted_N1SS = target(clean_N1SS, noise_N1SS, alphas_N, network.schedule.prediction)
        loss = (predicted_N1SS - wanted_N1SS).square().mean()
        self._adam.zero_grad()
        torch.autograd.backward(loss)
        self._adam.step()
        return (loss.detach(),)

    def sampler(self) -> ImageNetwork:
        """A copy of the average."""
        return copy.deepcopy(self._average.network)


class Steps:
    """How many steps were done; part of a checkpoint."""

    def __init__(self) -> None:
        self.done = 0

    def state(self) -> dict[str, Tensor]:
        """The number."""
        return {"done": torch.tensor(self.done)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self.done = int(state["done"])
