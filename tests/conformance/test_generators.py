"""What every generator promises; each one in the registry is tested, without being named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from spaces.budget import BUDGETS
from spaces.config import trial_config
from spaces.errors import ConfigError
from spaces.generators import GENERATORS as CONFIGS
from tests.trainables.generators import whole_trainings
from tests.trainables.generators.golden import needed
from trainables.data.image_set import ImageSet
from trainables.errors import EmptyPoolError, FinalTrialError, StopRequested
from trainables.generators.base import FittedGenerator, Generator, Training
from trainables.generators.previews import PREVIEWED
from trainables.generators.registry import GENERATORS, build
from trainables.training import loop

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "steps": 3,
    "batch_size": 8,
    "width": 4,
    "latent_size": 8,
    "evaluation_batch": 12,
    "sampling_steps": 2,
}


def fields(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(CONFIGS[name])}


def make(name: str, **settings: Any) -> Generator:
    wanted = {**TINY, **needed(name), **settings}
    return build(CONFIGS[name](**{key: value for key, value in wanted.items() if key in fields(name)}))


RESUMED = 4
COMMON_OPTIONS = {
    "precision": "bfloat16",
    "augmentation": "diffaugment",
    "spectral_norm": True,
    "ema": 0.9,
    "survivors": 2,
    "reuse_gradient": True,
    "mixed_fitness": True,
}
"""What generators can be asked for; some have only some of these fields, and every one has a precision."""


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


def begin(name: str, *, seed: int = 7, **settings: Any) -> Training:
    return make(name, **settings).begin(toy(), seed=seed, device=CPU)


def fit(name: str, train: ImageSet, *, seed: int = 7, **settings: Any) -> FittedGenerator:
    steps = settings.get("steps", TINY["steps"])
    return whole_trainings.fit(
        make(name, **settings), steps, train, seed=seed, device=CPU, on_step=lambda done, total: None
    )


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


@pytest.mark.parametrize(("name", "settings"), [each for each in VARIANTS if not needed(str(each.values[0]))])
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
    loop.advance(begin(name, **settings), 4, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise StopRequested

    with pytest.raises(StopRequested):
        loop.advance(begin(name, **settings), 4, on_step=stop)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_the_history_has_plain_finite_numbers_for_every_step(name: str, settings: dict[str, Any]) -> None:
    history = fit(name, toy(), **settings).history
    assert history
    for curve in history.values():
        assert isinstance(curve, list)
        assert len(curve) == TINY["steps"]
        assert bool(torch.tensor(curve, dtype=torch.float64).isfinite().all())


class Kept:
    """Checkpoints in memory, through the bytes of the file format."""

    def __init__(self, content: bytes | None = None) -> None:
        self.content = content

    def latest(self, steps: int) -> dict[str, Tensor] | None:
        return load(self.content) if self.content else None

    def save(self, state: Mapping[str, Tensor]) -> None:
        self.content = save(dict(state))


def trained(name: str, steps: int, checkpoints: Kept, **settings: Any) -> Training:
    training = begin(name, **settings)
    loop.advance(training, steps, on_step=lambda done, total: None, checkpoints=checkpoints)
    return training


def everything(training: Training) -> dict[str, bytes]:
    """The bytes of all that a generator stage stores."""
    fitted, previews = training.fitted(), training.previews()
    found = {
        "state": save(fitted.state()),
        "training": save(training.state()),
        "history": repr(fitted.history).encode(),
    }
    if previews is not None:
        found["previews"] = previews.images_TKMHW.numpy().tobytes() + repr(previews.steps).encode()
    return found


@pytest.mark.parametrize("options", [{}, COMMON_OPTIONS], ids=["plain", "options"])
@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_killed_at_any_step_it_goes_on_from_its_last_checkpoint_and_ends_in_the_same_bytes(
    name: str, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    chosen = {**settings, **options}
    undisturbed = everything(trained(name, RESUMED, Kept(), **chosen))
    for last in range(1, RESUMED):
        kept = Kept()
        kept.save(trained(name, last, Kept(), **chosen).state())
        assert everything(trained(name, RESUMED, kept, **chosen)) == undisturbed


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_stopped_training_saves_itself_first(name: str, settings: dict[str, Any]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise StopRequested

    kept = Kept()
    with pytest.raises(StopRequested):
        loop.advance(begin(name, **settings), 4, on_step=stop, checkpoints=kept)
    assert kept.content == save(trained(name, 2, Kept(), **settings).state())


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_how_long_a_training_will_be_changes_none_of_its_steps(name: str, settings: dict[str, Any]) -> None:
    short = make(name, **{**settings, "steps": 2}).begin(toy(), seed=7, device=CPU)
    long = make(name, **{**settings, "steps": 9000}).begin(toy(), seed=7, device=CPU)
    for training in (short, long):
        loop.advance(training, 2, on_step=lambda done, total: None)
    assert everything(short) == everything(long)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_looking_at_a_training_does_not_change_it(name: str, settings: dict[str, Any]) -> None:
    watched, left_alone = begin(name, **settings), begin(name, **settings)
    for _ in range(3):
        watched.step()
        watched.fitted(), watched.previews(), watched.state()
        left_alone.step()
    assert everything(watched) == everything(left_alone)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_previews_show_every_class_at_the_beginning_and_now(name: str, settings: dict[str, Any]) -> None:
    training = begin(name, **settings)
    training.step()
    previews = training.previews()
    assert previews is not None
    assert previews.steps == (0, 1)
    assert previews.images_TKMHW.shape == (2, 2, PREVIEWED, 32, 32)
    assert not torch.equal(previews.images_TKMHW[0], previews.images_TKMHW[1])


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_transformed_copies_of_the_images_can_be_learnt_from(name: str, settings: dict[str, Any]) -> None:
    plain, expanded = (begin(name, **settings, affine_copies=copies) for copies in (0, 2))
    for training in (plain, expanded):
        training.step()
    assert not torch.equal(pool(plain.fitted()), pool(expanded.fitted()))


@pytest.mark.parametrize("name", LEARNING)
def test_options_are_checked_and_refused_with_the_valid_names(name: str) -> None:
    flat = {f"generator.{key}": value for key, value in needed(name).items()}
    base = {"mixer.name": "blend", "generator.name": name, **flat}
    trial_config(base, BUDGETS["quick"])
    with pytest.raises(ConfigError, match=r"'generator\.stepz' is no setting of .*did you mean 'generator\.steps'"):
        trial_config({**base, "generator.stepz": 3}, BUDGETS["quick"])
    with pytest.raises(ConfigError, match=r"generator\.steps is 0; expected at least 1"):
        trial_config({**base, "generator.steps": 0}, BUDGETS["quick"])
    with pytest.raises(ConfigError, match=r"generator\.learning_rate is 'fast'; expected float"):
        trial_config({**base, "generator.learning_rate": "fast"}, BUDGETS["quick"])
    trial_config({**base, "generator.precision": "bfloat16"}, BUDGETS["quick"])
    with pytest.raises(
        ConfigError, match=r"generator\.precision is 'half'; expected one of float32, (tf32, )?bfloat16"
    ):
        trial_config({**base, "generator.precision": "half"}, BUDGETS["quick"])
