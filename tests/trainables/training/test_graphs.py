"""What a step has to keep to so that a GPU can replay it, looked at without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import pytest
import torch
from torch import Tensor, nn

from spaces.generators import GENERATORS as CONFIGS
from tests.trainables.generators.golden import SMALL, TRAINED, needed
from trainables.data.image_set import ImageSet
from trainables.generators import stylegan
from trainables.generators.egan import HandedOn
from trainables.generators.population import Population
from trainables.generators.registry import build
from trainables.generators.stylegan import Memory
from trainables.generators.training import Deck, NetworksTraining
from trainables.training.graphs import Drawn, Graphs
from trainables.training.parts import Part, pack

CPU = torch.device("cpu")
ALL_ON = {
    "augmentation": "diffaugment",
    "spectral_norm": True,
    "survivors": 2,
    "reuse_gradient": True,
    "mixed_fitness": True,
    "style_mixing": 0.5,
    "path_length": 2.0,
}


class Replayable(Protocol):
    """The training of one network, its steps in two parts."""

    @property
    def parts(self) -> Mapping[str, Part]: ...

    def step(self) -> None: ...

    def _draw(self) -> Drawn: ...


def toy() -> ImageSet:
    rng = torch.Generator().manual_seed(0)
    names = tuple(f"image{index}" for index in range(12))
    return ImageSet(
        images_NCHW=(0.3 * torch.randn(12, 1, 32, 32, generator=rng)).clamp(-1, 1),
        labels_N=torch.arange(12) % 2,
        ids=names,
        patients=names,
        classes=("a", "b"),
    )


def begin(name: str, options: Mapping[str, Any]) -> Replayable:
    settings = {**SMALL, **options, **needed(name)}
    known = {key: value for key, value in settings.items() if key in CONFIGS[name].__dataclass_fields__}
    training = build(CONFIGS[name](**known)).begin(toy(), seed=1, device=CPU)
    assert isinstance(training, NetworksTraining)
    (one,) = training._trainings.values()
    return cast(Replayable, one)


def compute(training: Replayable, drawn: Drawn) -> tuple[Tensor, ...]:
    part: Any = getattr(training, "_generation", None) or training._update  # type: ignore[attr-defined]
    found: tuple[Tensor, ...] = part(drawn)
    return found


def random_states(training: Replayable) -> dict[str, Tensor]:
    drawing: dict[str, Part] = {
        name: part for name, part in training.parts.items() if isinstance(part, torch.Generator | Deck)
    }
    return {**pack(drawing), "global": torch.get_rng_state()}


def held(part: Part) -> list[Tensor]:
    """The tensors of a part that a step on the device reads and changes."""
    if isinstance(part, nn.Module):
        return [*part.parameters(), *part.buffers()]
    if isinstance(part, torch.optim.Optimizer):
        return [value for memory in part.state.values() for value in memory.values()]
    if isinstance(part, Population):
        individuals = [*part.survivors.groups.values(), *part.children.groups.values()]
        return [part.gradients.block_ID, *(each for group in part.leaves for each in group)] + [
            rows.block_ID for rows in individuals
        ]
    if isinstance(part, HandedOn):
        return [part.loss, *part.gradients]
    if isinstance(part, Memory):
        return [part.r1, part.path_length]
    return []


REPLAYED = [name for name in TRAINED if not needed(name)]
EVERY = [
    pytest.param(name, options, id=f"{name}-{'options' if options else 'plain'}")
    for name in REPLAYED
    for options in ({}, ALL_ON)
]


def test_on_a_cpu_it_is_computed_as_it_comes() -> None:
    given: list[Drawn] = []

    def doubled(drawn: Drawn) -> tuple[Tensor, ...]:
        given.append(drawn)
        return (2 * drawn["one"],)

    graphs = Graphs(CPU)
    for index in range(10):
        drawn = {"one": torch.tensor([index])}
        assert graphs.run(doubled, drawn)[0].tolist() == [2 * index]
        assert given[-1] is drawn
    assert len(given) == 10


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_all_that_is_random_in_a_step_is_drawn_before_on_the_cpu(name: str, options: dict[str, Any]) -> None:
    training = begin(name, options)
    for _ in range(2):
        drawn = training._draw()
        assert all(value.device == CPU and isinstance(value, Tensor) for value in drawn.values())
        before = random_states(training)
        compute(training, drawn)
        after = random_states(training)
        assert all(torch.equal(value, after[key]) for key, value in before.items())
        assert any(not torch.equal(value, after[key]) for key, value in _drawn_on(training).items())


def _drawn_on(training: Replayable) -> dict[str, Tensor]:
    training._draw()
    return random_states(training)


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_whatever_a_step_changes_stays_where_it_is(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for penalty in ("R1_EVERY", "PATH_EVERY"):
        monkeypatch.setattr(stylegan, penalty, 1)
    training = begin(name, options)
    training.step()
    tensors = {key: held(part) for key, part in training.parts.items()}
    places = {key: [each.data_ptr() for each in values] for key, values in tensors.items()}
    for _ in range(2):
        training.step()
        assert {key: [each.data_ptr() for each in held(part)] for key, part in training.parts.items()} == places
    assert any(values for values in tensors.values())


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_steps_of_one_kind_draw_tensors_of_the_same_names_shapes_and_types(name: str, options: dict[str, Any]) -> None:
    training = begin(name, options)
    kinds = set()
    for _ in range(5):
        drawn = training._draw()
        kinds.add(tuple((key, value.shape, value.dtype) for key, value in drawn.items()))
        training.step()
    assert len(kinds) <= 3  # StyleGAN2's penalties come at some steps, a gradient is reused from the second on
