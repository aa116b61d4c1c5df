"""DAE GAN as a whole: each of its parts on its own, its discriminator's loss, its fitness."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from spaces.generators import DaeGanConfig
from tests.trainables.generators.whole_trainings import fit
from trainables.data.image_set import ImageSet
from trainables.generators import evolution
from trainables.generators.dae_gan import DaeGan, DaeGanTraining
from trainables.generators.mixed_input import mixed_images, real_shares
from trainables.generators.networks.residual import SelfAttention
from trainables.generators.population import images_of
from trainables.generators.training import TrainingImages

CPU = torch.device("cpu")


def images(count: int = 20) -> ImageSet:
    rng = torch.Generator().manual_seed(0)
    names = tuple(f"image{index}" for index in range(count))
    return ImageSet(
        images_NCHW=(0.3 * torch.randn(count, 1, 16, 16, generator=rng)).clamp(-1, 1),
        labels_N=torch.arange(count) % 2,
        ids=names,
        patients=names,
        classes=("a", "b"),
    )


def config(**settings: Any) -> DaeGanConfig:
    small = {"steps": 2, "batch_size": 8, "latent_size": 8, "width": 8, "evaluation_batch": 16, "learning_rate": 2e-3}
    return DaeGanConfig(**(small | settings))


def training(**settings: Any) -> DaeGanTraining:
    train = images()
    part = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)
    begun = DaeGan(config(**settings)).train_one(part, seed=1, device=CPU)
    assert isinstance(begun, DaeGanTraining)
    return begun


def formula_12(logits_N: Tensor, real_share_N: Tensor) -> Tensor:
    s_N = torch.sigmoid(logits_N)
    return (-real_share_N * torch.log(s_N) - (1 - real_share_N) * torch.log(1 - s_N)).mean()


def batch(trained: DaeGanTraining) -> tuple[Tensor, Tensor, Tensor]:
    """Real images, generated ones and their labels."""
    real_NCHW, labels_N = trained._images.at(torch.arange(8))
    noise_NM = trained._network.noise(8, rng=torch.Generator().manual_seed(3))
    with torch.no_grad():
        survivors = trained.population.survivors
        fake_NCHW = images_of(
            trained._network, survivors.parameters.views[0], survivors.buffers.views[0], noise_NM, labels_N
        )
    return real_NCHW, fake_NCHW, labels_N


def twin_of(rng: torch.Generator) -> torch.Generator:
    twin = torch.Generator()
    twin.set_state(rng.get_state())
    return twin


ABLATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"residual": False},
    {"attention": False},
    {"residual": False, "attention": False},
    {"mixture": "off"},
    {"mixture": "learnt"},
    {"mixed_input": False},
    {"affine_copies": 0},
    {"mixed_fitness": True},
    {"mixed_fitness": True, "mixed_input": False},
    {"mixed_fitness": True, "reuse_gradient": True},
    {"mixed_input": False, "reuse_gradient": True},
    {"precision": "bfloat16"},
    {"per_class": True},
    {"survivors": 2, "ema": 0.9, "spectral_norm": True, "augmentation": "diffaugment"},
    {"residual": False, "attention": False, "mixture": "off", "mixed_input": False, "affine_copies": 0},
)


@pytest.mark.parametrize("settings", ABLATIONS, ids=str)
def test_each_part_can_be_switched_on_its_own(settings: dict[str, Any]) -> None:
    chosen = config(**settings)
    fitted = fit(DaeGan(chosen), chosen.steps, images(), seed=1, device=CPU, on_step=lambda done, total: None)
    pool_NCHW = fitted.sample(1, 0, 4, seed=0)
    assert pool_NCHW.shape == (4, 1, 16, 16)
    assert bool((pool_NCHW.abs() <= 1).all())


@pytest.mark.parametrize(
    "settings",
    [{}, {"mixture": "learnt", "mixed_fitness": True, "survivors": 2, "spectral_norm": True, "ema": 0.9}],
    ids=str,
)
def test_a_restored_training_goes_on_as_if_undisturbed(settings: dict[str, Any]) -> None:
    undisturbed = DaeGan(config(**settings)).begin(images(), seed=1, device=CPU)
    undisturbed.step()
    checkpoint = undisturbed.state()
    undisturbed.step()
    resumed = DaeGan(config(**settings)).begin(images(), seed=1, device=CPU)
    resumed.restore(checkpoint)
    resumed.step()
    expected = undisturbed.state()
    for name, value in resumed.state().items():
        assert torch.equal(value, expected[name]), name


def test_the_discriminator_learns_from_mixed_images_with_soft_labels() -> None:
    trained = training()
    real_NCHW, fake_NCHW, labels_N = batch(trained)
    twin = twin_of(trained._mixing_rng)
    loss = trained._discriminator_loss(real_NCHW, fake_NCHW, labels_N, trained._draw_contest(8))
    real_share_N = real_shares(0.2, 8, rng=twin)
    mixed_NCHW = real_share_N[:, None, None, None] * real_NCHW + (1 - real_share_N)[:, None, None, None] * fake_NCHW
    expected = formula_12(trained._discriminator(mixed_NCHW, labels_N), real_share_N)
    torch.testing.assert_close(loss, expected)


def test_without_mixed_input_the_discriminator_learns_from_real_and_generated_images() -> None:
    trained = training(mixed_input=False)
    real_NCHW, fake_NCHW, labels_N = batch(trained)
    loss = trained._discriminator_loss(real_NCHW, fake_NCHW, labels_N, trained._draw_contest(8))
    real_s_N, fake_s_N = (torch.sigmoid(trained._discriminator(each, labels_N)) for each in (real_NCHW, fake_NCHW))
    torch.testing.assert_close(loss, -torch.log(real_s_N).mean() - torch.log(1 - fake_s_N).mean())


def test_fitness_is_measured_on_unmixed_images() -> None:
    trained = training()
    real_NCHW, fake_NCHW, labels_N = batch(trained)
    found = trained._judge(real_NCHW, labels_N, trained._draw_evaluation())(fake_NCHW)
    real_s_N, fake_s_N = (torch.sigmoid(trained._discriminator(each, labels_N)) for each in (real_NCHW, fake_NCHW))
    bracket = -torch.log(real_s_N).mean() - torch.log(1 - fake_s_N).mean()
    gradients = torch.autograd.grad(bracket, list(trained._discriminator.parameters()), retain_graph=True)
    length = math.sqrt(sum(float(each.square().sum()) for each in gradients))
    assert math.isclose(float(found.quality), float(fake_s_N.detach().mean()), rel_tol=1e-5)
    assert math.isclose(float(found.diversity), -math.log(length), rel_tol=1e-3, abs_tol=1e-4)


def test_mixed_fitness_changes_the_bracket_of_diversity_alone() -> None:
    trained = training(mixed_fitness=True, evaluation_batch=8)
    real_NCHW, fake_NCHW, labels_N = batch(trained)
    twin = twin_of(trained._mixing_rng)
    found = trained._judge(real_NCHW, labels_N, trained._draw_evaluation())(fake_NCHW)
    real_share_N = real_shares(0.2, 8, rng=twin)
    mixed_NCHW = mixed_images(real_NCHW, fake_NCHW, real_share_N)
    bracket = formula_12(trained._discriminator(mixed_NCHW, labels_N), real_share_N)
    gradients = torch.autograd.grad(bracket, list(trained._discriminator.parameters()))
    length = math.sqrt(sum(float(each.square().sum()) for each in gradients))
    expected = torch.sigmoid(trained._discriminator(fake_NCHW, labels_N)).detach().mean()
    assert math.isclose(float(found.quality), float(expected), rel_tol=1e-5)
    assert math.isclose(float(found.diversity), -math.log(length), rel_tol=1e-3, abs_tol=1e-4)


def test_all_children_of_a_generation_are_mixed_with_equal_shares() -> None:
    trained = training(mixed_fitness=True, augmentation="diffaugment", evaluation_batch=8)
    real_NCHW, fake_NCHW, labels_N = batch(trained)
    judge = trained._judge(real_NCHW, labels_N, trained._draw_evaluation())
    one, other = judge(fake_NCHW), judge(fake_NCHW)
    assert float(one.quality) == float(other.quality)
    assert float(one.diversity) == float(other.diversity)


def test_learnt_centres_and_scales_evolve_with_the_generator_and_static_ones_stay() -> None:
    for mixture, moved in (("learnt", True), ("static", False)):
        trained = training(mixture=mixture)
        before = trained.sampler().state_dict()
        trained.step()
        after = trained.sampler().state_dict()
        for name in ("latents.centres_KL", "latents.scales_KL"):
            assert torch.equal(before[name], after[name]) is not moved, (mixture, name)


def test_survivors_begin_with_mixtures_of_their_own() -> None:
    trained = training(survivors=2, mixture="learnt")
    names = [name for name, _ in trained._network.named_parameters()]
    views = trained.population.survivors.parameters.views
    one, other = (each[names.index("latents.centres_KL")] for each in views)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_both_networks_begin_without_attention_and_learn_to_attend(spectral_norm: bool) -> None:
    trained = training(spectral_norm=spectral_norm)

    def gammas() -> list[float]:
        networks = (trained.sampler(), trained._discriminator)
        modules = [module for network in networks for module in network.modules()]
        return [float(module.gamma.detach()) for module in modules if isinstance(module, SelfAttention)]

    assert gammas() == [0.0, 0.0]
    trained.step()
    assert all(gammas())


def test_the_shared_forward_holds_for_residual_blocks_and_attention() -> None:
    trained = training()
    for _ in range(2):
        trained.step()
    network, judge = trained.sampler().double(), trained._discriminator.double()
    noise_NM = network.noise(8, rng=torch.Generator().manual_seed(4)).double()
    labels_N, weights = torch.arange(8) % 2, tuple(network.parameters())
    shared, _ = evolution.mutation_gradients(
        network(noise_NM, labels_N), weights, lambda images_NCHW: judge(images_NCHW, labels_N)
    )
    for loss, gradients in zip(evolution.MUTATIONS.values(), shared, strict=True):
        expected = torch.autograd.grad(loss(judge(network(noise_NM, labels_N), labels_N)), weights)
        for one, other in zip(gradients, expected, strict=True):
            assert float((one - other).norm()) <= 1e-9 * float(other.norm()) + 1e-14
