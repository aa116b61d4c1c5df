"""The fast training loop against the plain one: the same numbers, nothing lost between the device and the record."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import one_hot

from spaces.config import AugmixConfig, ClassifierConfig, GenMixConfig, MixerConfig, RealConfig
from trainables.classifiers import training
from trainables.classifiers.losses import jensen_shannon, soft_cross_entropy
from trainables.classifiers.optimisation import cosine_decay, optimizer
from trainables.classifiers.registry import build, restore
from trainables.classifiers.small_cnn import small_cnn
from trainables.classifiers.trained import TrainedClassifier
from trainables.classifiers.training import ClassifierTraining, begin_classifier
from trainables.data.affine import affine
from trainables.data.image_set import ImageSet
from trainables.errors import DivergedError, StopRequested
from trainables.mixers import registry as mixers
from trainables.mixers.base import Augment, Batch, Mixer
from trainables.seeding import generator
from trainables.training.loop import OnStep, advance

CPU = torch.device("cpu")
TINY = ClassifierConfig(epochs=2, batch_size=4, learning_rate=3e-3)
IMAGES, BATCHES = 14, 4  # batches of 4, 4, 4 and 2


def image_set(count: int, *, seed: int = 0) -> ImageSet:
    return ImageSet(
        images_NCHW=torch.rand(count, 1, 32, 32, generator=generator(seed)) * 2 - 1,
        labels_N=torch.arange(count) % 2,
        ids=tuple(f"{seed}/{index}" for index in range(count)),
        patients=("p",) * count,
        classes=("dim", "bright"),
    )


def ignore(done: int, steps: int) -> None:
    """Progress that nobody watches."""


def begin(
    mixer: Mixer,
    config: ClassifierConfig = TINY,
    *,
    on_batch: OnStep = ignore,
    device: torch.device = CPU,
) -> ClassifierTraining:
    return begin_classifier(
        config,
        mixer,
        image_set(IMAGES),
        image_set(6, seed=1),
        validation=None,
        augment=affine,
        balanced=True,
        seed=3,
        device=device,
        on_batch=on_batch,
    )


def everything(trained: ClassifierTraining) -> tuple[bytes, Mapping[str, list[float]]]:
    return save(trained.state()), trained.fitted().history


def plain_loop(config: ClassifierConfig, mixer: Mixer) -> tuple[nn.Module, list[float]]:
    """Two epochs as a textbook writes them: every loss is looked at when it is computed."""
    network = build(config, n_classes=2, rng=generator(3, "weights"))
    optimiser = optimizer(config, network.parameters())
    losses, step = [], 0
    for epoch in range(config.epochs):
        rng = generator(3, f"epoch{epoch}")
        total = 0.0
        for batch in mixer.epoch(image_set(IMAGES), image_set(6, seed=1), batch_size=4, augment=affine, rng=rng):
            optimiser.param_groups[0]["lr"] = config.learning_rate * cosine_decay(step / (config.epochs * BATCHES))
            logits = network.train()(torch.cat((batch.images_NCHW, *batch.views)))
            logits = logits.unflatten(0, (1 + len(batch.views), -1))
            loss = soft_cross_entropy(logits[0], batch.targets_NK, torch.ones(2))
            loss = loss + batch.consistency * jensen_shannon(logits)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item() * len(batch.targets_NK)
            step += 1
        losses.append(total / IMAGES)
    return network, losses


@pytest.mark.parametrize("config", [RealConfig(), GenMixConfig(), AugmixConfig(width=2)])
def test_the_training_is_the_plain_loop_to_the_last_bit(config: MixerConfig) -> None:
    network, losses = plain_loop(TINY, mixers.build(config))
    trained = begin(mixers.build(config))
    advance(trained, 2, on_step=ignore)
    state = trained.fitted().state()
    assert trained.fitted().history["loss"] == losses
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("config", [GenMixConfig(), AugmixConfig(width=2)])
def test_an_update_from_fixed_places_is_the_same_update(config: MixerConfig) -> None:
    ended = []
    for replays in (False, True):  # the places are a GPU's; what is computed from them is the same everywhere
        training = begin(mixers.build(config))
        training._learner._replays = replays
        advance(training, 2, on_step=ignore)
        assert (training._learner._recorded is not None) == replays
        ended.append(everything(training))
    assert ended[0] == ended[1]


def test_a_restored_training_forgets_what_was_recorded_on_the_tensors_before() -> None:
    training = begin(mixers.build(RealConfig()))
    training._learner._replays = True
    training.step()
    training.restore(training.state())
    assert training._learner._recorded is None


@pytest.mark.parametrize("every", [1, 3])
def test_how_often_losses_are_read_changes_nothing(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, steps: int) -> None:
        if done == 6:
            raise StopRequested

    def stopped_and_ended() -> tuple[object, object]:
        training = begin(mixers.build(RealConfig()), on_batch=stop)
        with pytest.raises(StopRequested):
            advance(training, 2, on_step=ignore)
        stopped = save(training.state())
        advance(training, 2, on_step=ignore)
        return stopped, everything(training)

    rarely = stopped_and_ended()
    monkeypatch.setattr(training, "READ_EVERY", every)
    assert stopped_and_ended() == rarely


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaking:
    """Real images; those of one batch are lost."""

    batch: int

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        batches = mixers.build(RealConfig()).epoch(real, None, batch_size=batch_size, augment=augment, rng=rng)
        for number, batch in enumerate(batches, start=1):
            lost = torch.full_like(batch.images_NCHW, torch.nan)
            yield replace(batch, images_NCHW=lost) if number == self.batch else batch


@pytest.mark.parametrize("every", [1, 2, 25])
def test_the_first_loss_that_is_not_finite_is_named_whenever_it_is_read(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "READ_EVERY", every)
    with pytest.raises(DivergedError, match=r"loss is not finite: nan in epoch 1 of 2, batch 3 of 4\. Lower"):
        begin(Breaking(batch=3)).step()


def test_a_training_that_is_stopped_after_a_lost_batch_ends_as_diverged_and_leaves_no_checkpoint() -> None:
    saved: list[Mapping[str, Tensor]] = []

    class Kept:
        def latest(self, steps: int) -> None:
            return None

        def save(self, state: Mapping[str, Tensor]) -> None:
            saved.append(state)

    def stop(done: int, steps: int) -> None:
        if done == 3:
            raise StopRequested

    with pytest.raises(DivergedError, match="batch 2 of 4"):
        advance(begin(Breaking(batch=2), on_batch=stop), 2, on_step=ignore, checkpoints=Kept())
    assert saved == []


def layouts(network: nn.Module) -> list[bool]:
    """Whether what each convolution gives of plain images lies channels last."""
    found: list[bool] = []

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        found.append(output.is_contiguous(memory_format=torch.channels_last))

    hooks = [layer.register_forward_hook(look) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    network(image_set(3).images_NCHW)
    for hook in hooks:
        hook.remove()
    return found


def test_every_layer_computes_channels_last_also_in_a_stored_network() -> None:
    network = build(TINY, n_classes=2, rng=generator(0))
    stored = restore(TINY, network.state_dict(), n_classes=2)
    assert all(layouts(network) + layouts(copy.deepcopy(network)) + layouts(stored))
    assert not any(layouts(small_cnn(n_classes=2, rng=generator(0))))


def test_the_layout_changes_no_more_than_roundings() -> None:
    images_NCHW = image_set(20).images_NCHW
    network = small_cnn(n_classes=2, rng=generator(4)).eval()
    first = network(images_NCHW).double().softmax(dim=1)
    state = network.state_dict()
    last_network = build(TINY, n_classes=2, rng=generator(0))
    last_network.load_state_dict(state)
    last = TrainedClassifier(network=last_network, history={}, device=CPU)
    torch.testing.assert_close(last.probabilities(images_NCHW), first, atol=1e-5, rtol=0)
    assert all(tensor.is_contiguous() for tensor in last.state().values())


def test_a_batch_is_evaluated_as_it_would_be_alone_in_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = begin(mixers.build(RealConfig())).fitted()
    images_NCHW = image_set(8).images_NCHW
    monkeypatch.setattr("trainables.classifiers.trained.EVALUATION_BATCH", 4)
    halves = [trained.features(half_NCHW) for half_NCHW in torch.split(images_NCHW, 4)]
    assert torch.equal(trained.features(images_NCHW), torch.cat(halves))


def test_targets_stay_one_hot_rows_of_the_labels() -> None:
    real = image_set(IMAGES)
    batches = list(mixers.build(RealConfig()).epoch(real, None, batch_size=4, augment=affine, rng=generator(0)))
    assert [len(batch.targets_NK) for batch in batches] == [4, 4, 4, 2]
    targets_NK = torch.cat([batch.targets_NK for batch in batches])
    assert torch.equal(targets_NK.sum(dim=0), one_hot(real.labels_N).sum(dim=0).float())


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
@pytest.mark.parametrize("mixer", [GenMixConfig(), AugmixConfig(width=2)])
def test_on_a_gpu_recorded_updates_end_in_the_same_bytes_as_updates_as_they_come(name: str, mixer: MixerConfig) -> None:
    config = replace(TINY, optimizer=name, epochs=4)
    ended = []
    for replays in (True, False):
        training = begin(mixers.build(mixer), config, device=torch.device("cuda"))
        assert training._learner._replays
        training._learner._replays = replays
        advance(training, 4, on_step=ignore)
        assert (training._learner._recorded is not None) == replays
        ended.append(everything(training))
    assert ended[0] == ended[1]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("config", [GenMixConfig(), AugmixConfig(width=2)])
def test_on_a_gpu_an_epoch_is_that_of_the_cpu(config: MixerConfig) -> None:
    by_device = []
    for device in ("cpu", "cuda"):
        real, pool = (
            replace(each, images_NCHW=each.images_NCHW.to(device), labels_N=each.labels_N.to(device))
            for each in (image_set(IMAGES), image_set(6, seed=1))
        )
        batches = mixers.build(config).epoch(real, pool, batch_size=4, augment=affine, rng=generator(0))
        by_device.append(torch.cat([torch.cat((batch.images_NCHW, *batch.views)).cpu() for batch in batches]))
    share = (by_device[0] - by_device[1]).abs().gt(1e-5).float().mean().item()
    assert share < 0.01  # a rounding apart, a pixel of AugMix's 8-bit images may be a grey level apart


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@needs_gpu
def test_on_a_gpu_no_batch_waits_for_the_device() -> None:
    training = begin(mixers.build(GenMixConfig()), replace(TINY, epochs=9), device=torch.device("cuda"))
    training.step()
    training.step()
    learner, batches = training._learner, training._compose(2)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for index, batch in enumerate(batches):
            learner.learn(batch, 2, index, len(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")
