"""A feature map shows what the classifier was trained on, and leaves the training's every bit as it is."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from spaces.config import AugmixConfig, BlendConfig, ClassifierConfig, GenMixConfig, MixerConfig, RealConfig
from trainables import feature_map as module
from trainables.classifiers.registry import build
from trainables.classifiers.trained import TrainedClassifier
from trainables.data.affine import affine, identity
from trainables.data.image_set import ImageSet
from trainables.feature_map import EXAMPLES, KINDS, FeatureMap, feature_map, principal_components
from trainables.mixers import registry as mixers

CPU = torch.device("cpu")


def image_set(*counts: int, pixels: int = 32, seed: int = 0, patients: bool = True) -> ImageSet:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = 0.2 * torch.randn(len(labels), 1, pixels, pixels, generator=rng)
    return ImageSet(
        images_NCHW=(noise + (labels * 0.6 - 0.6)[:, None, None, None]).clamp(-1, 1),
        labels_N=labels,
        ids=tuple(f"i{seed}-{index}" for index in range(len(labels))),
        patients=tuple(f"p{index}" if patients else "" for index in range(len(labels))),
        classes=tuple("abc"[: len(counts)]),
    )


@pytest.fixture
def classifier() -> TrainedClassifier:
    rng = torch.Generator().manual_seed(0)
    config = ClassifierConfig(name="small_cnn", epochs=1, batch_size=8)
    return TrainedClassifier(network=build(config, n_classes=3, rng=rng).eval(), history={}, device=CPU)


def made(
    classifier: TrainedClassifier, config: MixerConfig, *, seed: int = 5, real: ImageSet | None = None
) -> FeatureMap:
    synthetic = None if isinstance(config, RealConfig | AugmixConfig) else image_set(9, 9, 9, seed=1, patients=False)
    return feature_map(
        classifier,
        real or image_set(20, 3, 30),
        synthetic,
        mixers.build(config),
        augment=identity,
        per_class=8,
        seed=seed,
    )


def test_a_map_has_so_many_images_of_each_class_and_kind_as_there_are(classifier: TrainedClassifier) -> None:
    found = made(classifier, GenMixConfig(genmix_alpha=0.3))
    counts = torch.bincount(3 * found.kind_M + found.label_M, minlength=9).reshape(3, 3)
    assert counts[:2].tolist() == [[8, 3, 8], [8, 8, 8]]
    assert counts[2, 0] == counts[2, 2] == 8
    assert found.points_MC.shape == (len(found.kind_M), min(50, len(found.kind_M)))
    mixed = found.kind_M == KINDS.index("mixed")
    assert (found.weight_M[~mixed] == 1).all()
    assert ((found.weight_M[mixed] >= 1 / 3) & (found.weight_M[mixed] <= 1)).all()
    assert (found.weight_M[mixed] < 1).any()


def test_pictures_belong_to_the_points_that_they_say(classifier: TrainedClassifier) -> None:
    real = image_set(20, 3, 30)
    found = made(classifier, RealConfig(), real=real)
    assert torch.bincount(found.label_M[found.example_E]).tolist() == [EXAMPLES, 3, EXAMPLES]
    for picture_HW, position in zip(found.images_EHW, found.example_E.tolist(), strict=True):
        image_HW = picture_HW.float() / 127.5 - 1
        nearest = (real.images_NCHW[:, 0] - image_HW).abs().amax(dim=(1, 2)).argmin()
        assert (real.images_NCHW[nearest, 0] - image_HW).abs().max() < 0.005
        assert real.labels_N[nearest] == found.label_M[position]


@pytest.mark.parametrize("config", [RealConfig(), BlendConfig()])
def test_a_mixer_that_passes_images_on_has_no_mixed_ones(classifier: TrainedClassifier, config: MixerConfig) -> None:
    assert KINDS.index("mixed") not in made(classifier, config).kind_M


def test_images_of_a_consistency_loss_are_mixed_ones(classifier: TrainedClassifier) -> None:
    found = made(classifier, AugmixConfig())
    assert found.kind_M.unique().tolist() == [0, 2]


def test_points_are_as_far_apart_as_the_features(classifier: TrainedClassifier) -> None:
    real = image_set(5, 5, 5)
    found = made(classifier, RealConfig(), real=real)
    order = [
        int((real.images_NCHW[:, 0] - (p.float() / 127.5 - 1)).abs().sum((1, 2)).argmin()) for p in found.images_EHW
    ]
    expected = torch.cdist(*[classifier.features(real.images_NCHW[order]).double()] * 2)
    assert torch.allclose(torch.cdist(*[found.points_MC.double()] * 2), expected, atol=1e-4)


def test_principal_components_equal_those_of_scikit_learn() -> None:
    features = np.random.default_rng(0).normal(size=(40, 200)) @ np.diag(np.linspace(3, 0.1, 200))
    expected = np.abs(PCA(7, svd_solver="full").fit_transform(features))
    found = principal_components(torch.from_numpy(features).float(), 7)
    assert np.allclose(found.abs().numpy(), expected, atol=1e-3)


def test_looking_changes_neither_the_network_nor_any_random_state(classifier: TrainedClassifier) -> None:
    before = copy.deepcopy(classifier.network.state_dict())
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    made(classifier, GenMixConfig(genmix_alpha=0.3))
    assert not classifier.network.training
    assert all(torch.equal(value, before[name]) for name, value in classifier.network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


def test_a_map_follows_from_its_seed(classifier: TrainedClassifier) -> None:
    config = GenMixConfig(genmix_alpha=0.3)
    one, same, other = (made(classifier, config, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one.points_MC, same.points_MC)
    assert torch.equal(one.images_EHW, same.images_EHW)
    assert not torch.equal(one.images_EHW[:EXAMPLES], other.images_EHW[:EXAMPLES])


def test_an_epoch_of_a_large_set_is_not_mixed_in_whole(
    classifier: TrainedClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(module, "_MIXED_FROM", 20)
    feature_map(
        classifier,
        image_set(20, 20, 20),
        image_set(10, 10, 10, seed=1),
        mixers.build(GenMixConfig(genmix_alpha=0.3)),
        augment=lambda images, rng: (seen.append(len(images)), affine(images, rng))[1],
        per_class=8,
        seed=0,
    )
    assert seen == [24, 24, 20 + 10]


def test_what_is_written_is_read_again_and_large_images_become_small(
    classifier: TrainedClassifier, tmp_path: Path
) -> None:
    found = made(classifier, RealConfig(), real=image_set(4, 4, 4, pixels=160))
    found.write(tmp_path / "new", show_images=True)
    again = FeatureMap.read(tmp_path / "new")
    assert again.classes == ("a", "b", "c")
    assert again.images_EHW.shape == (12, 128, 128)
    for name in ("points_MC", "kind_M", "label_M", "weight_M", "example_E", "images_EHW"):
        assert torch.equal(getattr(again, name), getattr(found, name))


def test_without_images_no_pixel_is_written(classifier: TrainedClassifier, tmp_path: Path) -> None:
    found = made(classifier, RealConfig(), real=image_set(4, 4, 4))
    found.write(tmp_path, show_images=False)
    again = FeatureMap.read(tmp_path)
    assert len(again.example_E) == len(again.images_EHW) == 0
    assert torch.equal(again.points_MC, found.points_MC)
    pixels = 12 * 32 * 32
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < pixels
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_damaged_map_is_a_value_error(classifier: TrainedClassifier, tmp_path: Path) -> None:
    made(classifier, RealConfig()).write(tmp_path, show_images=True)
    path = tmp_path / module.ARRAYS_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        FeatureMap.read(tmp_path)
