"""A discriminator's step that takes the gradient by which the fittest child was judged, for E-GAN and DAE GAN."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spaces.generators import DaeGanConfig, EganConfig
from trainables.data.image_set import ImageSet
from trainables.generators.adversary import BETAS
from trainables.generators.egan import EganTraining
from trainables.generators.population import images_of
from trainables.generators.registry import build
from trainables.generators.training import NetworksTraining
from trainables.training.graphs import Drawn

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "batch_size": 8,
    "latent_size": 8,
    "width": 8,
    "evaluation_batch": 16,
    "learning_rate": 2e-3,
    "gamma": 0.5,
    "discriminator_steps": 1,
    "reuse_gradient": True,
}
BOTH_MIXED: dict[str, Any] = {"mixed_input": True, "mixed_fitness": True}
CONFIGS = {
    "egan": EganConfig(**SMALL),
    "egan, three steps": EganConfig(**{**SMALL, "discriminator_steps": 3}),
    "egan, augmented": EganConfig(**SMALL, augmentation="diffaugment", spectral_norm=True),
    "egan, survivors": EganConfig(**SMALL, survivors=3),
    "dae_gan, mixed": DaeGanConfig(**SMALL, **BOTH_MIXED, augmentation="diffaugment"),
    "dae_gan, unmixed": DaeGanConfig(**SMALL, mixed_input=False, survivors=2),
}
EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def toy() -> ImageSet:
    rng = torch.Generator().manual_seed(0)
    names = tuple(f"image{index}" for index in range(20))
    return ImageSet(
        images_NCHW=(0.3 * torch.randn(20, 1, 16, 16, generator=rng)).clamp(-1, 1),
        labels_N=torch.arange(20) % 2,
        ids=names,
        patients=names,
        classes=("a", "b"),
    )


def begin(config: EganConfig) -> NetworksTraining:
    training = build(config).begin(toy(), seed=3, device=CPU)
    assert isinstance(training, NetworksTraining)
    return training


def only(training: NetworksTraining) -> EganTraining:
    (one,) = training._trainings.values()
    assert isinstance(one, EganTraining)
    return one


class Judged:
    """A training whose last evaluation's draws are kept."""

    def __init__(self, config: EganConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.training = only(begin(config))
        self.drawn: Drawn = {}
        draw = self.training._draw_evaluation

        def watched() -> Drawn:
            self.drawn = draw()
            return self.drawn

        monkeypatch.setattr(self.training, "_draw_evaluation", watched)

    def loss(self, discriminator: nn.Module) -> Tensor:
        """The discriminator's loss on what the fittest survivor was judged on, written out."""
        training, drawn = self.training, self.drawn
        real_NCHW, labels_N = training._images.at(drawn["positions_N"])
        survivors = training.population.survivors
        statistics = [each.clone() for each in survivors.buffers.views[0]]
        with torch.no_grad():
            fake_NCHW = images_of(
                training._network, survivors.parameters.views[0], statistics, drawn["noise_NM"], labels_N
            )

        def certainty(images_NCHW: Tensor) -> Tensor:
            return torch.sigmoid(discriminator(training._augment.apply(images_NCHW, drawn), labels_N))

        if "real_share_N" not in drawn:
            return -torch.log(certainty(real_NCHW)).mean() - torch.log(1 - certainty(fake_NCHW)).mean()
        share_N = drawn["real_share_N"]
        share_N111 = share_N[:, None, None, None]
        s_N = certainty(share_N111 * real_NCHW + (1 - share_N111) * fake_NCHW)
        return (-share_N * torch.log(s_N) - (1 - share_N) * torch.log(1 - s_N)).mean()


def twin(training: EganTraining) -> tuple[nn.Module, torch.optim.Adam]:
    """A copy of the discriminator as it judges, and PyTorch's plainest Adam with the same memory."""
    discriminator = copy.deepcopy(training._discriminator).eval()
    rate = training._config.learning_rate
    adam = torch.optim.Adam(discriminator.parameters(), lr=rate, betas=BETAS, foreach=False, fused=False)
    for own, theirs in zip(training._weights, discriminator.parameters(), strict=True):
        adam.state[theirs] = {name: value.clone() for name, value in training._adam.state[own].items()}
    return discriminator, adam


@EVERY
def test_the_step_is_adams_down_the_survivors_loss_on_the_evaluations_images(
    config: EganConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = Judged(dataclasses.replace(config, discriminator_steps=1), monkeypatch)
    judged.training.step()
    for _ in range(3):
        discriminator, adam = twin(judged.training)
        before = [each.detach().clone() for each in discriminator.parameters()]
        loss = judged.loss(discriminator)
        torch.autograd.backward(loss)
        adam.step()
        judged.training.step()
        recorded = judged.training.curves.lists()["discriminator_loss"][-1]
        assert recorded == pytest.approx(float(loss.detach()), rel=1e-5)
        moved = 0.0
        for mine, theirs, was in zip(judged.training._weights, discriminator.parameters(), before, strict=True):
            # Adam divides by the gradient's own size: where that is next to nothing, its sign is one of rounding
            close = (mine - theirs).detach().abs() < 1e-5
            assert float(close.double().mean()) > 0.999
            moved += float((mine - was).detach().abs().sum())
        assert moved > 0


@EVERY
def test_the_first_generation_is_the_ordinary_one(config: EganConfig) -> None:
    ordinary, reusing = begin(dataclasses.replace(config, reuse_gradient=False)), begin(config)
    for training in (ordinary, reusing):
        training.step()
    expected, found = ordinary.state(), reusing.state()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert {name for name in found if "/handed_on/" in name} == set(found) - set(expected)
    for training in (ordinary, reusing):
        training.step()
    one, other = (only(each)._weights[0] for each in (ordinary, reusing))
    assert not torch.equal(one, other)


@EVERY
def test_only_the_first_step_of_a_generation_needs_no_images_of_its_own(config: EganConfig) -> None:
    training = only(begin(config))

    def steps_with_images() -> set[str]:
        return {name.split("/")[0] for name in training._draw() if name.startswith("discriminator")}

    every = {f"discriminator{index}" for index in range(config.discriminator_steps)}
    assert steps_with_images() == every
    training.step()
    assert steps_with_images() == every - {"discriminator0"}


@pytest.mark.parametrize("name", ["egan", "dae_gan, unmixed"])
def test_spectral_normalisation_follows_weights_that_only_such_steps_move(name: str) -> None:
    training = only(begin(dataclasses.replace(CONFIGS[name], spectral_norm=True)))
    for _ in range(60):
        training.step()
    training._discriminator.eval()
    layers = [each for each in training._discriminator.modules() if parametrize.is_parametrized(each)]
    sizes = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]
    assert len(sizes) > 3
    assert sizes == pytest.approx([1.0] * len(sizes), rel=0.2)


@pytest.mark.parametrize("before", [0, 1, 3])
@EVERY
def test_a_training_goes_on_from_a_checkpoint_with_the_same_bytes(config: EganConfig, before: int) -> None:
    undisturbed = begin(config)
    for _ in range(before):
        undisturbed.step()
    checkpoint: Mapping[str, Tensor] = {name: value.clone() for name, value in undisturbed.state().items()}
    resumed = begin(config)
    resumed.restore(checkpoint)
    assert all(torch.equal(value, checkpoint[name]) for name, value in resumed.state().items())
    for _ in range(2):
        undisturbed.step()
        resumed.step()
    expected = undisturbed.state()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state().items())
