"""The evolutionary training as a whole."""

from __future__ import annotations

import pytest
import torch

from spaces.generators import EganConfig
from trainables.data.image_set import ImageSet
from trainables.generators import egan
from trainables.generators.egan import Egan
from trainables.generators.evolution import MUTATIONS
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


def evolution(settings: EganConfig) -> egan._Evolution:
    train = images()
    part = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)
    return egan._Evolution(settings, part, seed=1, device=CPU)


@pytest.mark.parametrize("survivors", [1, 3])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_recorded_survivors_are_the_fittest_of_all_children(survivors: int, gamma: float) -> None:
    settings = config(survivors=survivors, gamma=gamma, steps=6)
    history = Egan(settings).fit(images(), seed=1, device=CPU, on_step=lambda done, total: None).history
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
        trained.generation()
        assert [survivor.moments.steps for survivor in trained._survivors] == [generations]
    survivor = trained._survivors[0]
    assert all(bool(each.abs().sum() > 0) for each in survivor.moments.first[:1])


def test_children_of_one_parent_differ_and_leave_it_alone() -> None:
    trained = evolution(config())
    trained.generation()
    parent = trained._survivors[0]
    weights = [each.clone() for each in parent.parameters]
    buffers = [each.clone() for each in parent.buffers]
    children, losses = trained._mutate(parent)
    assert len(children) == len(losses) == len(MUTATIONS)
    trained._evaluate(children)
    assert all(torch.equal(one, other) for one, other in zip(parent.parameters, weights, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(parent.buffers, buffers, strict=True))
    for one, other in ((0, 1), (1, 2)):
        assert not torch.equal(children[one].parameters[0], children[other].parameters[0])
        assert not torch.equal(children[one].buffers[0], children[other].buffers[0])


def test_equal_children_are_equally_fit() -> None:
    trained = evolution(config())
    trained.generation()
    children, _ = trained._mutate(trained._survivors[0])
    twin = egan.Individual(
        parameters=children[0].parameters,
        buffers=tuple(each.clone() for each in children[0].buffers),
        moments=children[0].moments,
    )
    quality, diversity = trained._evaluate([children[0], children[1], twin])
    assert float(quality[0]) == float(quality[2])
    assert float(diversity[0]) == float(diversity[2])
    assert float(quality[0]) != float(quality[1])


def test_more_survivors_than_images_in_a_batch_are_possible() -> None:
    settings = config(survivors=5, batch_size=2, steps=2)
    fitted = Egan(settings).fit(images(), seed=1, device=CPU, on_step=lambda done, total: None)
    assert bool(fitted.sample(0, 0, 2, seed=0).isfinite().all())


def test_the_pool_comes_from_the_fittest_of_the_last_generation() -> None:
    trained = evolution(config(survivors=2))
    trained.generation()
    fittest = [each.clone() for each in trained._survivors[0].parameters]
    best = trained.best()
    assert all(torch.equal(one, other) for one, other in zip(best.parameters(), fittest, strict=True))
