"""What every generator promises; each one in the registry is tested, without being named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from spaces.generators import GENERATORS as CONFIGS
from trainables.data.image_set import ImageSet
from trainables.errors import EmptyPoolError, FinalTrialError, StopRequested
from trainables.generators.base import FittedGenerator, Generator
from trainables.generators.registry import GENERATORS, build

CPU = torch.device("cpu")
TINY = {"steps": 3, "batch_size": 8, "width": 4, "latent_size": 8, "evaluation_batch": 12}


def fields(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(CONFIGS[name])}


def make(name: str, **settings: Any) -> Generator:
    wanted = {**TINY, **settings}
    return build(CONFIGS[name](**{key: value for key, value in wanted.items() if key in fields(name)}))


LEARNING = [name for name in GENERATORS if "steps" in fields(name)]
EMPTY = [name for name in GENERATORS if "steps" not in fields(name)]
VARIANTS = [
    pytest.param(name, {"per_class": per_class} if "per_class" in fields(name) else {}, id=f"{name}-{per_class}")
    for name in LEARNING
    for per_class in ((False, True) if "per_class" in fields(name) else (False,))
]


def toy(*, pixels: int = 32, counts: tuple[int, ...] = (12, 12)) -> ImageSet:
    """Noise around a level that rises with the class: the first class dark, the last bright."""
    rng = torch.Generator().manual_seed(0)
    labels_N = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    levels_N = -0.6 + 1.2 * labels_N / max(len(counts) - 1, 1)
    noise_NCHW = 0.2 * torch.randn(len(labels_N), 1, pixels, pixels, generator=rng)
    return ImageSet(
        images_NCHW=(levels_N[:, None, None, None] + noise_NCHW).clamp(-1, 1),
        labels_N=labels_N,
        ids=tuple(f"image{index}" for index in range(len(labels_N))),
        patients=tuple(f"patient{index}" for index in range(len(labels_N))),
        classes=tuple(f"class{index}" for index in range(len(counts))),
    )


def fit(name: str, train: ImageSet, *, seed: int = 7, **settings: Any) -> FittedGenerator:
    return make(name, **settings).fit(train, seed=seed, device=CPU, on_step=lambda done, total: None)


def pool(fitted: FittedGenerator, classes: int = 2) -> Tensor:
    return torch.cat([fitted.sample(index, 0, 20, seed=5) for index in range(classes)])


def pool_bytes(name: str, settings: dict[str, Any]) -> str:
    images = pool(fit(name, toy(), **settings))
    return images.numpy().tobytes().hex()


def test_the_registry_and_the_configurations_have_the_same_names() -> None:
    assert set(GENERATORS) == set(CONFIGS)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_has_a_stage_version(name: str) -> None:
    module = sys.modules[GENERATORS[name].__module__]
    assert isinstance(module.STAGE_VERSION, int)


@pytest.mark.parametrize("name", EMPTY)
def test_a_generator_that_makes_nothing_refuses_to_be_asked(name: str) -> None:
    fitted = fit(name, toy())
    assert fitted.sample(0, 0, 0, seed=1).shape == (0, 1, 32, 32)
    assert fitted.state() == {}
    with pytest.raises(EmptyPoolError, match=r"3 of class 1 were asked for"):
        fitted.sample(1, 0, 3, seed=1)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_the_same_seed_makes_the_same_bytes_also_in_a_fresh_process(name: str, settings: dict[str, Any]) -> None:
    here = pool_bytes(name, settings)
    assert here == pool_bytes(name, settings)
    code = (
        f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
        "from tests.conformance.test_generators import pool_bytes\n"
        f"print(pool_bytes({name!r}, {settings!r}))"
    )
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert there.stdout.strip() == here


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_another_seed_makes_other_images(name: str, settings: dict[str, Any]) -> None:
    fitted = fit(name, toy(), **settings)
    assert not torch.equal(pool(fitted), pool(fit(name, toy(), seed=8, **settings)))
    assert not torch.equal(fitted.sample(0, 0, 4, seed=1), fitted.sample(0, 0, 4, seed=2))


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_an_image_does_not_depend_on_what_else_is_asked_for(name: str, settings: dict[str, Any]) -> None:
    fitted = fit(name, toy(), **settings)
    whole = fitted.sample(1, 0, 150, seed=3)
    for start, count in ((0, 1), (5, 60), (63, 2), (64, 64), (149, 1), (20, 0)):
        assert torch.equal(fitted.sample(1, start, count, seed=3), whole[start : start + count])
    assert len(torch.unique(whole.flatten(1), dim=0)) == 150


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_saved_and_loaded_it_makes_the_same_bytes(name: str, settings: dict[str, Any]) -> None:
    fitted = fit(name, toy(), **settings)
    state = load(save(fitted.state()))
    again = make(name, **settings).load(state, fitted.history, n_classes=2, pixels=32, device=CPU)
    assert torch.equal(pool(again), pool(fitted))
    assert again.history == fitted.history


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_images_are_finite_and_in_range_at_several_sizes(name: str, settings: dict[str, Any]) -> None:
    for pixels in (32, 48, 80):
        images = fit(name, toy(pixels=pixels), **{**settings, "steps": 1}).sample(0, 0, 3, seed=1)
        assert images.shape == (3, 1, pixels, pixels)
        assert images.dtype == torch.float32
        assert bool(images.isfinite().all())
        assert float(images.abs().max()) <= 1


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_labels_are_honoured(name: str, settings: dict[str, Any]) -> None:
    fitted = fit(name, toy(), **{**settings, "steps": 100, "width": 8, "learning_rate": 1e-3})
    dark, bright = (float(fitted.sample(index, 0, 64, seed=1).mean()) for index in (0, 1))
    assert dark < bright - 0.25


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_class_without_training_images_cannot_be_sampled(name: str, settings: dict[str, Any]) -> None:
    fitted = fit(name, toy(counts=(10, 0, 10)), **settings)
    assert len(fitted.sample(2, 0, 2, seed=1)) == 2
    with pytest.raises(FinalTrialError, match=r"class 1 had no training images, only classes \[0, 2\] had"):
        fitted.sample(1, 0, 1, seed=1)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_class_of_one_image_is_enough(name: str, settings: dict[str, Any]) -> None:
    fitted = fit(name, toy(counts=(1, 10)), **settings)
    assert bool(fitted.sample(0, 0, 2, seed=1).isfinite().all())


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_the_training_set_and_the_global_random_state_stay_as_they_are(name: str, settings: dict[str, Any]) -> None:
    train = toy()
    before, state = train.digest, torch.get_rng_state()
    pool(fit(name, train, **settings))
    assert train.digest == before
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    first = pool_bytes(name, settings)
    torch.manual_seed(2)
    assert pool_bytes(name, settings) == first
    torch.set_rng_state(state)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_every_step_is_reported_and_may_stop_the_training(name: str, settings: dict[str, Any]) -> None:
    seen: list[tuple[int, int]] = []
    make(name, **settings).fit(toy(), seed=1, device=CPU, on_step=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    assert {total for _, total in seen} == {seen[-1][0]}

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise StopRequested

    with pytest.raises(StopRequested):
        make(name, **settings).fit(toy(), seed=1, device=CPU, on_step=stop)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_the_history_has_plain_finite_numbers_for_every_step(name: str, settings: dict[str, Any]) -> None:
    history = fit(name, toy(), **settings).history
    assert history
    for curve in history.values():
        assert isinstance(curve, list)
        assert len(curve) == TINY["steps"]
        assert bool(torch.tensor(curve, dtype=torch.float64).isfinite().all())
