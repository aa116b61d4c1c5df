"""DCGAN (Radford et al. 2016) with the non-saturating loss, conditional or one per class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from spaces.generators import DcganConfig
from trainables import seeding
from trainables.generators.adversary import BETAS, AdversarialGenerator, AdversarialTraining, adversary
from trainables.generators.networks.dcgan import DcganDiscriminator
from trainables.generators.training import TrainingImages
from trainables.training.graphs import Drawn

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

    def _draw(self) -> Drawn:
        """One batch, and what it goes through."""
        return {**self._draw_batch(), **self._draw_looks("real", "fake", "deceiving")}

    def _update(self, drawn: Drawn) -> tuple[Tensor, ...]:
        """One discriminator step, then one generator step."""
        labels_N, fake_NCHW, _, against = self._contest(drawn)
        deceiving = softplus(-self._logits("deceiving", drawn, fake_NCHW, labels_N)).mean()
        self._update_network(deceiving)
        return against, deceiving.detach()
