from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spaces.config import RealConfig
from trainables.classifiers.small_cnn import SmallCnn
from trainables.classifiers.training import train_classifier
from trainables.data.affine import identity
from trainables.data.image_set import ImageSet
from trainables.errors import StopRequested
from trainables.metrics.extractor import FEATURES, RECIPE, Extractor, load_extractor, train_extractor
from trainables.mixers.real import Real
from trainables.seeding import generator

CPU = torch.device("cpu")


def textures(count: int, *, seed: int = 0) -> ImageSet:
    """Noise, and noise smeared along one axis: equal in mean and spread."""
    images_NCHW = torch.randn(count, 1, 32, 32, generator=generator(seed))
    images_NCHW[1::2] = (images_NCHW[1::2] + images_NCHW[1::2].roll(1, dims=3)) / 2**0.5
    return ImageSet(
        images_NCHW=(0.4 * images_NCHW).clamp(-1, 1),
        labels_N=torch.arange(count) % 2,
        ids=tuple(map(str, range(count))),
        patients=tuple(map(str, range(count))),
        classes=("plain", "smeared"),
    )


def train(images: ImageSet, *, seed: int = 0) -> Extractor:
    return train_extractor(images, seed=seed, device=CPU, on_step=lambda done, total: None)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return train(textures(160))


def test_features_depend_on_the_image_alone(extractor: Extractor) -> None:
    images_NCHW = textures(150, seed=1).images_NCHW
    features_ND = extractor.features(images_NCHW)
    assert (features_ND.shape, features_ND.dtype) == ((150, FEATURES), torch.float32)
    chosen = torch.tensor([149, 3, 70])
    assert torch.equal(extractor.features(images_NCHW[chosen]), features_ND[chosen])
    assert torch.equal(extractor.features(images_NCHW[:1]), features_ND[:1])


def test_no_images_have_no_features(extractor: Extractor) -> None:
    assert extractor.features(torch.empty(0, 1, 32, 32)).shape == (0, FEATURES)


def test_features_tell_classes_apart_on_images_not_seen(extractor: Extractor) -> None:
    seen, unseen = textures(160), textures(100, seed=2)
    features_ND = extractor.features(seen.images_NCHW)
    centres_KD = torch.stack([features_ND[seen.labels_N == label].mean(dim=0) for label in range(2)])
    nearest_N = torch.cdist(extractor.features(unseen.images_NCHW), centres_KD).argmin(dim=1)
    assert (nearest_N == unseen.labels_N).float().mean() > 0.9


def test_the_extractor_is_a_classifier_trained_on_images_as_they_are(extractor: Extractor) -> None:
    images = textures(160)
    classifier = train_classifier(
        RECIPE,
        Real(RealConfig()),
        images,
        None,
        augment=identity,
        balanced=False,
        seed=0,
        device=CPU,
        on_step=lambda done, total: None,
    )
    assert isinstance(classifier.network, SmallCnn)
    with torch.no_grad():
        expected_ND = classifier.network.eval().features(images.images_NCHW)
    torch.testing.assert_close(extractor.features(images.images_NCHW), expected_ND)


def test_the_same_seed_gives_the_same_features_and_another_seed_others() -> None:
    images = textures(16)
    first, again, other = (train(images, seed=seed).features(images.images_NCHW) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_loaded_extractor_gives_the_same_features(extractor: Extractor, tmp_path: Path) -> None:
    file = tmp_path / "extractor.safetensors"
    save_file(extractor.state(), file)
    images_NCHW = textures(70, seed=5).images_NCHW
    loaded = load_extractor(load_file(file), 2, CPU)
    assert torch.equal(loaded.features(images_NCHW), extractor.features(images_NCHW))


def test_a_loaded_extractor_shares_no_weights_with_the_state_it_came_from(extractor: Extractor) -> None:
    state: dict[str, Tensor] = extractor.state()
    loaded = load_extractor(state, 2, CPU)
    images_NCHW = textures(4).images_NCHW
    before_ND = loaded.features(images_NCHW)
    for tensor in state.values():
        tensor.zero_()
    assert torch.equal(loaded.features(images_NCHW), before_ND)


def test_training_and_loading_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    load_extractor(train(textures(8)).state(), 2, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_training_can_be_left_between_two_steps() -> None:
    def stop(done: int, total: int) -> None:
        raise StopRequested

    with pytest.raises(StopRequested):
        train_extractor(textures(8), seed=0, device=CPU, on_step=stop)


def test_other_features_than_before_need_another_stage_version() -> None:
    """Golden values of STAGE_VERSION 1; raise it together with new values."""
    images = textures(16)
    features_ND = train(images).features(images.images_NCHW)
    golden = [0.0, 0.545344, 0.051853, 0.076496]
    torch.testing.assert_close(features_ND[0, :4], torch.tensor(golden), rtol=1e-4, atol=1e-4)
