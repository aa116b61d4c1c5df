"""On a GPU, steps that are replayed as a graph have the same numbers as steps that are computed as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from spaces.errors import ConfigError
from spaces.generators import GENERATORS as CONFIGS
from tests.trainables.generators.whole_trainings import toy
from trainables.generators import stylegan
from trainables.generators.base import Training
from trainables.generators.egan import EganTraining
from trainables.generators.fitted import CHUNK
from trainables.generators.population import ALIGNMENT
from trainables.generators.registry import GENERATORS, build
from trainables.generators.training import NetworksTraining
from trainables.training import graphs
from trainables.training.graphs import Drawn, Graphs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = torch.device("cuda", 0)
STEPS, RESUMED = 10, 5
WARM_UP = 1
"""So that nearly all of the few steps are replayed."""
NEVER = 1_000_000
NEAR = (0.03, 0.1)
"""How far a loss may be from float32's after each step, as a share of it, or of 1 where it is smaller."""
SMALL: dict[str, Any] = {
    "batch_size": 8,
    "width": 8,
    "latent_size": 8,
    "evaluation_batch": 16,
    "sampling_steps": 2,
    "path_length": 2.0,
    "ada_target": -0.9,
    "ada_ramp": 10,
}
OPTIONS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "options": {
        "augmentation": "diffaugment",
        "spectral_norm": True,
        "ema": 0.9,
        "survivors": 2,
        "mixture": "learnt",
        "style_mixing": 0.5,
    },
    "per_class": {"per_class": True},
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16", "spectral_norm": True},
    "reused": {"reuse_gradient": True, "mixed_fitness": True, "survivors": 2, "spectral_norm": True},
}


def usable(name: str) -> bool:
    """Whether it trains, from random weights."""
    try:
        return "steps" in {field.name for field in dataclasses.fields(CONFIGS[name]())}
    except ConfigError:
        return False


def fields(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(CONFIGS[name])}


CASES = [
    pytest.param(name, settings, id=f"{name}-{option}")
    for name in GENERATORS
    if usable(name)
    for option, settings in OPTIONS.items()
    if not settings or next(iter(settings)) in fields(name)
    if settings.get("precision", "float32") in CONFIGS[name].precisions()
]


def begin(name: str, settings: dict[str, Any]) -> NetworksTraining:
    known = {key: value for key, value in {**SMALL, **settings}.items() if key in fields(name)}
    training = build(CONFIGS[name](**known)).begin(toy(), seed=4, device=GPU)
    assert isinstance(training, NetworksTraining)
    return training


def trained(name: str, settings: dict[str, Any], *, start: Mapping[str, Tensor] | None = None) -> NetworksTraining:
    training = begin(name, settings)
    if start is not None:
        training.restore(start)
    while training.done < STEPS:
        training.step()
    return training


def replayed(training: NetworksTraining) -> int:
    """How many steps of all its networks were replays of a graph."""
    recorded = [
        each
        for one in training._trainings.values()
        for each in one._graphs._recorded.values()  # type: ignore[attr-defined]
    ]
    return sum(each._runs - graphs.WARM_UP for each in recorded if each._graph is not None)


def differing(training: Training, expected: Mapping[str, Tensor]) -> list[str]:
    found = training.state()
    assert list(found) == list(expected)
    return [name for name, value in found.items() if not torch.equal(value, expected[name])]


@pytest.fixture(autouse=True)
def every_kind_of_step_comes_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second step has StyleGAN2's penalties."""
    monkeypatch.setattr(stylegan, "R1_EVERY", 2)
    monkeypatch.setattr(stylegan, "PATH_EVERY", 2)
    monkeypatch.setattr(graphs, "WARM_UP", WARM_UP)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_replayed_steps_have_the_bits_of_computed_ones_also_where_a_training_goes_on(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = begin(name, settings)
    for _ in range(RESUMED):
        half.step()
    graphed = trained(name, settings)
    resumed = trained(name, settings, start=half.state())
    assert replayed(graphed) >= STEPS // 2
    assert replayed(resumed) >= 1

    monkeypatch.setattr(graphs, "WARM_UP", NEVER)
    computed = trained(name, settings)
    assert all(each._graphs._recorded for each in computed._trainings.values())  # type: ignore[attr-defined]
    expected = computed.state()
    assert differing(graphed, expected) == []
    assert differing(resumed, expected) == []
    assert differing(half, expected) != []


@pytest.mark.parametrize("name", [name for name in GENERATORS if usable(name)])
def test_a_pool_that_is_replayed_has_the_bits_of_a_computed_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = begin(name, {})
    training.step()
    count = 4 * CHUNK + 3
    fitted = training.fitted(checked=False)
    replayed_pool = [fitted.sample(index, 0, count, seed=5) for index in (0, 1, 0)]
    assert all(
        each._graph is not None for sampler in fitted._samplers.values() for each in sampler._graphs._recorded.values()
    )
    monkeypatch.setattr(graphs, "WARM_UP", NEVER)
    computed = training.fitted(checked=False)
    for index, images_NCHW in zip((0, 1, 0), replayed_pool, strict=True):
        assert torch.equal(images_NCHW, computed.sample(index, 0, count, seed=5))
    assert torch.equal(computed.sample(1, CHUNK + 1, 2, seed=5), replayed_pool[1][CHUNK + 1 : CHUNK + 3])


@pytest.mark.parametrize("name", [name for name in GENERATORS if usable(name)])
def test_the_first_losses_of_every_precision_are_near(name: str) -> None:
    losses: dict[str, dict[str, Tensor]] = {}
    for precision in CONFIGS[name].precisions():  # type: ignore[union-attr]
        training = begin(name, {"precision": precision})
        for _ in NEAR:
            training.step()
        state = training.state()
        losses[precision] = {key: state[key] for key in state if "/curves/" in key and not key.endswith("/selected")}
    full = losses["float32"]
    assert full
    for precision, rounded in losses.items():
        for curve, values in full.items():
            for step, near in enumerate(NEAR):
                off = (rounded[curve][step] - values[step]).abs() / values[step].abs().clamp(min=1)
                assert float(off.max()) <= near, (precision, curve, step)
    assert any(not torch.equal(value, losses["bfloat16"][curve]) for curve, value in full.items())


def test_the_usual_warm_up_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    early = trained("egan", {}).state()
    monkeypatch.undo()
    assert differing(trained("egan", {}), early) == []


class Counting:
    """Adds what is drawn to what it holds."""

    def __init__(self) -> None:
        self.held_N = torch.zeros(5, device=GPU)
        self.calls = 0

    def add(self, drawn: Drawn) -> tuple[Tensor, ...]:
        self.calls += 1
        for value in drawn.values():
            self.held_N += value.sum()
        return self.held_N, self.held_N.sum()


def test_a_graph_takes_every_steps_own_draws_and_gives_tensors_of_the_callers_own() -> None:
    counting, runner = Counting(), Graphs(GPU)
    given = [
        runner.run(counting.add, {"one": torch.tensor([index]), "other_N3": torch.full((7, 3), 0.5)})
        for index in range(20)
    ]
    assert counting.calls == graphs.WARM_UP + 1
    sums = [float(total) for _, total in given]
    assert sums == sorted(sums)
    assert sums[-1] == float(counting.held_N.sum())
    replays = given[graphs.WARM_UP :]
    assert all(float(held_N.sum()) == float(total) for held_N, total in replays)


def test_draws_of_another_kind_are_recorded_on_their_own() -> None:
    counting, runner = Counting(), Graphs(GPU)
    for index in range(6):
        runner.run(counting.add, {"one": torch.ones(2 + index % 2)})
        runner.run(counting.add, {"other": torch.ones(2 + index % 2)})
    assert counting.calls == 4 * (graphs.WARM_UP + 1)
    assert counting.held_N.tolist() == [30.0] * 5


def test_nothing_at_all_can_be_drawn() -> None:
    counting, runner = Counting(), Graphs(GPU)
    for _ in range(4):
        runner.run(counting.add, {})
    assert counting.held_N.tolist() == [0.0] * 5


def test_individuals_lie_on_the_gpu_and_stay_where_they_are() -> None:
    (training,) = trained("egan", {})._trainings.values()
    assert isinstance(training, EganTraining)
    rows = training.population.survivors.parameters
    places = [each.data_ptr() for each in rows.views[0]]
    training.step()
    assert [each.data_ptr() for each in rows.views[0]] == places
    assert rows.block_ID.device == GPU
    assert all(place % (ALIGNMENT * rows.block_ID.element_size()) == 0 for place in places)
