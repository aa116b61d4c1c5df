"""WGAN-GP (Gulrajani et al. 2017): a critic's mean difference in place of a discriminator, its slope held at 1."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.generators import WganGpConfig
from trainables import seeding
from trainables.generators.adversary import AdversarialGenerator, AdversarialTraining, adversary
from trainables.generators.networks.dcgan import DcganDiscriminator
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.parts import Part
from trainables.generators.regularisation import gradient_penalty
from trainables.generators.training import TrainingImages

STAGE_VERSION = 1
BETAS = (0.0, 0.9)
"""Adam's decays (Gulrajani et al. 2017, algorithm 1)."""


class WganGp(AdversarialGenerator[WganGpConfig]):
    """Several critic steps, then one generator step."""

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> WganGpTraining:
        """The training of one network, before its first step."""
        pixels, n_classes, config = images.pixels, images.n_classes, self.config
        network = self.filled_network(images, rng=seeding.generator(seed, "generator"), device=device)
        critic = adversary(
            lambda: DcganDiscriminator(pixels=pixels, width=config.width, n_classes=n_classes, batch_norm=False),
            config,
            keep_scale=True,
            seed=seed,
            device=device,
        )
        return WganGpTraining(config, network, critic, images, seed=seed)


class WganGpTraining(AdversarialTraining):
    """One network against one critic, which has no batch normalisation."""

    def __init__(
        self,
        config: WganGpConfig,
        network: ImageNetwork,
        critic: DcganDiscriminator,
        images: TrainingImages,
        *,
        seed: int,
    ) -> None:
        curves = ("critic_loss", "generator_loss", "gradient_penalty")
        super().__init__(config, network, critic, images, seed=seed, betas=BETAS, curves=curves)
        self._config = config
        self._mixing_rng = seeding.generator(seed, "penalty")

    @property
    def parts(self) -> dict[str, Part]:
        """Everything that changes from step to step."""
        return {**super().parts, "mixing": self._mixing_rng}

    def step(self) -> None:
        """The critic's steps, then one generator step."""
        found = [torch.stack(self._train_critic()) for _ in range(self._config.critic_steps)]
        critic_loss, penalty = torch.stack(found).mean(dim=0).unbind()
        _, labels_N = self._real()
        deceiving = -self._discriminator(self._augment(self._fake(labels_N)), labels_N).mean()
        self._update_network(deceiving)
        self.curves.record(critic_loss, deceiving, penalty)

    def _train_critic(self) -> tuple[Tensor, Tensor]:
        """One critic step. Returns: ``E D(G(z)) - E D(x)`` and the penalty, both detached."""
        real_NCHW, labels_N = self._real()
        with torch.no_grad():
            fake_NCHW = self._augment(self._fake(labels_N))
        real_NCHW = self._augment(real_NCHW)
        difference = critic_loss(self._discriminator(real_NCHW, labels_N), self._discriminator(fake_NCHW, labels_N))
        penalty = gradient_penalty(
            lambda mixed_NCHW: self._discriminator(mixed_NCHW, labels_N),
            real_NCHW,
            fake_NCHW,
            mix_N=torch.rand(len(labels_N), generator=self._mixing_rng),
        )
        self._update_discriminator(difference + self._config.penalty * penalty)
        return difference.detach(), penalty.detach()


def critic_loss(real_values_N: Tensor, fake_values_N: Tensor) -> Tensor:
    """``E D(G(z)) - E D(x)``. Source: Gulrajani et al. 2017, equation 3, without the penalty."""
    return fake_values_N.mean() - real_values_N.mean()
