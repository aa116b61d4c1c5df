"""ImageNet weights in one-channel classifiers: reading, checking, and the scale of the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.classifiers import resnet50, vgg16, xception
from trainables.classifiers.features import head_name
from trainables.classifiers.pretrained import ensure
from trainables.errors import DataError

MEAN, STANDARD_DEVIATION = 0.449, 0.226
"""Of ImageNet's pixels in [0, 1], over the three channels."""

_CONSTRUCT = {"resnet50": resnet50.construct, "xception": xception.construct, "vgg16": vgg16.construct}
_NAMED_BY = {"resnet50": "torchvision", "xception": "timm (legacy_xception)", "vgg16": "torchvision"}
_TIMM_VGG = {"pre_logits.fc1.": "classifier.0.", "pre_logits.fc2.": "classifier.3.", "head.fc.": "classifier.6."}
_COUNTER = ".num_batches_tracked"
"""How often a batch normalisation was updated; nothing reads it, and files of old PyTorch versions lack it."""


def imagenet_scale(images_NCHW: Tensor) -> Tensor:
    """Images in [-1, 1] on the scale of ImageNet's training: ((x + 1) / 2 - mean) / standard deviation.

    Source: methods, "Classifiers".
    """
    return ((images_NCHW + 1) / 2 - MEAN) / STANDARD_DEVIATION


class ImageNetInput(nn.Module):
    """A network that is given its images on ImageNet's scale, so that convolutions pad with ImageNet's mean."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits (N, K) of images (N, 1, P, P) in [-1, 1]."""
        logits_NK: Tensor = self.network(imagenet_scale(images_NCHW))
        return logits_NK


def start_from_imagenet(network: nn.Module, architecture: str, value: str | Path) -> ImageNetInput:
    """Put ImageNet weights into an initialised one-channel network; its head stays as it was drawn.

    The first convolution's weights are summed over red, green and blue: what it gives is what the three-channel
    network gives for the grey image in each channel.

    Args:
        network: on the CPU; changed in place.
        architecture: its name.
        value: of ``classifier.pretrained``.

    Raises:
        DataError: there are no such weights, or they are another network's.

    Source: methods, "Classifiers".
    """
    weights = imagenet_weights(architecture, value)
    first = next(name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    weights[f"{first}.weight"] = weights[f"{first}.weight"].sum(dim=1, keepdim=True)
    kept = {name: tensor for name, tensor in network.state_dict().items() if name not in weights}
    network.load_state_dict({**kept, **weights})
    return ImageNetInput(network)


def imagenet_weights(architecture: str, value: str | Path) -> dict[str, Tensor]:
    """Read and check ImageNet weights.

    Args:
        architecture: "resnet50", "xception" or "vgg16".
        value: of ``classifier.pretrained``.

    Returns:
        float32 tensors for three channels under the network's own names; without the head, whatever its classes.

    Raises:
        DataError: there are no such weights, they are another network's, or not all are finite.
    """
    found = _read(ensure(value), value)
    if architecture == "vgg16":
        found = _from_timm_vgg(found)
    with torch.device("meta"):
        network = _CONSTRUCT[architecture](n_classes=1, n_channels=3)
    head = f"{head_name(network)}."
    expected, found = (
        {name: each for name, each in state.items() if not name.startswith(head) and not name.endswith(_COUNTER)}
        for state in (network.state_dict(), found)
    )
    for reason, names in _differences(expected, found).items():
        if names:
            raise DataError(
                f"classifier.pretrained={value} {reason} {_first(names)}; expected ImageNet weights of {architecture}, "
                f"three channels, under the names of {_NAMED_BY[architecture]}. Pass such a file."
            )
    return {name: found[name].float() for name in expected}


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What stands against using the found weights in place of the expected, by the reason."""
    both = [name for name in expected if name in found]
    return {
        "lacks": [name for name in expected if name not in found],
        "has the unknown": [name for name in found if name not in expected],
        "has the wrong shapes of": [
            f"{name} {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
            for name in both
            if found[name].shape != expected[name].shape
        ],
        "has other values than finite real numbers in": [
            name for name in both if not (found[name].is_floating_point() and found[name].float().isfinite().all())
        ],
    }


def _read(path: Path, value: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; nothing that is in the file is run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, Mapping) or not all(_is_plain(each) for each in found.values()):
            raise TypeError(f"a {type(found).__name__} that is no mapping of names to tensors")
        return {str(name): tensor for name, tensor in found.items()}
    except Exception as error:  # what the readers raise on bytes that are no weights depends on the bytes
        raise DataError(
            f"classifier.pretrained={value} is not a file of tensors alone; expected a network's weights by name. Save "
            "them with safetensors.torch.save_file(model.state_dict(), PATH), or torch.save for a .pth file."
        ) from error


def _is_plain(found: object) -> bool:
    return isinstance(found, Tensor) and found.layout == torch.strided and found.device.type == "cpu"


def _from_timm_vgg(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's names for the VGG weights on the hub, where timm keeps linear layers as convolutions."""
    renamed = {}
    for name, tensor in found.items():
        theirs = next((each for each in _TIMM_VGG if name.startswith(each)), None)
        if theirs is None:
            renamed[name] = tensor
        else:
            renamed[_TIMM_VGG[theirs] + name.removeprefix(theirs)] = tensor.flatten(1) if tensor.ndim > 1 else tensor
    return renamed


def _first(names: Sequence[str]) -> str:
    """The first three of them, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more
