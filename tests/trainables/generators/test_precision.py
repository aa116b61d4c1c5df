"""What bfloat16 may round, and what it may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from spaces.generators import GENERATORS as CONFIGS
from tests.trainables.generators.golden import SMALL, TRAINED, needed
from tests.trainables.generators.whole_trainings import toy
from trainables.generators import egan, evolution, mixed_input, stylegan, wgan_gp
from trainables.generators.base import Generator
from trainables.generators.registry import build
from trainables.generators.training import NetworksTraining

CPU = torch.device("cpu")
STEPS = 2
NEAR = (0.03, 0.1)
"""How far a loss may be from float32's after each step, as a share of it, or of 1 where it is smaller. A weight is
rounded to one part in 256, and Adam's first steps have the full learning rate however small a gradient is."""


def make(name: str, **settings: Any) -> Generator:
    wanted = {**SMALL, "width": 8, "sampling_steps": 2, "path_length": 2.0, **needed(name), **settings}
    return build(
        CONFIGS[name](**{key: value for key, value in wanted.items() if key in CONFIGS[name].__dataclass_fields__})
    )


def begin(name: str, **settings: Any) -> NetworksTraining:
    training = make(name, **settings).begin(toy(), seed=4, device=CPU)
    assert isinstance(training, NetworksTraining)
    return training


def trained(name: str, **settings: Any) -> NetworksTraining:
    training = begin(name, **settings)
    for _ in range(STEPS):
        training.step()
    return training


@cache
def state_of(name: str, precision: str) -> dict[str, Tensor]:
    return trained(name, precision=precision).state()


@pytest.mark.parametrize("name", TRAINED)
def test_the_first_losses_are_near_those_of_float32(name: str) -> None:
    rounded, full = state_of(name, "bfloat16"), state_of(name, "float32")
    curves = [key for key in full if "/curves/" in key and not key.endswith("/selected")]
    assert curves
    for curve in curves:
        for step, near in enumerate(NEAR):
            expected = full[curve][step]
            assert bool(((rounded[curve][step] - expected).abs() <= near * expected.abs().clamp(min=1)).all()), curve


@pytest.mark.parametrize("name", TRAINED)
def test_bfloat16_rounds_and_a_cpu_has_no_tf32(name: str) -> None:
    full, rounded = (state_of(name, precision) for precision in ("float32", "bfloat16"))
    if "tf32" in CONFIGS[name].precisions():
        tf32 = state_of(name, "tf32")
        assert all(torch.equal(value, tf32[key]) for key, value in full.items())
    assert any(not torch.equal(value, rounded[key]) for key, value in full.items() if "/curves/" in key)


@pytest.mark.parametrize("name", TRAINED)
def test_weights_optimisers_and_averages_stay_float32(name: str) -> None:
    rounded, full = state_of(name, "bfloat16"), state_of(name, "float32")
    assert {key: value.dtype for key, value in rounded.items()} == {key: value.dtype for key, value in full.items()}
    assert not any(value.dtype in (torch.bfloat16, torch.float16) for value in rounded.values())


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_seed_has_the_same_bytes_also_where_a_training_goes_on(name: str) -> None:
    expected = state_of(name, "bfloat16")
    half = begin(name, precision="bfloat16")
    half.step()
    resumed = begin(name, precision="bfloat16")
    resumed.restore({key: value.clone() for key, value in half.state().items()})
    for training in (half, resumed):
        training.step()
        assert all(torch.equal(value, expected[key]) for key, value in training.state().items())


@pytest.mark.parametrize("name", TRAINED)
def test_the_pool_is_made_in_float32(name: str) -> None:
    fitted = trained(name, precision="bfloat16").fitted(checked=False)
    again = make(name).load(fitted.state(), fitted.history, n_classes=2, pixels=32, device=CPU)
    made: set[torch.dtype] = set()

    def note(module: nn.Module, given: object, value: object) -> None:
        if isinstance(value, Tensor) and value.is_floating_point():
            made.add(value.dtype)

    with register_module_forward_hook(note):
        images_NCHW = fitted.sample(0, 0, 2, seed=1)
    assert made == {torch.float32}
    assert torch.equal(images_NCHW, again.sample(0, 0, 2, seed=1))


class Watched:
    """The precisions that the modules of a training compute in, within penalties and outside them."""

    def __init__(self, training: NetworksTraining, *modules: str) -> None:
        (self.one,) = training._trainings.values()
        self.seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
        self._within = False
        for each in modules:
            for module in getattr(self.one, each).modules():
                module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, given: object, made: object) -> None:
        if isinstance(made, Tensor) and made.is_floating_point():
            self.seen[self._within].add(made.dtype)

    @contextmanager
    def within(self) -> Iterator[None]:
        self._within = True
        yield
        self._within = False

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose computations are within a penalty."""

        def watched(*given: Any, **named: Any) -> Any:
            with self.within():
                return function(*given, **named)

        return watched


def assert_float32(*values: Tensor) -> None:
    assert values
    assert all(value.dtype == torch.float32 for value in values)
    assert not torch.is_autocast_enabled("cpu")


def test_stylegans_penalties_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    training = begin("stylegan", precision="bfloat16", spectral_norm=True)
    watched = Watched(training, "_network", "_discriminator")
    penalties = []
    for name in ("_penalise_slopes", "_penalise_paths"):
        monkeypatch.setattr(watched.one, name, watched.around(getattr(watched.one, name)))
    r1, path_lengths = stylegan.r1, stylegan.path_lengths

    def checked_r1(logits_N: Tensor, images_NCHW: Tensor) -> Tensor:
        assert_float32(logits_N, images_NCHW)
        penalties.append("r1")
        return r1(logits_N, images_NCHW)

    def checked_paths(images_NCHW: Tensor, styles_NLS: Tensor, *, directions_NCHW: Tensor) -> Tensor:
        assert_float32(images_NCHW, styles_NLS, directions_NCHW)
        penalties.append("paths")
        return path_lengths(images_NCHW, styles_NLS, directions_NCHW=directions_NCHW)

    monkeypatch.setattr(stylegan, "r1", checked_r1)
    monkeypatch.setattr(stylegan, "path_lengths", checked_paths)
    watched.one.step()
    assert penalties == ["r1", "paths"]
    assert watched.seen[True] == {torch.float32}
    assert torch.bfloat16 in watched.seen[False]


def test_the_gradient_penalty_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(begin("wgan_gp", precision="bfloat16"), "_discriminator")
    penalties = []
    gradient_penalty = wgan_gp.gradient_penalty

    def checked(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, mix_N: Tensor) -> Tensor:
        assert_float32(real, fake, mix_N)
        with watched.within():
            penalties.append(gradient_penalty(critic, real, fake, mix_N=mix_N))
        assert_float32(penalties[-1])
        return penalties[-1]

    monkeypatch.setattr(wgan_gp, "gradient_penalty", checked)
    watched.one.step()
    assert len(penalties) == 5
    assert watched.seen[True] == {torch.float32}
    assert torch.bfloat16 in watched.seen[False]


@pytest.mark.parametrize(
    ("name", "options"),
    [("egan", {}), ("egan", {"spectral_norm": True}), ("dae_gan", {}), ("dae_gan", {"mixed_fitness": True})],
    ids=str,
)
def test_fitness_norms_are_computed_in_float32(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(begin(name, precision="bfloat16", **options), "_discriminator")
    judged = []

    def checked(gradients: tuple[Tensor, ...]) -> Tensor:
        assert_float32(*gradients)
        judged.append(diversity(gradients))
        assert_float32(judged[-1])
        return judged[-1]

    def checked_logits(function: Callable[..., Any]) -> Callable[..., Any]:
        def judge(*given: Any) -> Any:
            assert_float32(*(each for each in given if isinstance(each, Tensor)))
            return function(*given)

        return judge

    diversity = evolution.diversity
    monkeypatch.setattr(evolution, "diversity", checked)
    monkeypatch.setattr(mixed_input, "diversity", checked)
    for function in ("real_part", "adversarial_judgement", "discriminator_loss"):
        monkeypatch.setattr(egan, function, checked_logits(getattr(egan, function)))
    watched.one.step()
    assert len(judged) == 3
    assert torch.bfloat16 in watched.seen[False]


def test_losses_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    means: list[torch.dtype] = []
    mean = Tensor.mean

    def checked(self: Tensor, *given: Any, **named: Any) -> Tensor:
        made = mean(self, *given, **named)
        if made.ndim == 0:
            means.append(self.dtype)
        return made

    monkeypatch.setattr(Tensor, "mean", checked)
    for name in TRAINED:
        means.clear()
        (one,) = begin(name, precision="bfloat16")._trainings.values()
        one.step()
        assert set(means) <= {torch.float32}, name
