"""What every classifier keeps; an architecture joins by its line in the registry."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spaces.config import CLASSIFIERS, ClassifierConfig, MixupConfig
from trainables.classifiers import trained as trained_module
from trainables.classifiers import vgg16
from trainables.classifiers.registry import ARCHITECTURES
from trainables.classifiers.trained import TrainedClassifier, load_classifier
from trainables.classifiers.training import ClassifierTraining, begin_classifier
from trainables.data.affine import affine
from trainables.data.image_set import ImageSet
from trainables.files import read_json, write_json
from trainables.mixers.mixup import Mixup
from trainables.seeding import generator

NAMES = sorted(ARCHITECTURES)
CPU = torch.device("cpu")


def image_set(count: int, *, pixels: int = 32, n_classes: int = 3) -> ImageSet:
    return ImageSet(
        images_NCHW=torch.rand(count, 1, pixels, pixels, generator=generator(1)) * 2 - 1,
        labels_N=torch.arange(count) % n_classes,
        ids=tuple(map(str, range(count))),
        patients=("p",) * count,
        classes=tuple(f"class{index}" for index in range(n_classes)),
    )


@pytest.fixture(scope="module", autouse=True)
def lighter_vgg16() -> Iterator[None]:
    """Narrow linear layers: the published ones hold 120 million weights, which take seconds to draw and to move."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg16, "HIDDEN", 256)
        yield


def begin(name: str, *, seed: int = 0) -> ClassifierTraining:
    return begin_classifier(
        ClassifierConfig(name=name, epochs=2, batch_size=6),
        Mixup(MixupConfig()),
        image_set(6),
        None,
        validation=None,
        augment=affine,
        balanced=False,
        seed=seed,
        device=CPU,
        on_batch=lambda done, steps: None,
    )


@functools.cache
def train_looked_at(name: str, *, seed: int = 0) -> tuple[TrainedClassifier, Mapping[str, Tensor]]:
    """A classifier, and the state of its training after the first of two epochs."""
    training = begin(name, seed=seed)
    training.step()
    state = training.state()
    training.step()
    return training.fitted(), state


def train(name: str, *, seed: int = 0) -> TrainedClassifier:
    return train_looked_at(name, seed=seed)[0]


@pytest.fixture(scope="module", params=NAMES)
def trained(request: pytest.FixtureRequest) -> tuple[str, TrainedClassifier]:
    return request.param, train(request.param)


def digest(classifier: TrainedClassifier) -> str:
    hasher = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(classifier.state().items()):
        hasher.update(name.encode() + tensor.numpy().tobytes())
    return hasher.hexdigest()


def digests() -> str:
    """One digest per architecture over its trained weights."""
    return "\n".join(f"{name} {digest(train(name))}" for name in NAMES)


def store(classifier: TrainedClassifier, folder: Path) -> None:
    folder.mkdir()
    save_file(classifier.state(), folder / "state.safetensors")
    write_json(folder / "history.json", classifier.history)


def stored(name: str, folder: Path) -> TrainedClassifier:
    history = read_json(folder / "history.json")
    return load_classifier(
        ClassifierConfig(name=name), load_file(folder / "state.safetensors"), 3, CPU, history=history
    )


def answer(classifier: TrainedClassifier) -> str:
    """What a classifier says of images it has not seen, to the last bit."""
    return classifier.probabilities(image_set(5).images_NCHW).numpy().tobytes().hex()


def all_anew(folder: str) -> str:
    """In a fresh process: every architecture trained, and what the stored ones answer."""
    vgg16.HIDDEN = 256  # no fixture does it there
    return "\n".join([digests(), *(answer(stored(name, Path(folder) / name)) for name in NAMES)])


def test_every_configured_name_has_its_architecture() -> None:
    assert set(ARCHITECTURES) == set(CLASSIFIERS)


def test_any_size_from_32_pixels_gives_one_logit_per_class(trained: tuple[str, TrainedClassifier]) -> None:
    for pixels in (32, 48, 64, 80):
        assert trained[1].probabilities(image_set(2, pixels=pixels).images_NCHW).shape == (2, 3)


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_come_from_the_given_generator_alone(name: str) -> None:
    states = []
    for global_seed, seed in ((1, 5), (2, 5), (2, 6)):
        torch.default_generator.manual_seed(global_seed)
        before = torch.get_rng_state()
        states.append(ARCHITECTURES[name](n_classes=2, rng=generator(seed)).state_dict())
        assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    convolutions = [key for key in states[0] if states[0][key].ndim == 4]
    assert not any(torch.equal(states[1][key], states[2][key]) for key in convolutions)
    assert all(tensor.isfinite().all() for tensor in states[0].values())


def test_probabilities_are_float64_and_sum_to_one(trained: tuple[str, TrainedClassifier]) -> None:
    probabilities = trained[1].probabilities(image_set(7).images_NCHW)
    assert probabilities.dtype == torch.float64
    assert probabilities.shape == (7, 3)
    assert probabilities.min() >= 0
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(7, dtype=torch.float64), atol=1e-12, rtol=0)


def test_an_images_probabilities_do_not_depend_on_its_neighbours(
    trained: tuple[str, TrainedClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_module, "EVALUATION_BATCH", 4)
    images = image_set(6).images_NCHW
    together = trained[1].probabilities(images)
    alone = torch.cat([trained[1].probabilities(images[index : index + 1]) for index in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_classifier_gives_features_that_depend_on_the_image_alone(trained: tuple[str, TrainedClassifier]) -> None:
    images = image_set(3).images_NCHW
    features = trained[1].features(images)
    assert features.shape == (3, {"small_cnn": 128, "vgg16": 256}.get(trained[0], 2048))
    torch.testing.assert_close(trained[1].features(images[1:2])[0], features[1], atol=1e-4, rtol=1e-4)


def test_the_state_survives_safetensors(trained: tuple[str, TrainedClassifier], tmp_path: Path) -> None:
    name, classifier = trained
    store(classifier, tmp_path / name)
    loaded = stored(name, tmp_path / name)
    assert digest(loaded) == digest(classifier)
    assert answer(loaded) == answer(classifier)
    assert loaded.history == classifier.history


def test_a_training_that_goes_on_from_a_checkpoint_ends_in_the_same_bytes(
    trained: tuple[str, TrainedClassifier],
) -> None:
    name, classifier = trained
    resumed = begin(name)
    resumed.restore(train_looked_at(name)[1])
    resumed.step()
    assert digest(resumed.fitted()) == digest(classifier)
    assert resumed.fitted().history == classifier.history


def test_the_history_has_a_finite_loss_per_epoch(trained: tuple[str, TrainedClassifier]) -> None:
    losses = trained[1].history["loss"]
    assert len(losses) == 2
    assert torch.tensor(losses).isfinite().all()


def test_another_seed_trains_another_network() -> None:
    assert digest(train("small_cnn", seed=0)) != digest(train("small_cnn", seed=1))


def test_trained_anew_or_loaded_a_classifier_is_the_same_also_in_a_fresh_process(tmp_path: Path) -> None:
    for name in NAMES:
        store(train(name), tmp_path / name)
    code = f"import runpy; print(runpy.run_path({__file__!r})['all_anew']({str(tmp_path)!r}))"
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert fresh.stdout.strip() == "\n".join([digests(), *(answer(train(name)) for name in NAMES)])
