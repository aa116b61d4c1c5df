"""The critic's loss and its steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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


def critic_after_a_step(operations_before: int, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The critic's weights, where the penalty's derivative is computed by a thread of its own, as a GPU's is."""
    gradient = torch.autograd.grad

    def train() -> list[Tensor]:
        counted = torch.ones(1, requires_grad=True)
        for _ in range(operations_before):
            counted * 1
        training = WganGp(WganGpConfig(batch_size=8, width=8, latent_size=4, critic_steps=1)).train_one(
            images(), seed=1, device=CPU
        )
        training.step()
        return [each.detach().clone() for each in training._discriminator.parameters()]

    def elsewhere(*given: Any, **named: Any) -> Any:
        return beside.submit(gradient, *given, **named).result()

    with ThreadPoolExecutor(1) as main, ThreadPoolExecutor(1) as beside, monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", elsewhere)
        return main.submit(train).result()


def test_a_step_does_not_depend_on_what_its_process_computed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, later = (critic_after_a_step(count, monkeypatch) for count in (0, 20_000))
    assert all(torch.equal(one, other) for one, other in zip(fresh, later, strict=True))
