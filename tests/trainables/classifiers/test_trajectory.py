"""A classifier's training as a trajectory: looked at early, stopped, killed and gone on with, to the byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from spaces.config import AugmixConfig, ClassifierConfig, MixerConfig, MixupConfig, RealConfig
from spaces.errors import ConfigError
from trainables.classifiers import learner, registry
from trainables.classifiers.dropout import SeededDropout
from trainables.classifiers.registry import goes_on, position, training_slice, trajectory_slice
from trainables.classifiers.small_cnn import small_cnn
from trainables.classifiers.trained import load_classifier
from trainables.classifiers.training import ClassifierTraining, begin_classifier, train_classifier
from trainables.data.affine import affine
from trainables.data.image_set import ImageSet
from trainables.errors import StopRequested
from trainables.files import read_json, write_json
from trainables.mixers import registry as mixers
from trainables.seeding import generator
from trainables.training.loop import OnStep, advance

CPU = torch.device("cpu")


def image_set(count: int, *, seed: int = 0) -> ImageSet:
    """Noise with labels that cannot be learnt, so that a validation loss soon rises."""
    return ImageSet(
        images_NCHW=torch.rand(count, 1, 32, 32, generator=generator(seed)) * 2 - 1,
        labels_N=torch.arange(count) % 2,
        ids=tuple(f"{seed}/{index}" for index in range(count)),
        patients=("p",) * count,
        classes=("dim", "bright"),
    )


@dataclass(kw_only=True)
class Kept:
    """Checkpoints in memory, through the bytes of the file format."""

    content: bytes | None = None
    positions: list[int] = field(default_factory=list)

    def latest(self, steps: int) -> Mapping[str, Tensor] | None:
        state = load(self.content) if self.content else None
        return state if state is not None and int(state["done"]) <= steps else None

    def save(self, state: Mapping[str, Tensor]) -> None:
        self.content = save(dict(state))
        self.positions.append(int(state["done"]))


def ignore(done: int, steps: int) -> None:
    """Progress that nobody watches."""


def begin(
    config: ClassifierConfig, mixer: MixerConfig | None = None, *, on_batch: OnStep = ignore
) -> ClassifierTraining:
    return begin_classifier(
        config,
        mixers.build(mixer or RealConfig()),
        image_set(10),
        None,
        validation=image_set(12, seed=1) if config.patience else None,
        augment=affine,
        balanced=False,
        seed=3,
        device=CPU,
        on_batch=on_batch,
    )


def advanced(
    config: ClassifierConfig, epochs: int, kept: Kept | None = None, **given: MixerConfig
) -> ClassifierTraining:
    training = begin(config, **given)
    advance(training, epochs, on_step=ignore, checkpoints=kept)
    return training


def everything(training: ClassifierTraining) -> tuple[bytes, bytes, str]:
    """All that a classifier stage stores."""
    fitted = training.fitted()
    return save(training.state()), save(fitted.state()), repr(fitted.history)


@pytest.fixture
def dropping_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small network with dropout before its head."""

    def build(*, n_classes: int, rng: torch.Generator) -> nn.Module:
        network = small_cnn(n_classes=n_classes, rng=rng)
        network.head = nn.Sequential(SeededDropout(0.5), network.get_submodule("head"))
        return network

    monkeypatch.setattr(registry, "ARCHITECTURES", MappingProxyType({"small_cnn": build}))


TINY = ClassifierConfig(epochs=4, batch_size=4, learning_rate=3e-3)
DROPPED = replace(TINY, optimizer="rmsprop", schedule="constant", patience=4)
RESUMED = [
    pytest.param(TINY, AugmixConfig(width=2), id="adamw-views"),
    pytest.param(DROPPED, MixupConfig(), id="rmsprop-patience-dropout"),
    pytest.param(replace(TINY, optimizer="sgd", schedule="one_cycle"), RealConfig(), id="sgd"),
    pytest.param(replace(TINY, optimizer="adam", label_smoothing=0.1), RealConfig(), id="adam"),
]


@pytest.mark.usefixtures("dropping_out")
@pytest.mark.parametrize(("config", "mixer"), RESUMED)
def test_killed_after_any_epoch_it_goes_on_and_ends_in_the_same_bytes(
    config: ClassifierConfig, mixer: MixerConfig
) -> None:
    undisturbed = everything(advanced(config, 4, mixer=mixer))
    killed = begin(config, mixer)
    for _ in range(3):
        killed.step()
        kept = Kept(content=save(killed.state()))
        assert everything(advanced(config, 4, kept, mixer=mixer)) == undisturbed


@pytest.mark.usefixtures("dropping_out")
@pytest.mark.parametrize(("config", "mixer"), RESUMED[:2])
@pytest.mark.parametrize("last", [1, 3, 5])  # 10 images in batches of 4: 3 an epoch
def test_stopped_after_any_batch_it_saves_itself_and_ends_in_the_same_bytes(
    config: ClassifierConfig, mixer: MixerConfig, last: int
) -> None:
    reported: list[int] = []

    def stop(done: int, steps: int) -> None:
        reported.append(done)
        if done == last:
            raise StopRequested

    kept = Kept()
    with pytest.raises(StopRequested):
        advance(begin(config, mixer, on_batch=stop), 4, on_step=ignore, checkpoints=kept)
    again = begin(config, mixer, on_batch=stop)
    advance(again, 4, on_step=ignore, checkpoints=kept)
    assert reported == list(range(1, 13))
    assert everything(again) == everything(advanced(config, 4, mixer=mixer))


def test_a_training_stopped_within_an_epoch_serves_no_position_before_that_epochs_end() -> None:
    def stop(done: int, steps: int) -> None:
        if done == 5:
            raise StopRequested

    kept = Kept()
    with pytest.raises(StopRequested):
        advance(begin(TINY, on_batch=stop), 4, on_step=ignore, checkpoints=kept)
    assert kept.positions == [2]
    assert kept.latest(1) is None
    assert everything(advanced(TINY, 1, kept)) == everything(advanced(TINY, 1))
    assert everything(advanced(TINY, 2, kept)) == everything(advanced(TINY, 2))


def test_a_training_goes_on_where_it_was_stopped_also_without_a_checkpoint() -> None:
    stops = [5]

    def stop_once(done: int, steps: int) -> None:
        if stops and done == stops[0]:
            stops.pop()
            raise StopRequested

    stopped = begin(TINY, on_batch=stop_once)
    with pytest.raises(StopRequested):
        advance(stopped, 4, on_step=ignore)
    advance(stopped, 4, on_step=ignore)
    assert everything(stopped) == everything(advanced(TINY, 4))


def test_a_training_advanced_to_its_end_is_that_of_train_classifier() -> None:
    trained = train_classifier(
        DROPPED,
        mixers.build(RealConfig()),
        image_set(10),
        None,
        validation=image_set(12, seed=1),
        augment=affine,
        balanced=False,
        seed=3,
        device=CPU,
        on_step=ignore,
    )
    assert everything(advanced(DROPPED, 4))[1:] == (save(trained.state()), repr(trained.history))


@pytest.mark.usefixtures("dropping_out")
@pytest.mark.parametrize("config", [TINY, DROPPED])
def test_looking_at_a_training_does_not_change_it(config: ClassifierConfig) -> None:
    watched = begin(config)
    for _ in range(4):
        watched.step()
        for tensor in (*watched.fitted().state().values(), *watched.fitted().network.parameters()):
            tensor.detach().zero_()
        watched.state()["losses"].zero_()
        watched.fitted().history["loss"].clear()
    assert everything(watched) == everything(advanced(config, 4))


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (replace(TINY, schedule="constant", epochs=2), replace(TINY, schedule="constant", epochs=4)),
        (replace(DROPPED, epochs=2), replace(DROPPED, epochs=4)),
        (replace(TINY, epochs=2, schedule_epochs=4), replace(TINY, epochs=4, schedule_epochs=4)),
        (replace(TINY, epochs=2, schedule_epochs=4), TINY),
        (replace(TINY, schedule="one_cycle", epochs=2, schedule_epochs=4), replace(TINY, schedule="one_cycle")),
    ],
)
def test_a_training_of_fewer_epochs_is_the_beginning_of_one_of_more(
    short: ClassifierConfig, long: ClassifierConfig
) -> None:
    assert trajectory_slice(short) == trajectory_slice(long)
    assert (position(short), position(long)) == (2, 4)
    beginning = advanced(short, 2)
    assert everything(beginning) == everything(advanced(long, 2))
    kept = Kept(content=save(beginning.state()))
    assert everything(advanced(long, 4, kept)) == everything(advanced(long, 4))


@pytest.mark.parametrize(
    "other",
    [
        replace(TINY, epochs=2),  # its cosine ends sooner
        replace(TINY, schedule_epochs=5),
        replace(TINY, schedule="constant"),
        replace(TINY, patience=2),
        replace(TINY, learning_rate=1e-3),
    ],
)
def test_what_changes_an_epoch_or_where_the_training_ends_is_another_trajectory(other: ClassifierConfig) -> None:
    assert trajectory_slice(other) != trajectory_slice(TINY)


def test_a_schedule_laid_over_more_epochs_is_asked_for_those(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def stand_still(step: int, steps: int) -> float:
        asked.append((step, steps))
        return 0.0

    monkeypatch.setattr(learner, "SCHEDULES", {"cosine": stand_still})
    advanced(replace(TINY, epochs=2, schedule_epochs=7), 2)
    assert asked == [(step, 21) for step in range(6)]


def test_an_unset_schedule_length_leaves_what_was_recorded_before_as_it_was() -> None:
    assert "schedule_epochs" not in training_slice(TINY)
    assert training_slice(replace(TINY, schedule_epochs=4))["schedule_epochs"] == 4


def test_a_schedule_cannot_be_shorter_than_the_training() -> None:
    with pytest.raises(ConfigError, match=r"schedule_epochs is 3; expected at least classifier\.epochs \(4\), or 0"):
        replace(TINY, schedule_epochs=3)


def test_only_a_training_whose_schedule_is_not_at_its_end_can_be_continued() -> None:
    assert goes_on(replace(TINY, schedule_epochs=5))
    assert goes_on(replace(TINY, schedule="constant"))
    assert not goes_on(TINY)
    assert not goes_on(replace(TINY, schedule_epochs=4))


IMPATIENT = replace(TINY, schedule="constant", patience=1, epochs=30)


def test_a_training_that_stopped_early_is_finished_wherever_more_is_asked_for() -> None:
    kept = Kept()
    ended = advanced(IMPATIENT, 30, kept)
    losses = ended.fitted().history["validation_loss"]
    assert ended.done == len(losses) < 30
    assert losses[-1] >= min(losses[:-1])
    kept = Kept(content=save(ended.state()))
    for epochs in (ended.done, ended.done + 1, 40):
        assert everything(advanced(IMPATIENT, epochs, kept)) == everything(ended)
        assert everything(advanced(IMPATIENT, epochs)) == everything(ended)
    ended.step()
    assert everything(ended) == everything(advanced(IMPATIENT, 30))


def test_of_a_training_that_stopped_early_only_the_best_weights_are_kept() -> None:
    ended = advanced(IMPATIENT, 30)
    kept = {name: tensor for name, tensor in ended.state().items() if tensor.numel() > ended.done}
    best = {name: tensor for name, tensor in ended.fitted().state().items() if tensor.numel() > ended.done}
    assert {name.removeprefix("stopping/best/") for name in kept} == set(best)
    assert any(name.startswith("optimizer/") for name in advanced(IMPATIENT, ended.done - 1).state())


def test_a_look_before_the_training_stops_early_has_the_best_epoch_so_far() -> None:
    ended = advanced(IMPATIENT, 30)
    early = advanced(IMPATIENT, ended.done - 1).fitted().history
    final = ended.fitted().history
    assert early["validation_loss"] == final["validation_loss"][:-1]
    assert early["loss"] == final["loss"][:-1]
    assert early["kept_epoch"] == final["kept_epoch"] == [ended.done - 1]


def test_a_stored_classifier_has_its_history_and_probabilities_to_the_last_bit(tmp_path: Path) -> None:
    fitted = advanced(DROPPED, 2).fitted()
    write_json(tmp_path / "history.json", fitted.history)
    history = read_json(tmp_path / "history.json")
    loaded = load_classifier(DROPPED, load(save(fitted.state())), 2, CPU, history=history)
    images = image_set(7, seed=5).images_NCHW
    assert torch.equal(loaded.probabilities(images), fitted.probabilities(images))
    assert loaded.history == fitted.history
    assert set(history) == {"loss", "validation_loss", "kept_epoch"}
