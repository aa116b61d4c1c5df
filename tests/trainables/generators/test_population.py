"""Individuals as rows of memory: what they inherit, how they learn, who takes whose place."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from tests.benchmarks.functional_adam import Moments, adam_step, no_moments
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.population import ALIGNMENT, Population, Rows

CHILDREN, RATE, BETAS = 3, 0.01, (0.5, 0.999)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int, *, statistics: bool = True) -> ImageNetwork:
    """Any network will do: what it makes is not looked at."""
    norm = [nn.BatchNorm2d(4)] if statistics else []
    made = nn.Sequential(nn.Conv2d(2, 4, 3), *norm, nn.Conv2d(4, 3, 3, bias=False))
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for values in (*made.parameters(), *(each for each in made.buffers() if each.is_floating_point())):
            values.copy_(torch.randn(values.shape, generator=rng(seed)))
    return cast(ImageNetwork, made)


def population(survivors: int = 2, *, ema: float = 0.0, seed: int = 0, statistics: bool = True) -> Population:
    networks = [network(seed + index, statistics=statistics) for index in range(survivors)]
    return Population(networks, children_each=CHILDREN, rate=RATE, betas=BETAS, ema=ema)


def fill_gradients(held: Population, *, seed: int) -> None:
    held.gradients.block_ID.copy_(torch.randn(held.gradients.block_ID.shape, generator=rng(seed)))


def copied(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(each.clone() for each in values)


def test_rows_keep_sizes_and_strides_and_are_one_block() -> None:
    like = [torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.empty(7), torch.empty(())]
    rows = Rows(like, 4)
    for views in rows.views:
        assert [each.size() for each in views] == [each.size() for each in like]
        assert [each.stride() for each in views] == [each.stride() for each in like]
        assert all(each.storage_offset() % ALIGNMENT == 0 for each in views)
        assert all(each.untyped_storage().data_ptr() == rows.block_ID.untyped_storage().data_ptr() for each in views)
    for index, views in enumerate(rows.views):
        for each in views:
            each.fill_(index + 1)
    used = sum(each.numel() for each in like)
    assert [(row_D == index + 1).sum().item() for index, row_D in enumerate(rows.block_ID)] == [used] * 4
    assert rows.block_ID.sum().item() == used * (1 + 2 + 3 + 4)  # no two share a place, and the rest is 0


def test_survivors_begin_as_the_networks_they_were_given() -> None:
    held = population(2)
    for index in range(2):
        given = network(index)
        assert all(
            torch.equal(one, other)
            for one, other in zip(held.survivors.parameters.views[index], given.parameters(), strict=True)
        )
        statistics = [each for each in given.buffers() if each.is_floating_point()]
        assert all(
            torch.equal(one, other) for one, other in zip(held.survivors.buffers.views[index], statistics, strict=True)
        )
    assert not bool(held.survivors.first.block_ID.any() or held.survivors.second.block_ID.any())


def test_every_child_takes_a_step_of_adam_from_its_parents_weights_and_memory() -> None:
    held = population(2)
    expected: list[tuple[tuple[Tensor, ...], Moments]] = [
        (copied(views), no_moments(views)) for views in held.survivors.parameters.views
    ]
    for generation, chosen in enumerate([[4, 0], [2, 1], [5, 5]]):
        fill_gradients(held, seed=generation)
        held.breed()
        children = [
            adam_step(weights, held.gradients.views[CHILDREN * index + child], moments, learning_rate=RATE, betas=BETAS)
            for index, (weights, moments) in enumerate(expected)
            for child in range(CHILDREN)
        ]
        for index, (parameters, moments) in enumerate(children):
            for rows, values in (
                (held.children.parameters, parameters),
                (held.children.first, moments.first),
                (held.children.second, moments.second),
            ):
                for one, other in zip(rows.views[index], values, strict=True):
                    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        chosen_S = torch.tensor(chosen)
        held.select(chosen_S)
        held.follow(chosen_S)
        expected = [(copied(children[index][0]), children[index][1]) for index in chosen]


def test_children_have_statistics_of_their_own_and_the_chosen_ones_keep_them() -> None:
    held = population(2)
    before_SD = held.survivors.buffers.block_ID.clone()
    fill_gradients(held, seed=1)
    held.breed()
    assert torch.equal(held.children.buffers.block_ID, before_SD.repeat_interleave(CHILDREN, dim=0))
    for index, views in enumerate(held.children.buffers.views):
        for each in views:
            each.fill_(index)
    assert torch.equal(held.survivors.buffers.block_ID, before_SD)
    held.select(torch.tensor([4, 1]))
    assert [float(views[0][0]) for views in held.survivors.buffers.views] == [4.0, 1.0]


def test_selection_takes_over_all_that_a_child_has_and_moves_no_memory() -> None:
    held = population(2)
    fill_gradients(held, seed=1)
    held.breed()
    places = [each.data_ptr() for each in held.survivors.parameters.views[0]]
    held.select(torch.tensor([4, 1]))
    for name, rows in held.survivors.groups.items():
        assert torch.equal(rows.block_ID, held.children.groups[name].block_ID[[4, 1]]), name
    assert [each.data_ptr() for each in held.survivors.parameters.views[0]] == places
    assert [each.data_ptr() for each in held.leaves[0]] == places


def test_an_average_descends_from_the_parents_and_follows_the_childs_weights() -> None:
    held = population(2, ema=0.5)
    assert held.average is not None
    expected_SD = held.survivors.parameters.block_ID.clone()
    for generation, chosen in enumerate([[4, 0], [2, 1], [5, 3], [0, 1], [1, 0], [3, 3], [0, 4], [1, 2], [5, 0]]):
        fill_gradients(held, seed=generation)
        held.breed()
        chosen_S = torch.tensor(chosen)
        held.select(chosen_S)
        held.follow(chosen_S)
        decay = min(0.5, (1 + generation) / (10 + generation))
        parents = [child // CHILDREN for child in chosen]
        expected_SD = decay * expected_SD[parents] + (1 - decay) * held.survivors.parameters.block_ID
        torch.testing.assert_close(held.average.block_ID, expected_SD, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("statistics", [True, False])
def test_a_restored_population_goes_on_with_the_same_bytes(ema: float, statistics: bool) -> None:
    whole = population(2, ema=ema, statistics=statistics)

    def generation(held: Population, index: int) -> None:
        fill_gradients(held, seed=index)
        held.breed()
        held.select(torch.tensor([index % 6, 2]))
        held.follow(torch.tensor([index % 6, 2]))

    for index in range(3):
        generation(whole, index)
    resumed = population(2, ema=ema, seed=7, statistics=statistics)
    resumed.restore({name: value.clone() for name, value in whole.state().items()})
    for index in range(3, 6):
        generation(whole, index)
        generation(resumed, index)
    expected = whole.state()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state().items())
    assert int(expected["generations"]) == 6


def test_a_network_takes_the_fittests_weights_or_their_average_and_its_statistics() -> None:
    for ema in (0.0, 0.9):
        held = population(2, ema=ema)
        fill_gradients(held, seed=1)
        held.breed()
        for views in held.children.buffers.views:
            views[0].fill_(3.0)
        held.select(torch.tensor([4, 1]))
        held.follow(torch.tensor([4, 1]))
        body = network(9)
        held.embody(body)
        source = held.survivors.parameters if held.average is None else held.average
        assert all(torch.equal(one, other) for one, other in zip(body.parameters(), source.views[0], strict=True))
        assert bool((dict(body.named_buffers())["1.running_mean"] == 3).all())
