"""DCGAN (Radford et al. 2016) with the non-saturating loss, conditional or one per class."""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

from spaces.generators import DcganConfig
from trainables import seeding
from trainables.generators.adversary import BETAS, AdversarialGenerator, AdversarialTraining, adversary
from trainables.generators.evolution import discriminator_loss
from trainables.generators.networks.dcgan import DcganDiscriminator
from trainables.generators.training import TrainingImages

STAGE_VERSION = 2


class Dcgan(AdversarialGenerator[DcganConfig]):
    """One discriminator and one generator step in turn, on the same generated batch."""

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> DcganTraining:
        """The training of one network, before its first step."""
        pixels, n_classes, config = images.pixels, images.n_classes, self.config
        return DcganTraining(
            config,
            self.filled_network(images, rng=seeding.generator(seed, "generator"), device=device),
            adversary(
                lambda: DcganDiscriminator(pixels=pixels, width=config.width, n_classes=n_classes, batch_norm=True),
                config,
                keep_scale=False,
                seed=seed,
                device=device,
            ),
            images,
            seed=seed,
            betas=BETAS,
            curves=("discriminator_loss", "generator_loss"),
        )


class DcganTraining(AdversarialTraining):
    """One network against one discriminator."""

    def step(self) -> None:
        """One discriminator step, then one generator step."""
        real_NCHW, labels_N = self._real()
        fake_NCHW = self._fake(labels_N)
        real_logits_N = self._discriminator(self._augment(real_NCHW), labels_N)
        fake_logits_N = self._discriminator(self._augment(fake_NCHW.detach()), labels_N)
        against = discriminator_loss(real_logits_N, fake_logits_N)
        self._update_discriminator(against)
        deceiving = softplus(-self._discriminator(self._augment(fake_NCHW), labels_N)).mean()
        self._update_network(deceiving)
        self.curves.record(against, deceiving)
