"""Early stopping, schedules, label smoothing and consistency in the classifiers' loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softmax

from spaces.config import ClassifierConfig, RealConfig
from trainables.classifiers import learner
from trainables.classifiers.early_stopping import EarlyStopping
from trainables.classifiers.features import features
from trainables.classifiers.losses import class_weights, smoothed, soft_cross_entropy
from trainables.classifiers.small_cnn import small_cnn
from trainables.classifiers.trained import TrainedClassifier
from trainables.classifiers.training import train_classifier
from trainables.data.affine import identity
from trainables.data.image_set import ImageSet
from trainables.errors import DataError, DivergedError
from trainables.mixers.base import Augment, Batch, Mixer
from trainables.mixers.real import Real
from trainables.seeding import generator

CPU = torch.device("cpu")


def image_set(counts: tuple[int, int], *, seed: int = 0, flipped: float = 0.0) -> ImageSet:
    """Noise, brighter in the second class; a share of the labels is wrong."""
    labels = torch.tensor([0] * counts[0] + [1] * counts[1])
    images = torch.rand(len(labels), 1, 32, 32, generator=generator(seed)) - 0.5 + 0.2 * labels[:, None, None, None]
    wrong = torch.rand(len(labels), generator=generator(seed, "wrong")) < flipped
    return ImageSet(
        images_NCHW=images.clamp(-1, 1),
        labels_N=torch.where(wrong, 1 - labels, labels),
        ids=tuple(f"{seed}/{index}" for index in range(len(labels))),
        patients=("p",) * len(labels),
        classes=("dim", "bright"),
    )


def train(
    config: ClassifierConfig, real: ImageSet, validation: ImageSet | None = None, *, mixer: Mixer | None = None
) -> TrainedClassifier:
    return train_classifier(
        config,
        mixer or Real(RealConfig()),
        real,
        None,
        validation=validation,
        augment=identity,
        balanced=False,
        seed=5,
        device=CPU,
        on_step=lambda done, steps: None,
    )


OVERFITS = ClassifierConfig(epochs=12, batch_size=8, learning_rate=3e-3, schedule="constant", patience=3)


def noisy() -> tuple[ImageSet, ImageSet]:
    """With half of the labels wrong, the validation loss soon rises."""
    return image_set((16, 8), flipped=0.5), image_set((9, 13), seed=1, flipped=0.5)


def test_training_stops_after_so_many_epochs_without_a_lower_validation_loss() -> None:
    history = train(OVERFITS, *noisy()).history
    losses = history["validation_loss"]
    best = losses.index(min(losses))
    assert history["kept_epoch"] == [best + 1]
    assert len(losses) == len(history["loss"]) == best + 1 + 3 < 12


def test_the_best_epochs_weights_are_kept_those_of_a_training_that_ended_there() -> None:
    real, validation = noisy()
    stopped = train(OVERFITS, real, validation)
    kept = int(stopped.history["kept_epoch"][0])
    ended = train(replace(OVERFITS, epochs=kept, patience=0), real)
    assert all(torch.equal(weight, ended.state()[name]) for name, weight in stopped.state().items())


def test_the_validation_loss_is_the_class_weighted_cross_entropy_without_smoothing() -> None:
    real, validation = noisy()
    trained = train(replace(OVERFITS, label_smoothing=0.3), real, validation)
    kept = int(trained.history["kept_epoch"][0])
    with torch.no_grad():
        logits = trained.network(validation.images_NCHW)
    each_N = cross_entropy(logits, validation.labels_N, reduction="none")
    expected = (each_N * class_weights(real.counts)[validation.labels_N]).mean().item()
    assert trained.history["validation_loss"][kept - 1] == pytest.approx(expected, rel=1e-5)


def test_looking_at_the_validation_images_does_not_change_the_training() -> None:
    real, validation = noisy()
    watched = train(replace(OVERFITS, epochs=4, patience=4), real, validation)
    plain = train(replace(OVERFITS, epochs=4, patience=0), real)
    assert watched.history["loss"] == plain.history["loss"]


def test_without_early_stopping_validation_images_are_not_looked_at() -> None:
    real, validation = noisy()
    config = replace(OVERFITS, epochs=2, patience=0)
    blind = replace(validation, images_NCHW=torch.full_like(validation.images_NCHW, math.nan))
    trained = train(config, real, blind)
    assert trained.history.keys() == {"loss"}
    plain = train(config, real)
    assert all(torch.equal(each, plain.state()[name]) for name, each in trained.state().items())


@pytest.mark.parametrize("validation", [None, image_set((0, 0))])
def test_early_stopping_without_validation_images_is_refused(validation: ImageSet | None) -> None:
    with pytest.raises(DataError, match=r"classifier\.patience is 3, and there are no validation images; .*patience=0"):
        train(OVERFITS, image_set((4, 4)), validation)


def test_a_validation_loss_that_is_not_finite_is_an_error() -> None:
    real, validation = noisy()
    broken = replace(validation, images_NCHW=torch.full_like(validation.images_NCHW, math.nan))
    with pytest.raises(DivergedError, match=r"validation loss is not finite: nan in epoch 1 of 12\. Lower"):
        train(OVERFITS, real, broken)


def test_of_equal_losses_the_first_counts() -> None:
    network = torch.nn.Linear(1, 1)
    stopping = EarlyStopping(2)
    stops = []
    for epoch, loss in enumerate((0.5, 0.4, 0.4, 0.4)):
        torch.nn.init.constant_(network.weight, epoch)
        stopping.record(loss, network)
        stops.append(stopping.stops)
    stopping.load_best(network)
    assert stops == [False, False, False, True]
    assert (stopping.kept, network.weight.item()) == (1, 1.0)


def test_two_trainings_with_every_option_end_in_the_same_bytes_and_draw_nothing_globally() -> None:
    config = replace(OVERFITS, epochs=3, optimizer="rmsprop", schedule="one_cycle", label_smoothing=0.1)
    states = []
    for seed in (1, 2):
        torch.default_generator.manual_seed(seed)
        before = torch.get_rng_state()
        states.append(train(config, *noisy()).state())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_schedule_moves_the_learning_rate_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def stand_still(step: int, steps: int) -> float:
        asked.append((step, steps))
        return 0.0

    monkeypatch.setattr(learner, "SCHEDULES", {"one_cycle": stand_still})
    config = ClassifierConfig(epochs=2, batch_size=8, schedule="one_cycle", weight_decay=0.0)
    trained = train(config, image_set((10, 10)))
    assert asked == [(step, 6) for step in range(6)]
    drawn = small_cnn(n_classes=2, rng=generator(5, "weights")).state_dict()
    assert torch.equal(trained.state()["head.weight"], drawn["head.weight"])


def test_smoothing_is_the_formula_also_for_mixed_labels() -> None:
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.3, 0.7, 0.0, 0.0]])
    expected = torch.tensor([[0.925, 0.025, 0.025, 0.025], [0.295, 0.655, 0.025, 0.025]])
    torch.testing.assert_close(smoothed(targets, 0.1), expected)
    assert torch.equal(smoothed(targets, 0.0), targets)
    logits = torch.randn(2, 4, generator=generator(0))
    hard = torch.tensor([0, 2])
    one_hot = torch.eye(4)[hard]
    torch.testing.assert_close(
        soft_cross_entropy(logits, smoothed(one_hot, 0.2), torch.ones(4)),
        cross_entropy(logits, hard, label_smoothing=0.2),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OneBatch:
    """One batch an epoch, as it was given, where the images are."""

    batch: Batch

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        device = real.images_NCHW.device
        yield replace(
            self.batch,
            images_NCHW=self.batch.images_NCHW.to(device),
            targets_NK=self.batch.targets_NK.to(device),
        )


def first_loss(batch: Batch, **options: float) -> float:
    config = ClassifierConfig(epochs=1, batch_size=4, **options)  # type: ignore[arg-type]
    return train(config, image_set((2, 2)), mixer=OneBatch(batch=batch)).history["loss"][0]


def logits_in_training(images_NCHW: Tensor) -> Tensor:
    """Of the network that a training begins with."""
    return small_cnn(n_classes=2, rng=generator(5, "weights")).train()(images_NCHW).detach()


def test_the_loss_of_the_loop_is_smoothed() -> None:
    images = image_set((2, 2)).images_NCHW
    targets = torch.tensor([[0.9, 0.1], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    softened = 0.6 * targets + 0.2
    expected = -(softened * softmax(logits_in_training(images), dim=1).log()).sum(dim=1).mean()
    batch = Batch(images_NCHW=images, targets_NK=targets)
    assert first_loss(batch, label_smoothing=0.4) == pytest.approx(expected.item(), rel=1e-5)
    assert first_loss(batch) != pytest.approx(expected.item(), rel=1e-3)


def test_further_views_add_their_divergence_from_one_forward_pass() -> None:
    images = image_set((2, 2)).images_NCHW
    targets = torch.eye(2)[[0, 0, 1, 1]]
    views = (images.flip(3) * 0.5, images.roll(5, dims=2) + 0.2)
    p_VNK = softmax(logits_in_training(torch.cat((images, *views))), dim=1).view(3, 4, 2)
    mean_NK = p_VNK.mean(dim=0)
    divergence = (p_VNK * (p_VNK / mean_NK).log()).sum(dim=2).mean()
    expected = -(targets * p_VNK[0].log()).sum(dim=1).mean() + 12 * divergence
    batch = Batch(images_NCHW=images, targets_NK=targets, views=views, consistency=12.0)
    assert divergence > 1e-4
    assert first_loss(batch) == pytest.approx(expected.item(), rel=1e-4)


def test_mixed_precision_changes_nothing_on_the_cpu() -> None:
    real = image_set((6, 6))
    config = ClassifierConfig(epochs=2, batch_size=8)
    fast, full = train(config, real), train(replace(config, amp=False), real)
    assert all(torch.equal(each, full.state()[name]) for name, each in fast.state().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_mixed_precision_on_a_gpu_computes_layers_in_bfloat16_and_the_loss_in_float32() -> None:
    seen: list[torch.dtype] = []
    batch = Batch(images_NCHW=image_set((2, 2)).images_NCHW, targets_NK=torch.eye(2)[[0, 0, 1, 1]])

    def spy(logits_NK: Tensor, targets_NK: Tensor, weights_K: Tensor) -> Tensor:
        seen.append(logits_NK.dtype)
        return soft_cross_entropy(logits_NK, targets_NK, weights_K)

    losses = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "soft_cross_entropy", spy)
        for amp in (True, False):
            trained = train_classifier(
                ClassifierConfig(epochs=1, batch_size=4, amp=amp),
                OneBatch(batch=batch),
                image_set((2, 2)),
                None,
                augment=identity,
                balanced=False,
                seed=5,
                device=torch.device("cuda"),
                on_step=lambda done, steps: None,
            )
            losses.append(trained.history["loss"][0])
    assert set(seen) == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_features_of_a_trained_classifier_are_those_its_head_reads() -> None:
    trained = train(ClassifierConfig(epochs=1, batch_size=8), image_set((6, 6)))
    images = image_set((4, 3), seed=2).images_NCHW
    found = trained.features(images)
    assert (found.shape, found.dtype, found.requires_grad) == ((7, 128), torch.float32, False)
    with torch.no_grad():
        assert torch.equal(found, features(trained.network.eval(), images))
        expected = trained.network.get_submodule("head")(found).double().softmax(dim=1)
    torch.testing.assert_close(trained.probabilities(images), expected)
