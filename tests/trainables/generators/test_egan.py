"""The evolutionary training as a whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from spaces.generators import EganConfig
from tests.trainables.generators import whole_trainings
from trainables.data.image_set import ImageSet
from trainables.generators.adversary import frozen
from trainables.generators.egan import Egan, EganTraining
from trainables.generators.evolution import MUTATIONS
from trainables.generators.population import Individual
from trainables.generators.training import TrainingImages

CPU = torch.device("cpu")


def images(count: int = 20) -> ImageSet:
    rng = torch.Generator().manual_seed(0)
    names = tuple(f"image{index}" for index in range(count))
    return ImageSet(
        images_NCHW=(0.3 * torch.randn(count, 1, 32, 32, generator=rng)).clamp(-1, 1),
        labels_N=torch.arange(count) % 2,
        ids=names,
        patients=names,
        classes=("a", "b"),
    )


def config(*, steps: int = 4, survivors: int = 1, gamma: float = 0.005, batch_size: int = 8) -> EganConfig:
    return EganConfig(
        steps=steps,
        batch_size=batch_size,
        latent_size=8,
        width=4,
        gamma=gamma,
        survivors=survivors,
        evaluation_batch=16,
        learning_rate=2e-3,
    )


def evolution(settings: EganConfig) -> EganTraining:
    train = images()
    part = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)
    return Egan(settings).train_one(part, seed=1, device=CPU)


@pytest.mark.parametrize("survivors", [1, 3])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_recorded_survivors_are_the_fittest_of_all_children(survivors: int, gamma: float) -> None:
    settings = config(survivors=survivors, gamma=gamma, steps=6)
    history = whole_trainings.fit(
        Egan(settings), settings.steps, images(), seed=1, device=CPU, on_step=lambda done, total: None
    ).history
    for generation in range(settings.steps):
        fitness = {
            (parent, index): history[f"quality/{name}"][generation][parent]
            + gamma * history[f"diversity/{name}"][generation][parent]
            for index, name in enumerate(MUTATIONS)
            for parent in range(survivors)
        }
        best = sorted(fitness, key=lambda child: -fitness[child])[:survivors]
        assert history["selected"][generation] == [float(index) for _, index in best]


def test_a_survivor_inherits_the_memory_of_its_own_mutation() -> None:
    trained = evolution(config())
    for generations in range(1, 4):
        trained.step()
        assert [survivor.moments.steps for survivor in trained.population.survivors] == [generations]
    survivor = trained.population.survivors[0]
    assert all(bool(each.abs().sum() > 0) for each in survivor.moments.first[:1])


def test_children_of_one_parent_differ_and_leave_it_alone() -> None:
    trained = evolution(config())
    trained.step()
    parent = trained.population.survivors[0]
    weights = [each.clone() for each in parent.parameters]
    buffers = [each.clone() for each in parent.buffers]
    children, losses = trained.mutate(parent)
    assert len(children) == len(losses) == len(MUTATIONS)
    trained.evaluate(children)
    assert all(torch.equal(one, other) for one, other in zip(parent.parameters, weights, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(parent.buffers, buffers, strict=True))
    for one, other in ((0, 1), (1, 2)):
        assert not torch.equal(children[one].parameters[0], children[other].parameters[0])
        assert not torch.equal(children[one].buffers[0], children[other].buffers[0])


def test_equal_children_are_equally_fit() -> None:
    trained = evolution(config())
    trained.step()
    children, _ = trained.mutate(trained.population.survivors[0])
    twin = Individual(
        parameters=children[0].parameters,
        buffers=tuple(each.clone() for each in children[0].buffers),
        moments=children[0].moments,
        average=(),
    )
    quality, diversity = trained.evaluate([children[0], children[1], twin])
    assert float(quality[0]) == float(quality[2])
    assert float(diversity[0]) == float(diversity[2])
    assert float(quality[0]) != float(quality[1])


def test_more_survivors_than_images_in_a_batch_are_possible() -> None:
    settings = config(survivors=5, batch_size=2, steps=2)
    fitted = whole_trainings.fit(
        Egan(settings), settings.steps, images(), seed=1, device=CPU, on_step=lambda done, total: None
    )
    assert bool(fitted.sample(0, 0, 2, seed=0).isfinite().all())


def test_the_pool_comes_from_the_fittest_of_the_last_generation() -> None:
    trained = evolution(config(survivors=2))
    trained.step()
    fittest = [each.clone() for each in trained.population.survivors[0].parameters]
    best = trained.sampler()
    assert all(torch.equal(one, other) for one, other in zip(best.parameters(), fittest, strict=True))


def test_the_average_belongs_to_the_child_and_makes_the_pool() -> None:
    trained = evolution(dataclasses.replace(config(), ema=0.5))
    trained.step()
    parent = trained.population.survivors[0]
    children, _ = trained.mutate(parent)
    decay = 2 / 11  # (1 + t) / (10 + t) after one generation
    for child in children:
        expected = decay * parent.average[0] + (1 - decay) * child.parameters[0]
        torch.testing.assert_close(child.average[0], expected, rtol=1e-5, atol=1e-7)
    pooled = next(iter(trained.sampler().parameters()))
    assert torch.equal(pooled, parent.average[0])
    assert not torch.equal(pooled, parent.parameters[0])


def test_spectral_norm_vectors_stand_still_while_children_are_made_and_judged() -> None:
    trained = evolution(dataclasses.replace(config(), spectral_norm=True))
    trained.step()
    before = {name: value.clone() for name, value in trained._discriminator.state_dict().items()}
    with frozen(trained._discriminator):
        children, _ = trained.mutate(trained.population.survivors[0])
        trained.evaluate(children)
    assert all(torch.equal(value, before[name]) for name, value in trained._discriminator.state_dict().items())


def test_all_children_are_judged_through_the_same_augmentation() -> None:
    trained = evolution(dataclasses.replace(config(), augmentation="diffaugment"))
    trained.step()
    children, _ = trained.mutate(trained.population.survivors[0])
    copied = dataclasses.replace(children[0], buffers=tuple(each.clone() for each in children[0].buffers))
    quality, diversity = trained.evaluate([children[0], copied])
    assert float(quality[0]) == float(quality[1])
    assert float(diversity[0]) == float(diversity[1])
