from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from trainables.classifiers import resnet50, vgg16, xception
from trainables.classifiers.dropout import SeededDropout, seed_dropout
from trainables.classifiers.features import features, head_name
from trainables.classifiers.small_cnn import SmallCnn, small_cnn
from trainables.classifiers.vgg16 import adaptive_mean
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
        network = resnet50.construct(n_classes=1000, n_channels=3)
    assert parameters(network) == 25_557_032
    assert set(network.state_dict()) == torchvision_keys()
    assert network.state_dict()["layer4.0.conv2.weight"].shape == (512, 512, 3, 3)


def vgg_keys() -> set[str]:
    """The names in torchvision's VGG-16 state."""
    layers = [f"features.{index}" for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
    layers += [f"classifier.{index}" for index in (0, 3, 6)]
    return {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}


def xception_keys() -> set[str]:
    """The names in the state of timm's legacy_xception."""
    convolutions, norms = ["conv1", "conv2"], ["bn1", "bn2", "bn3", "bn4"]
    separable = ["conv3", "conv4"]
    for block in range(1, 13):
        places = {1: (0, 3), 2: (1, 4), 3: (1, 4), 12: (1, 4)}.get(block, (1, 4, 7))
        separable += [f"block{block}.rep.{place}" for place in places]
        norms += [f"block{block}.rep.{place + 1}" for place in places]
        if len(places) == 2:
            convolutions.append(f"block{block}.skip")
            norms.append(f"block{block}.skipbn")
    convolutions += [f"{each}.{part}" for each in separable for part in ("conv1", "pointwise")]
    per_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys = {f"{each}.weight" for each in convolutions} | {f"{each}.{name}" for each in norms for name in per_norm}
    return keys | {"fc.weight", "fc.bias"}


def test_vgg16_and_xception_have_the_published_names() -> None:
    with torch.device("meta"):
        vgg, other = vgg16.construct(n_classes=5, n_channels=1), xception.construct(n_classes=5, n_channels=1)
    assert set(vgg.state_dict()) == vgg_keys()
    assert set(other.state_dict()) == xception_keys()


@pytest.mark.parametrize(
    ("construct", "published", "ours"),
    [
        (vgg16.construct, 138_357_544, 134_267_586),
        (xception.construct, 22_855_952, 20_810_474),
        (resnet50.construct, 25_557_032, 25_557_032 - 2 * 64 * 49 - 998 * 2049),
    ],
)
def test_parameter_counts_are_the_published_ones_and_those_of_one_channel_and_two_classes(
    construct: Callable[..., nn.Module], published: int, ours: int
) -> None:
    with torch.device("meta"):
        assert parameters(construct(n_classes=1000, n_channels=3)) == published
        assert parameters(construct(n_classes=2, n_channels=1)) == ours


@pytest.mark.parametrize("pixels", [32, 48, 64, 80, 224])
def test_no_grid_of_xception_or_vgg16_is_empty(pixels: int) -> None:
    grids: list[torch.Size] = []
    for construct in (vgg16.construct, xception.construct):
        with torch.device("meta"):
            network = construct(n_classes=2, n_channels=1).eval()
            for layer in network.modules():
                layer.register_forward_hook(lambda layer, inputs, output: grids.append(output.shape))
            assert network(torch.empty(2, 1, pixels, pixels)).shape == (2, 2)
    assert all(size > 0 for grid in grids for size in grid)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 10, 14])
def test_the_adaptive_mean_is_pytorchs(size: int) -> None:
    values = torch.randn(3, 4, size, size + 1, generator=generator(size))
    torch.testing.assert_close(adaptive_mean(values, 7), nn.AdaptiveAvgPool2d(7)(values))


def test_the_head_is_the_last_linear_layer_and_features_are_what_it_reads() -> None:
    with torch.device("meta"):
        vgg, other = vgg16.construct(n_classes=2, n_channels=1), xception.construct(n_classes=2, n_channels=1)
    assert (head_name(vgg), head_name(other)) == ("classifier.6", "fc")
    network = small_cnn(n_classes=3, rng=generator(0)).eval()
    assert isinstance(network, SmallCnn)
    images = torch.rand(5, 1, 32, 32, generator=generator(1))
    assert torch.equal(features(network, images), network.features(images))
    assert not network.head._forward_pre_hooks  # nothing stays behind


def test_dropout_keeps_the_stated_share_scaled_and_draws_from_its_generator_alone() -> None:
    dropout = SeededDropout(0.25)
    ones = torch.ones(400, 100)
    before = torch.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        seed_dropout(nn.Sequential(dropout), generator(seed))
        draws.append(dropout(ones))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert (draws[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(draws[0].unique(), torch.tensor([0.0, 4 / 3]))
    assert dropout.eval()(ones) is ones


def test_dropout_without_a_generator_is_an_error_not_a_draw_from_the_global_state() -> None:
    with pytest.raises(RuntimeError, match="call seed_dropout"):
        SeededDropout(0.5)(torch.ones(2))


def test_depthwise_convolutions_keep_the_spread_of_their_input() -> None:
    """He's law with the outputs of one group: PyTorch's, over all groups, would start them near zero."""
    network = initialised(lambda: nn.Conv2d(512, 512, 3, groups=512, bias=False), rng=generator(0))
    assert network.get_parameter("weight").std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


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
