"""WGAN-GP (Gulrajani et al. 2017): a critic's mean difference in place of a discriminator, its slope held at 1."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.generators import WganGpConfig
from trainables import seeding
from trainables.generators.adversary import AdversarialGenerator, AdversarialTraining, adversary
from trainables.generators.networks.dcgan import DcganDiscriminator
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.precision import computing_in
from trainables.generators.regularisation import gradient_penalty
from trainables.generators.training import TrainingImages
from trainables.training.graphs import Drawn
from trainables.training.parts import Part, named, under

STAGE_VERSION = 2
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

    def _draw(self) -> Drawn:
        """A batch for each critic step, and one for the generator's, whose labels are those of real images."""
        drawn: dict[str, Tensor] = {}
        for index in range(self._config.critic_steps):
            drawn |= named(f"critic{index}", self._draw_critic())
        return {**drawn, **self._draw_batch(), **self._draw_looks("deceiving")}

    def _draw_critic(self) -> Drawn:
        mix_N = torch.rand(self._batch_size, generator=self._mixing_rng)
        return {**self._draw_batch(), **self._draw_looks("fake", "real"), "mix_N": mix_N}

    def _update(self, drawn: Drawn) -> tuple[Tensor, ...]:
        """The critic's steps, then one generator step."""
        steps = range(self._config.critic_steps)
        found = [torch.stack(self._train_critic(under(f"critic{index}", drawn))) for index in steps]
        critic_loss, penalty = torch.stack(found).mean(dim=0).unbind()
        _, labels_N = self._real(drawn)
        deceiving = -self._logits("deceiving", drawn, self._fake(drawn, labels_N), labels_N).mean()
        self._update_network(deceiving)
        return critic_loss, deceiving.detach(), penalty

    def _train_critic(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """One critic step. Returns: ``E D(G(z)) - E D(x)`` and the penalty, both detached."""
        real_NCHW, labels_N = self._real(drawn)
        with torch.no_grad():
            fake_NCHW = self._augment.apply(self._fake(drawn, labels_N), under("fake", drawn))
        real_NCHW = self._augment.apply(real_NCHW, under("real", drawn))
        difference = critic_loss(self._values(real_NCHW, labels_N), self._values(fake_NCHW, labels_N))
        penalty = gradient_penalty(
            lambda mixed_NCHW: self._discriminator(mixed_NCHW, labels_N), real_NCHW, fake_NCHW, mix_N=drawn["mix_N"]
        )
        # Apart: in one backward pass a GPU's first step of a process would add up their gradients in another order than
        # all others do, since the thread that computes the penalty's own derivative counts its operations by itself.
        self._update_discriminator(difference, self._config.penalty * penalty)
        return difference.detach(), penalty.detach()

    def _values(self, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """The critic's, (N,), of images that are augmented already; the penalty computes them in full precision."""
        with computing_in(self._precision, labels_N.device):
            values_N: Tensor = self._discriminator(images_NCHW, labels_N)
        return values_N.float()


def critic_loss(real_values_N: Tensor, fake_values_N: Tensor) -> Tensor:
    """``E D(G(z)) - E D(x)``. Source: Gulrajani et al. 2017, equation 3, without the penalty."""
    return fake_values_N.mean() - real_values_N.mean()
