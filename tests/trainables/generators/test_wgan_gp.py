"""The critic's loss and its steps."""

from __future__ import annotations

import torch
from torch import nn

from spaces.generators import WganGpConfig
from trainables.generators.training import TrainingImages
from trainables.generators.wgan_gp import WganGp, critic_loss

CPU = torch.device("cpu")


def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    pixels_NCHW = (0.3 * torch.randn(16, 1, 32, 32, generator=rng)).clamp(-1, 1)
    return TrainingImages(images_NCHW=pixels_NCHW, labels_N=torch.arange(16) % 2, n_classes=2)


def test_the_critics_loss_is_its_formula() -> None:
    real_N, fake_N = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 4.0, 3.0])
    assert float(critic_loss(real_N, fake_N)) == 2.0 - 1.5


def test_the_critic_takes_its_steps_and_has_no_batch_norm() -> None:
    training = WganGp(WganGpConfig(batch_size=4, width=4, latent_size=4, critic_steps=3)).train_one(
        images(), seed=1, device=CPU
    )
    training.step()
    steps = {float(each["step"]) for each in training._discriminator_adam.state.values()}
    assert steps == {3.0}
    assert {float(each["step"]) for each in training._network_adam.state.values()} == {1.0}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in training._discriminator.modules())


def test_the_penalty_holds_the_critics_slope_near_one() -> None:
    training = WganGp(WganGpConfig(batch_size=16, width=8, latent_size=8, learning_rate=1e-3)).train_one(
        images(), seed=1, device=CPU
    )
    for _ in range(40):
        training.step()
    penalties = training.curves.lists()["gradient_penalty"]
    assert penalties[-1] < 0.2
    assert penalties[-1] < penalties[0]
