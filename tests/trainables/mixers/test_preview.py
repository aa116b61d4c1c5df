from __future__ import annotations

import pytest
import torch

from spaces.config import MIXERS
from trainables.data.affine import identity
from trainables.data.image_set import ImageSet
from trainables.mixers.preview import MixedExamples, mixed_examples
from trainables.mixers.registry import build
from trainables.seeding import generator


def image_set(counts: tuple[int, ...], *, seed: int, synthetic: bool) -> ImageSet:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return ImageSet(
        images_NCHW=torch.rand(len(labels), 1, 16, 16, generator=generator(seed)) * 2 - 1,
        labels_N=torch.tensor(labels),
        ids=tuple(f"{seed}/{index}" for index in range(len(labels))),
        patients=("" if synthetic else "p",) * len(labels),
        classes=tuple("abc"[: len(counts)]),
    )


def examples(name: str, *, per_class: int = 4, seed: int = 0) -> MixedExamples:
    real = image_set((90, 60, 60), seed=1, synthetic=False)
    synthetic = image_set((40, 40, 40), seed=2, synthetic=True)
    mixer = build(MIXERS[name]())
    return mixed_examples(mixer, real, synthetic, per_class=per_class, augment=identity, rng=generator(seed))


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_every_mixer_shows_the_same_few_images_of_each_class_for_the_same_seed(name: str) -> None:
    first, again, other = examples(name), examples(name), examples(name, seed=1)
    assert first.images.counts == (4, 4, 4)
    assert first.images.labels_N.tolist() == sorted(first.images.labels_N.tolist())
    assert first.images.digest == again.images.digest != other.images.digest
    assert first.weight_N.min() >= 1 / 3 - 1e-6
    assert set(first.images.patients) == {""}


def test_a_class_with_fewer_images_than_wanted_shows_all_it_has() -> None:
    real = image_set((5, 2), seed=1, synthetic=False)
    shown = mixed_examples(build(MIXERS["real"]()), real, None, per_class=3, augment=identity, rng=generator(0))
    assert shown.images.counts == (3, 2)
    assert (shown.weight_N == 1).all()


def test_augmix_shows_its_augmented_versions_and_not_the_images_themselves() -> None:
    real = image_set((90, 60, 60), seed=1, synthetic=False)
    clean = {image.numpy().tobytes() for image in real.images_NCHW}
    assert not {image.numpy().tobytes() for image in examples("augmix").images.images_NCHW} & clean
    assert {image.numpy().tobytes() for image in examples("real").images.images_NCHW} <= clean
