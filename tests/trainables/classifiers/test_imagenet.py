"""Classifiers that start from ImageNet weights compute what the published networks compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spaces.config import ClassifierConfig
from tests.trainables.classifiers.reference_networks import FEATURES, HEADS, published
from trainables.classifiers import resnet50, vgg16, xception
from trainables.classifiers.features import features
from trainables.classifiers.imagenet import ImageNetInput, imagenet_scale, imagenet_weights
from trainables.classifiers.pretrained import available
from trainables.classifiers.registry import ARCHITECTURES, build, restore, training_slice
from trainables.errors import DataError
from trainables.seeding import generator

CONSTRUCT = {"resnet50": resnet50.construct, "xception": xception.construct, "vgg16": vgg16.construct}
SMALLEST = "xception"


def weights_of(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        network = CONSTRUCT[name](n_classes=1000, n_channels=3)
    return published({key: tensor.shape for key, tensor in network.state_dict().items()})


@pytest.fixture(scope="module")
def small_weights() -> dict[str, Tensor]:
    return weights_of(SMALLEST)


@pytest.fixture(scope="module")
def small_file(small_weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(small_weights, file)
    return file


def start(name: str, file: Path, *, n_classes: int = 3) -> nn.Module:
    config = ClassifierConfig(name=name, pretrained=str(file))
    return build(config, n_classes=n_classes, rng=generator(0)).eval()


@pytest.mark.parametrize("name", sorted(CONSTRUCT))
def test_features_are_those_of_the_three_channel_network_for_the_grey_image_in_each_channel(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vgg16, "HIDDEN", 256)  # the linear layers' 120 million weights take seconds to write
    weights = weights_of(name)
    save_file(weights, tmp_path / "model.safetensors")
    network = start(name, tmp_path / "model.safetensors")
    images_NCHW = torch.rand(2, 1, 64, 64, generator=generator(1)) * 2 - 1
    rgb_NCHW = (((images_NCHW + 1) / 2 - 0.449) / 0.226).expand(-1, 3, -1, -1)
    with torch.no_grad():
        found_NF, logits_NK = features(network, images_NCHW), network(images_NCHW)
        expected_NF = FEATURES[name]({key: tensor.float() for key, tensor in weights.items()}, rgb_NCHW)
    torch.testing.assert_close(found_NF, expected_NF, rtol=1e-3, atol=1e-4 * expected_NF.abs().max().item())
    assert expected_NF.std(dim=0).max() > 0.01  # the images differ, so that equality means something
    head = network.get_submodule(f"network.{HEADS[name]}")
    torch.testing.assert_close(logits_NK, head(found_NF))
    assert head.out_features == 3


def test_the_head_is_drawn_anew_as_it_is_without_pretrained_weights(small_file: Path) -> None:
    network = start(SMALLEST, small_file)
    drawn = ARCHITECTURES[SMALLEST](n_classes=3, rng=generator(0))
    assert torch.equal(network.get_parameter("network.fc.weight"), drawn.get_parameter("fc.weight"))
    assert not torch.equal(network.get_parameter("network.conv2.weight"), drawn.get_parameter("conv2.weight"))


def test_the_scale_is_that_of_imagenets_pixels() -> None:
    scaled = imagenet_scale(torch.tensor([-1.0, 1.0, 2 * 0.449 - 1]))
    torch.testing.assert_close(scaled, torch.tensor([-0.449 / 0.226, 0.551 / 0.226, 0.0]))


def test_convolutions_pad_with_imagenets_mean_not_with_black() -> None:
    """Folding the scale into the first convolution's weights would be wrong at the border."""
    inner = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(inner.weight)
    black = torch.full((1, 1, 4, 4), -1.0)
    corner = ImageNetInput(inner)(black)[0, 0, 0, 0].item()
    assert corner == pytest.approx(4 * -0.449 / 0.226, rel=1e-5)


def test_a_restored_network_needs_no_file_and_computes_the_same(small_file: Path, tmp_path: Path) -> None:
    network = start(SMALLEST, small_file)
    gone = ClassifierConfig(name=SMALLEST, pretrained=str(tmp_path / "gone.safetensors"))
    restored = restore(gone, network.state_dict(), n_classes=3).eval()
    images = torch.rand(2, 1, 32, 32, generator=generator(1))
    with torch.no_grad():
        assert torch.equal(restored(images), network(images))


def test_weights_are_named_by_their_content(small_file: Path, tmp_path: Path) -> None:
    def sliced(file: Path) -> object:
        return training_slice(ClassifierConfig(name=SMALLEST, pretrained=str(file)))["pretrained"]

    copy, other = tmp_path / "copy.safetensors", tmp_path / "other.safetensors"
    copy.write_bytes(small_file.read_bytes())
    save_file({"weight": torch.ones(1)}, other)
    assert sliced(copy) == sliced(small_file) != sliced(other)
    assert training_slice(ClassifierConfig())["pretrained"] == "none"


def test_a_pth_file_is_read_and_counters_and_the_head_may_be_missing(
    small_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    kept = {name: each for name, each in small_weights.items() if "tracked" not in name and not name.startswith("fc.")}
    torch.save(kept, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert available(SMALLEST, str(tmp_path / "old.pth")) is None
    found = imagenet_weights(SMALLEST, tmp_path / "old.pth")
    assert found["conv1.weight"].dtype == torch.float32
    assert torch.equal(found["bn4.bias"], kept["bn4.bias"].float())


def test_the_vgg_of_the_hub_is_read_under_timms_names() -> None:
    from trainables.classifiers.imagenet import _from_timm_vgg

    hub = {
        "features.0.weight": torch.zeros(2, 3, 3, 3),
        "pre_logits.fc1.weight": torch.arange(2 * 3 * 49.0).view(2, 3, 7, 7),
        "pre_logits.fc2.weight": torch.ones(2, 2, 1, 1),
        "pre_logits.fc2.bias": torch.ones(2),
        "head.fc.weight": torch.ones(5, 2),
    }
    found = _from_timm_vgg(hub)
    assert set(found) == {
        "features.0.weight",
        "classifier.0.weight",
        "classifier.3.weight",
        "classifier.3.bias",
        "classifier.6.weight",
    }
    values = torch.randn(1, 3, 7, 7, generator=generator(0))
    by_convolution = nn.functional.conv2d(values, hub["pre_logits.fc1.weight"]).flatten()
    torch.testing.assert_close(found["classifier.0.weight"] @ values.flatten(), by_convolution)


def test_weights_of_another_network_are_refused_with_the_first_names(
    small_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    def reason(**changed: Tensor | None) -> str:
        state = {**small_weights, **{name.replace("__", "."): each for name, each in changed.items()}}
        save_file({name: each for name, each in state.items() if each is not None}, tmp_path / "w.safetensors")
        return str(available(SMALLEST, str(tmp_path / "w.safetensors")))

    weight = small_weights["conv1.weight"]
    assert "lacks 'conv1.weight', 'conv2.weight'; expected" in reason(conv1__weight=None, conv2__weight=None)
    assert "has the unknown 'extra.weight'; expected ImageNet weights of xception" in reason(
        extra__weight=weight.clone()
    )
    grey = reason(conv1__weight=weight[:, :1].contiguous())
    assert "has the wrong shapes of 'conv1.weight (32, 1, 3, 3), not (32, 3, 3, 3)'" in grey
    spoilt = "has other values than finite real numbers in 'conv1.weight'"
    assert spoilt in reason(conv1__weight=weight / 0)
    assert spoilt in reason(conv1__weight=weight.long())
    other = str(available("resnet50", str(tmp_path / "w.safetensors")))
    assert "lacks 'layer1.0.conv1.weight'" in other
    assert "more; expected ImageNet weights of resnet50, three channels, under the names of torchvision" in other


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_anything_else_is_refused_in_a_sentence(
    suffix: str, small_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    file = tmp_path / f"junk{suffix}"
    whole = tmp_path / "whole"
    old = {"bias": small_weights["bn1.bias"], "names": {"a": [1, 2.5, "b"]}}
    torch.save(old, whole, _use_new_zipfile_serialization=False)
    content = whole.read_bytes()
    torch.save(old, whole)
    zipped = whole.read_bytes()
    rng = generator(3)
    junk = [b"", b"junk", b"PK\x03\x04", b"\x80\x02", content, zipped, b"\xff" * 64, b"\x08" + b"\0" * 7 + b"{}      "]
    junk += [content[:stop] for stop in range(1, len(content), 23)]
    junk += [bytes(torch.randint(256, (200,), generator=rng).tolist()) for _ in range(50)]
    for each in junk:
        file.write_bytes(each)
        reason = available(SMALLEST, str(file))
        assert reason is not None
        assert "is not a file of tensors alone" in reason or "lacks" in reason


def test_code_in_a_pth_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    assert "is not a file of tensors alone" in str(available(SMALLEST, str(tmp_path / "trap.pth")))
    assert not (tmp_path / "ran").exists()


def test_a_training_that_cannot_start_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file and no hub id"):
        start("xception", tmp_path / "nowhere" / "w.pth")
