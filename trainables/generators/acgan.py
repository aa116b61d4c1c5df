"""ACGAN (Odena et al. 2017): the discriminator also tells classes apart, and both networks gain if it can."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from spaces.generators import AcganConfig
from trainables import seeding
from trainables.generators.adversary import BETAS, AdversarialGenerator, AdversarialTraining, adversary
from trainables.generators.evolution import discriminator_loss
from trainables.generators.networks.dcgan import AuxiliaryDiscriminator
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.precision import computing_in
from trainables.generators.training import TrainingImages
from trainables.training.graphs import Drawn
from trainables.training.parts import under

STAGE_VERSION = 1


class Acgan(AdversarialGenerator[AcganConfig]):
    """DCGAN's networks, the discriminator's with a second head for the classes in place of the projection."""

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> AcganTraining:
        """The training of the network, before its first step."""
        pixels, n_classes, config = images.pixels, images.n_classes, self.config
        network = self.filled_network(images, rng=seeding.generator(seed, "generator"), device=device)
        discriminator = adversary(
            lambda: AuxiliaryDiscriminator(pixels=pixels, width=config.width, n_classes=n_classes),
            config,
            keep_scale=False,
            seed=seed,
            device=device,
        )
        return AcganTraining(config, network, discriminator, images, seed=seed)


class AcganTraining(AdversarialTraining):
    """One network against one discriminator with two heads."""

    def __init__(
        self,
        config: AcganConfig,
        network: ImageNetwork,
        discriminator: AuxiliaryDiscriminator,
        images: TrainingImages,
        *,
        seed: int,
    ) -> None:
        curves = ("discriminator_loss", "generator_loss", "real_class_loss", "fake_class_loss")
        super().__init__(config, network, discriminator, images, seed=seed, betas=BETAS, curves=curves)
        self._class_weight = config.class_weight

    def _draw(self) -> Drawn:
        """One batch, and what it goes through."""
        return {**self._draw_batch(), **self._draw_looks("real", "fake", "deceiving")}

    def _update(self, drawn: Drawn) -> tuple[Tensor, ...]:
        """One discriminator step, then one generator step."""
        real_NCHW, labels_N = self._real(drawn)
        fake_NCHW = self._fake(drawn, labels_N)
        real_logits_N, real_classes_NK = self._both("real", drawn, real_NCHW)
        fake_logits_N, fake_classes_NK = self._both("fake", drawn, fake_NCHW.detach())
        against = discriminator_loss(real_logits_N, fake_logits_N)
        real_class = cross_entropy(real_classes_NK, labels_N)
        self._update_discriminator(
            against + self._class_weight * (real_class + cross_entropy(fake_classes_NK, labels_N))
        )

        logits_N, classes_NK = self._both("deceiving", drawn, fake_NCHW)
        deceiving, fake_class = source_loss(logits_N), cross_entropy(classes_NK, labels_N)
        self._update_network(deceiving + self._class_weight * fake_class)
        return against.detach(), deceiving.detach(), real_class.detach(), fake_class.detach()

    def _both(self, look: str, drawn: Drawn, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of being real (N,) and of the classes (N, K), of images as they are augmented for this look."""
        with computing_in(self._precision, images_NCHW.device):
            logits_N, classes_NK = self._discriminator(self._augment.apply(images_NCHW, under(look, drawn)))
        return logits_N.float(), classes_NK.float()


def source_loss(fake_logits_N: Tensor) -> Tensor:
    """``-E log D(G(z))``: the generator's part of L_S, not saturating.

    Source: Odena et al. 2017, equation 2; in the form of Goodfellow et al. 2014, section 3.
    """
    return softplus(-fake_logits_N).mean()
