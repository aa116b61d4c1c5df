from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.classifiers.resnet50 import construct, resnet50
from trainables.classifiers.small_cnn import SmallCnn, small_cnn
from trainables.classifiers.weights import initialised
from trainables.seeding import generator


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def torchvision_keys() -> set[str]:
    """The names in torchvision's ResNet-50 state."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{name}" for name in norm)}
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            prefix = f"layer{layer}.{block}"
            for index in (1, 2, 3):
                keys |= {f"{prefix}.conv{index}.weight", *(f"{prefix}.bn{index}.{name}" for name in norm)}
            if block == 0:
                keys |= {f"{prefix}.downsample.0.weight", *(f"{prefix}.downsample.1.{name}" for name in norm)}
    return keys


def test_resnet50_has_torchvisions_parameters_and_names() -> None:
    with torch.device("meta"):
        network = construct(n_classes=1000, n_channels=3)
    assert parameters(network) == 25_557_032
    assert set(network.state_dict()) == torchvision_keys()
    assert network.state_dict()["layer4.0.conv2.weight"].shape == (512, 512, 3, 3)


def test_one_channel_resnet50_with_two_classes_has_its_parameter_count() -> None:
    network = resnet50(n_classes=2, rng=generator(0))
    assert parameters(network) == 25_557_032 - 2 * 64 * 49 - 998 * 2049


def test_small_cnn_gives_128_features_that_its_head_reads() -> None:
    network = small_cnn(n_classes=3, rng=generator(0)).eval()
    assert isinstance(network, SmallCnn)
    images = torch.rand(5, 1, 48, 48, generator=generator(1))
    features = network.features(images)
    assert features.shape == (5, 128)
    torch.testing.assert_close(network.head(features), network(images))


def test_initial_weights_follow_the_stated_laws() -> None:
    network = small_cnn(n_classes=2, rng=generator(0))
    assert isinstance(network, SmallCnn)
    widest = network.blocks[12]
    assert isinstance(widest, nn.Conv2d)
    assert widest.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert network.head.weight.abs().max() <= 128**-0.5
    norm = network.blocks[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert torch.equal(norm.weight, torch.ones(16))
    assert norm.running_var is not None
    assert torch.equal(norm.running_var, torch.ones(16))


def test_a_layer_that_cannot_be_initialised_is_an_error() -> None:
    with pytest.raises(TypeError, match="layer '1' is a PReLU"):
        initialised(lambda: nn.Sequential(nn.Linear(2, 2), nn.PReLU()), rng=generator(0))
