"""What the discriminators of all adversarial generators share: augmented images, spectral normalisation, averages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spaces.generators import GanConfig
from trainables import seeding
from trainables.generators.augmentation import apply, draw_diffaugment
from trainables.generators.averages import WeightAverage
from trainables.generators.networks.dcgan import Network, create
from trainables.generators.networks.spectral import normalised

BETAS = (0.5, 0.999)
"""Adam's decays (Radford et al. 2016, section 4)."""


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


def average_of(network: Network, config: GanConfig) -> WeightAverage[Network] | None:
    """The moving average that the configuration asks for; None without one."""
    return WeightAverage(network, decay=config.ema) if config.ema else None


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Evaluate a discriminator as it is: spectral norm vectors stand still, so that equal images have equal logits."""
    network.eval()
    try:
        yield
    finally:
        network.train()
