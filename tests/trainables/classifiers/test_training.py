from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spaces.config import ClassifierConfig, GenMixConfig, RealConfig
from trainables.classifiers.losses import class_weights, soft_cross_entropy
from trainables.classifiers.optimisation import cosine_decay
from trainables.classifiers.trained import TrainedClassifier, load_classifier
from trainables.classifiers.training import CLASSIFIER_STAGE_VERSION, train_classifier
from trainables.data.affine import affine, identity
from trainables.data.image_set import ImageSet
from trainables.errors import DivergedError, StopRequested
from trainables.mixers.base import Augment, Mixer
from trainables.mixers.genmix import GenMix
from trainables.mixers.real import Real
from trainables.seeding import generator

CPU = torch.device("cpu")


def image_set(counts: tuple[int, int], *, seed: int = 0, contrast: float = 0.5) -> ImageSet:
    """Noise; the images of the second class are brighter in their upper half."""
    labels = torch.tensor([0] * counts[0] + [1] * counts[1])
    images = torch.rand(len(labels), 1, 32, 32, generator=generator(seed)) - 0.5
    images[labels == 1, :, :16] += contrast
    return ImageSet(
        images_NCHW=images.clamp(-1, 1),
        labels_N=labels,
        ids=tuple(f"{seed}/{index}" for index in range(len(labels))),
        patients=("p",) * len(labels),
        classes=("dim", "bright"),
    )


def train(
    real: ImageSet,
    synthetic: ImageSet | None = None,
    *,
    mixer: Mixer | None = None,
    augment: Augment = identity,
    balanced: bool = False,
    seed: int = 0,
    epochs: int = 2,
    batch_size: int = 8,
    class_weights: bool = True,
    on_step=lambda done, steps: None,  # type: ignore[no-untyped-def]
) -> TrainedClassifier:
    return train_classifier(
        ClassifierConfig(epochs=epochs, batch_size=batch_size, class_weights=class_weights),
        mixer or Real(RealConfig()),
        real,
        synthetic,
        augment=augment,
        balanced=balanced,
        seed=seed,
        device=CPU,
        on_step=on_step,
    )


def test_soft_cross_entropy_equals_the_formula_computed_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])  # p = (1/4, 3/4) and (4/5, 1/5)
    targets = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    first = -(2.0 * 0.3 * math.log(1 / 4) + 0.5 * 0.7 * math.log(3 / 4))
    second = -(2.0 * 1.0 * math.log(4 / 5))
    loss = soft_cross_entropy(logits, targets, torch.tensor([2.0, 0.5]))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_soft_cross_entropy_of_hard_unweighted_labels_is_torchs() -> None:
    logits = torch.randn(50, 4, generator=generator(1))
    labels = torch.randint(4, (50,), generator=generator(2))
    expected = torch.nn.functional.cross_entropy(logits, labels)
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(soft_cross_entropy(logits, one_hot, torch.ones(4)), expected)


def test_the_weighted_mean_is_over_samples_not_over_weights() -> None:
    logits, targets = torch.zeros(2, 2), torch.eye(2)
    assert soft_cross_entropy(logits, targets, torch.tensor([3.0, 3.0])).item() == pytest.approx(3 * math.log(2))


def test_class_weights_are_n_over_c_times_n_c() -> None:
    torch.testing.assert_close(class_weights((30, 10)), torch.tensor([40 / 60, 40 / 20]))
    torch.testing.assert_close(class_weights((5, 5, 5)), torch.ones(3))
    assert class_weights((4, 0)).isfinite().all()


def test_weights_make_the_classes_count_alike() -> None:
    counts = (30, 10, 2)
    total = class_weights(counts) * torch.tensor(counts)
    torch.testing.assert_close(total, torch.full((3,), sum(counts) / 3))


def test_the_learning_rate_falls_from_all_to_nothing() -> None:
    assert cosine_decay(0.0) == 1
    assert cosine_decay(0.5) == pytest.approx(0.5)
    assert cosine_decay(1.0) == pytest.approx(0.0, abs=1e-12)


def test_it_learns_a_plain_difference_between_the_classes() -> None:
    trained = train(image_set((40, 40)), epochs=6)
    unseen = image_set((30, 30), seed=1)
    accuracy = (trained.probabilities(unseen.images_NCHW).argmax(dim=1) == unseen.labels_N).double().mean()
    assert accuracy > 0.95
    assert trained.history["loss"][-1] < trained.history["loss"][0]


def test_class_weights_act_on_imbalanced_classes_unless_the_synthetic_images_balance_them() -> None:
    real = image_set((20, 6))
    weighted, plain = train(real), train(real, class_weights=False)
    assert weighted.history["loss"] != plain.history["loss"]
    assert train(real, balanced=True).history["loss"] == plain.history["loss"]


def test_class_weights_come_from_the_real_labels_alone() -> None:
    """With real classes of one size the weights are 1, whatever the synthetic ones are."""
    real, synthetic = image_set((8, 8)), image_set((3, 20), seed=5)
    mixer = GenMix(GenMixConfig())
    assert (
        train(real, synthetic, mixer=mixer).history["loss"]
        == train(real, synthetic, mixer=mixer, class_weights=False).history["loss"]
    )


def test_the_draws_of_an_epoch_do_not_depend_on_the_number_of_epochs() -> None:
    def draws(epochs: int) -> list[Tensor]:
        seen: list[Tensor] = []

        def spy(images: Tensor, rng: torch.Generator) -> Tensor:
            seen.append(torch.rand(3, generator=rng))
            return images

        train(image_set((6, 6)), augment=spy, epochs=epochs)
        return seen

    short, long = draws(2), draws(4)
    assert torch.equal(torch.stack(short), torch.stack(long[:2]))
    assert len({tuple(each.tolist()) for each in long}) == 4


def test_every_batch_is_reported_and_the_total_is_known_from_the_start() -> None:
    calls: list[tuple[int, int]] = []
    train(image_set((10, 10)), epochs=3, on_step=lambda done, steps: calls.append((done, steps)))
    assert calls == [(done, 9) for done in range(1, 10)]  # 20 images in batches of 8: 3 an epoch


def test_a_stop_request_leaves_the_training() -> None:
    def stop(done: int, steps: int) -> None:
        if done == 2:
            raise StopRequested

    with pytest.raises(StopRequested):
        train(image_set((10, 10)), on_step=stop)


def test_a_loss_that_is_not_finite_is_an_error_that_says_where() -> None:
    def broken(images: Tensor, rng: torch.Generator) -> Tensor:
        return images * float("nan")

    with pytest.raises(DivergedError, match="not finite: nan in epoch 1 of 2, batch 1 of 3"):
        train(image_set((10, 10)), augment=broken)


def test_training_neither_reads_nor_changes_the_global_random_state() -> None:
    real = image_set((8, 8))
    states = []
    results = []
    for seed in (1, 2):
        torch.default_generator.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(train(real, augment=affine).state())
        states.append(torch.equal(before, torch.get_rng_state()))
    assert all(states)
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_loaded_classifier_computes_the_same() -> None:
    trained, images = train(image_set((8, 8))), image_set((9, 9), seed=3).images_NCHW
    loaded = load_classifier(ClassifierConfig(), trained.state(), 2, CPU, history=trained.history)
    assert torch.equal(loaded.probabilities(images), trained.probabilities(images))
    assert loaded.history == trained.history


def test_the_record_of_a_trained_classifier_does_not_alias_its_weights() -> None:
    trained = train(image_set((8, 8)))
    name, weight = next(iter(trained.state().items()))
    weight.zero_()
    assert trained.state()[name].abs().sum() > 0


GOLDEN = [
    0.694327,
    0.373304,
    0.279317,
    0.239299,
    0.186556,
    0.227109,
    0.120649,
    0.341548,
    0.252542,
    0.133471,
    0.360088,
    0.276251,
    0.227801,
    0.284765,
    0.338062,
    0.236234,
    0.100919,
    0.154968,
    0.161787,
    0.255304,
]


def test_the_losses_of_this_version_are_unchanged() -> None:
    """Where this fails on purpose, raise CLASSIFIER_STAGE_VERSION and write the new numbers here."""
    assert CLASSIFIER_STAGE_VERSION == 2
    trained = train(
        image_set((12, 6), contrast=0.2),
        image_set((6, 12), seed=1, contrast=0.2),
        mixer=GenMix(GenMixConfig()),
        augment=affine,
        epochs=20,
        batch_size=18,
        seed=11,
    )
    assert trained.history["loss"] == pytest.approx(GOLDEN, abs=1e-4)
