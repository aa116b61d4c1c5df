"""The evolutionary training as a whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from spaces.generators import EganConfig
from tests.benchmarks.egan_reference import PlainEgan
from tests.trainables.generators import whole_trainings
from trainables.data.image_set import ImageSet
from trainables.generators.adversary import frozen
from trainables.generators.egan import Egan, EganTraining
from trainables.generators.evolution import MUTATIONS
from trainables.generators.population import images_of
from trainables.generators.training import TrainingImages
from trainables.training.graphs import Drawn

CPU = torch.device("cpu")
GENERATIONS = 4


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


def training_images() -> TrainingImages:
    train = images()
    return TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)


def evolution(settings: EganConfig) -> EganTraining:
    return Egan(settings).train_one(training_images(), seed=1, device=CPU)


def breed(trained: EganTraining) -> None:
    """Bring the next generation's children into being."""
    with frozen(trained._discriminator):
        for survivor in range(trained._config.survivors):
            trained._mutate(survivor, trained._draw_mutation())
    trained.population.breed()


def make_twins(trained: EganTraining, one: int, other: int) -> None:
    """Make a child the copy of another."""
    for rows in trained.population.children.groups.values():
        rows.block_ID[other] = rows.block_ID[one]


def evaluated(trained: EganTraining) -> tuple[list[float], list[float]]:
    """Quality and diversity of all children."""
    with frozen(trained._discriminator):
        judgements = trained._evaluate(trained._draw_evaluation())
    return [float(each.quality) for each in judgements], [float(each.diversity) for each in judgements]


@pytest.mark.parametrize("survivors", [1, 3])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_recorded_survivors_are_the_fittest_of_all_children(survivors: int, gamma: float) -> None:
    settings = config(survivors=survivors, gamma=gamma, steps=6)
    history = whole_trainings.fit(
        Egan(settings), settings.steps, images(), seed=1, device=CPU, on_step=lambda done, total: None
    ).history
    curves = {name: torch.tensor(curve, dtype=torch.float64) for name, curve in history.items()}
    for generation in range(settings.steps):
        fitness = {
            (parent, index): float(
                curves[f"quality/{name}"][generation, parent] + gamma * curves[f"diversity/{name}"][generation, parent]
            )
            for index, name in enumerate(MUTATIONS)
            for parent in range(survivors)
        }
        best = sorted(fitness, key=lambda child: -fitness[child])[:survivors]
        assert curves["selected"][generation].tolist() == [float(index) for _, index in best]


def selections(trained: EganTraining) -> list[list[int]]:
    selected: list[list[int]] = torch.tensor(trained.curves.lists()["selected"], dtype=torch.int64).tolist()
    return selected


def test_a_survivor_inherits_the_memory_of_its_own_mutation() -> None:
    trained = evolution(config())
    held = trained.population
    for generations in range(1, 4):
        first_D, second_D = held.survivors.first.block_ID[0].clone(), held.survivors.second.block_ID[0].clone()
        trained.step()
        (selected,) = selections(trained)[-1]
        gradient_D = held.gradients.block_ID[selected]
        assert bool(gradient_D.any())
        torch.testing.assert_close(held.survivors.first.block_ID[0], 0.5 * first_D + 0.5 * gradient_D)
        torch.testing.assert_close(
            held.survivors.second.block_ID[0], 0.999 * second_D + 0.001 * gradient_D.square(), rtol=1e-4, atol=1e-12
        )
        assert int(held.state()["generations"]) == generations


def test_the_gradients_of_a_parents_children_are_those_of_their_own_losses() -> None:
    trained = evolution(config(survivors=2))
    trained.step()
    network, judge = trained._network, trained._discriminator
    with frozen(judge):
        for survivor in range(2):
            drawn = trained._draw_mutation()
            losses_M = trained._mutate(survivor, drawn)
            leaves = trained.population.leaves[survivor]
            _, labels_N = trained._images.at(drawn["positions_N"])
            for index, loss in enumerate(MUTATIONS.values()):
                buffers = [each.clone() for each in trained.population.survivors.buffers.views[survivor]]
                own = loss(judge(images_of(network, leaves, buffers, drawn["noise_NM"], labels_N), labels_N))
                torch.testing.assert_close(losses_M[index], own.detach())
                found = trained.population.gradients.views[len(MUTATIONS) * survivor + index]
                for one, other in zip(found, torch.autograd.grad(own, leaves), strict=True):
                    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_children_of_one_parent_differ_and_leave_it_alone() -> None:
    trained = evolution(config())
    trained.step()
    held = trained.population
    breed(trained)
    parent = {name: rows.block_ID.clone() for name, rows in held.survivors.groups.items()}
    evaluated(trained)
    assert len(held.children.parameters.block_ID) == len(MUTATIONS)
    assert all(torch.equal(rows.block_ID, parent[name]) for name, rows in held.survivors.groups.items())
    for one, other in ((0, 1), (1, 2)):
        for rows in held.children.groups.values():
            assert not torch.equal(rows.block_ID[one], rows.block_ID[other])


def test_children_inherit_the_statistics_that_their_parent_has_once_it_made_their_images() -> None:
    trained = evolution(config())
    before_SD = trained.population.survivors.buffers.block_ID.clone()
    breed(trained)
    after_SD = trained.population.survivors.buffers.block_ID
    assert not torch.equal(after_SD, before_SD)
    assert torch.equal(trained.population.children.buffers.block_ID, after_SD.expand(len(MUTATIONS), -1))


@pytest.mark.parametrize("augmentation", ["none", "diffaugment"])
def test_equal_children_are_equally_fit(augmentation: str) -> None:
    trained = evolution(dataclasses.replace(config(), augmentation=augmentation))
    trained.step()
    breed(trained)
    make_twins(trained, 0, 2)
    quality, diversity = evaluated(trained)
    assert quality[0] == quality[2]
    assert diversity[0] == diversity[2]
    assert quality[0] != quality[1]


def test_more_survivors_than_images_in_a_batch_are_possible() -> None:
    settings = config(survivors=5, batch_size=2, steps=2)
    fitted = whole_trainings.fit(
        Egan(settings), settings.steps, images(), seed=1, device=CPU, on_step=lambda done, total: None
    )
    assert bool(fitted.sample(0, 0, 2, seed=0).isfinite().all())


def test_the_pool_comes_from_the_fittest_of_the_last_generation() -> None:
    trained = evolution(config(survivors=2))
    trained.step()
    fittest = [each.clone() for each in trained.population.survivors.parameters.views[0]]
    best = trained.sampler()
    assert all(torch.equal(one, other) for one, other in zip(best.parameters(), fittest, strict=True))


def test_the_average_belongs_to_the_child_and_makes_the_pool() -> None:
    trained = evolution(dataclasses.replace(config(survivors=2, gamma=0.5), ema=0.5))
    trained.step()
    held = trained.population
    assert held.average is not None
    before_SD = held.average.block_ID.clone()
    chosen_S, *_ = trained._generation(trained._draw())
    held.follow(chosen_S)
    decay = 2 / 11  # (1 + t) / (10 + t) after one generation
    for survivor, child in enumerate(chosen_S.tolist()):
        expected_D = decay * before_SD[child // 3] + (1 - decay) * held.children.parameters.block_ID[child]
        torch.testing.assert_close(held.average.block_ID[survivor], expected_D, rtol=1e-5, atol=1e-7)
    pooled = next(iter(trained.sampler().parameters()))
    assert torch.equal(pooled, held.average.views[0][0])
    assert not torch.equal(pooled, held.survivors.parameters.views[0][0])


def test_spectral_norm_vectors_stand_still_while_children_are_made_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = evolution(dataclasses.replace(config(), spectral_norm=True))
    trained.step()
    after_its_steps: dict[str, Tensor] = {}
    train_discriminator = trained._train_discriminator

    def watched(drawn: Drawn) -> Tensor:
        loss = train_discriminator(drawn)
        after_its_steps.update({name: value.clone() for name, value in trained._discriminator.state_dict().items()})
        return loss

    before = {name: value.clone() for name, value in trained._discriminator.state_dict().items()}
    monkeypatch.setattr(trained, "_train_discriminator", watched)
    trained.step()
    vectors = [name for name in before if name.endswith((".left", ".right"))]
    assert vectors
    assert not any(torch.equal(after_its_steps[name], before[name]) for name in vectors if before[name].numel() > 1)
    now = trained._discriminator.state_dict()
    assert all(torch.equal(value, after_its_steps[name]) for name, value in now.items())


def test_a_generation_is_the_published_one_written_out_without_any_shared_work() -> None:
    settings = EganConfig(
        batch_size=8, latent_size=8, width=8, evaluation_batch=16, learning_rate=2e-3, gamma=0.5, discriminator_steps=2
    )
    ours = Egan(settings).train_one(training_images(), seed=3, device=CPU)
    plain = PlainEgan(settings, training_images(), seed=3, device=CPU)
    for _ in range(GENERATIONS):
        ours.step()
        plain.step()
    assert selections(ours) == [[each] for each in plain.selected]
    assert len(set(plain.selected)) > 1
    for mine, theirs in ((ours.sampler(), plain.network), (ours._discriminator, plain.discriminator)):
        expected = theirs.state_dict()
        for name, value in mine.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)
