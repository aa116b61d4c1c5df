"""DCGAN's two networks for one-channel images (Radford et al. 2016), conditioned on the class by projection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from trainables.generators.networks.image_network import ImageNetwork

INITIAL_STD = 0.02
"""Standard deviation of all initial weights (Radford et al. 2016, section 4)."""
LEAK = 0.2
"""Slope of the discriminator's activations below 0 (Radford et al. 2016, section 4)."""
WIDEST = 8
"""Channels grow from ``width`` at the image to at most this many times ``width`` at the smallest grid."""


def channel_plan(pixels: int, width: int) -> tuple[int, tuple[int, ...]]:
    """Grid and channels between an image and its smallest feature map.

    Args:
        pixels: height and width of the images; a multiple of 16.
        width: channels of the largest feature map, at half the image's size.

    Returns:
        The side of the smallest grid (4 where ``pixels`` is a power of two, 5 for 80), and the channels of the
        feature maps from the largest to the smallest, one per halving.
    """
    halvings = 0
    while pixels % 2 == 0 and pixels >= 8:
        pixels //= 2
        halvings += 1
    return pixels, tuple(width * min(2**level, WIDEST) for level in range(halvings))


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with one gain and one bias per class (Dumoulin et al. 2017, equation 5)."""

    def __init__(self, channels: int, *, n_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gains_KC = nn.Parameter(torch.empty(n_classes, channels))
        self.biases_KC = nn.Parameter(torch.empty(n_classes, channels))

    def forward(self, features_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """Normalise, then scale and shift each image by its class."""
        normed_NCHW: Tensor = self.norm(features_NCHW)
        return normed_NCHW * self.gains_KC[labels_N, :, None, None] + self.biases_KC[labels_N, :, None, None]


class DcganGenerator(ImageNetwork):
    """Latents and labels to images in [-1, 1].

    The class acts as gains and biases of every normalisation, which differ by next to nothing at first. A code added
    to the latent would make classes differ from the first step on, but in ways that the data's do not: measured on
    X-rays, the difference of the classes' mean images came out twice too large and less like the real one.

    Args:
        pixels: height and width of the images; a multiple of 16.
        latent_size: length of z ~ N(0, I).
        width: channels before the last layer.
        n_classes: 1 for an unconditional network, which ignores the labels.
    """

    def __init__(self, *, pixels: int, latent_size: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        grid, channels = channel_plan(pixels, width)
        channels = channels[::-1]
        self.project = nn.Linear(latent_size, channels[0] * grid * grid, bias=False)
        self.unflatten = nn.Unflatten(1, (channels[0], grid, grid))
        self.norms = nn.ModuleList(ConditionalBatchNorm(each, n_classes=n_classes) for each in channels)
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(each, following, 4, 2, 1, bias=following == 1)
            for each, following in zip(channels, (*channels[1:], 1), strict=True)
        )

    def noise(self, count: int, *, rng: torch.Generator) -> Tensor:
        """Latents z ~ N(0, I), float32 (count, L)."""
        return torch.randn(count, self.latent_size, generator=rng)

    def forward(self, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        """Images float32 (N, 1, P, P) of latents (N, L) and int64 labels (N,)."""
        features_NCHW: Tensor = self.unflatten(self.project(noise_NM))
        for norm, double in zip(self.norms, self.doublings, strict=True):
            features_NCHW = double(torch.relu(norm(features_NCHW, labels_N)))
        return torch.tanh(features_NCHW)


class DcganDiscriminator(nn.Module):
    """Images and labels to logits, large where an image looks real (projection: Miyato & Koyama 2018, equation 4).

    Args:
        pixels: height and width of the images; a multiple of 16.
        width: channels after the first layer.
        n_classes: 1 for an unconditional network, which ignores the labels.
        batch_norm: as in Radford et al., after every convolution but the first. Off where the logit of an image
            must not depend on the other images of its batch.
    """

    def __init__(self, *, pixels: int, width: int, n_classes: int, batch_norm: bool) -> None:
        super().__init__()
        grid, channels = channel_plan(pixels, width)
        layers: list[nn.Module] = []
        for before, after in zip((1, *channels[:-1]), channels, strict=True):
            normed = batch_norm and before != 1
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=not normed))
            layers += [nn.BatchNorm2d(after)] if normed else []
            layers.append(nn.LeakyReLU(LEAK))
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.logit = nn.Linear(channels[-1] * grid * grid, 1)
        self.classes = nn.Embedding(n_classes, channels[-1] * grid * grid) if n_classes > 1 else None

    def forward(self, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """Logits float32 (N,) of images (N, 1, P, P) and int64 labels (N,)."""
        features_NF: Tensor = self.features(images_NCHW)
        logits_N: Tensor = self.logit(features_NF)[:, 0]
        if self.classes is None:
            return logits_N
        classes_NF: Tensor = self.classes(labels_N)
        return logits_N + (classes_NF * features_NF).sum(dim=1)


class AuxiliaryDiscriminator(nn.Module):
    """Images to logits of being real, and to logits of the classes (Odena et al. 2017, section 3).

    Args:
        pixels, width: as in ``DcganDiscriminator``; batch normalisation is on.
        n_classes: number of classes told apart.
    """

    def __init__(self, *, pixels: int, width: int, n_classes: int) -> None:
        super().__init__()
        source = DcganDiscriminator(pixels=pixels, width=width, n_classes=1, batch_norm=True)
        self.features, self.logit = source.features, source.logit
        self.classes = nn.Linear(self.logit.in_features, n_classes)

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 (N,) and (N, K) of images (N, 1, P, P)."""
        features_NF: Tensor = self.features(images_NCHW)
        logits_N: Tensor = self.logit(features_NF)[:, 0]
        classes_NK: Tensor = self.classes(features_NF)
        return logits_N, classes_NK


Network = TypeVar("Network", bound=nn.Module)


def create(
    make: Callable[[], Network], *, keep_scale: bool = False, rng: torch.Generator, device: torch.device
) -> Network:
    """Build a network and fill it from ``rng``; the global random state is neither read nor changed.

    Args:
        make: builds the network; called where tensors have no storage, so that no layer draws weights itself.
        keep_scale: for a discriminator without batch normalisation, in which N(0, 0.02) would let the signal
            fade from layer to layer: its convolutions are drawn so that each keeps the scale of its input.
        rng: CPU generator of all weights: N(0, 0.02), gains N(1, 0.02), biases 0. A layer with a method ``fill(rng)``
            draws its own.
        device: where the network is moved.

    Returns:
        The network, in training mode, laid out as channels last.

    Source: Radford et al. 2016, section 4; gains as in the authors' code; ``keep_scale``: He et al. 2015, equation 15.
    """
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    with torch.no_grad():
        for module in network.modules():
            fill = getattr(module, "fill", None)
            if fill is not None:
                fill(rng)
            else:
                _fill(module, keep_scale, rng)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fill(module: nn.Module, keep_scale: bool, rng: torch.Generator) -> None:
    """Initial values of the tensors that this module itself owns."""
    if isinstance(module, nn.BatchNorm2d):
        module.reset_running_stats()
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("bias"):
            parameter.zero_()
        elif isinstance(module, nn.BatchNorm2d | ConditionalBatchNorm):
            parameter.normal_(1.0, INITIAL_STD, generator=rng)
        elif keep_scale and isinstance(module, nn.Conv2d):
            parameter.normal_(0.0, math.sqrt(2 / (1 + LEAK**2) / parameter[0].numel()), generator=rng)
        else:
            parameter.normal_(0.0, INITIAL_STD, generator=rng)
