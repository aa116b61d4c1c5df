"""DAE GAN's two networks: residual blocks with one self-attention module each (paper 1: Fu et al. 2020, table 1).

Table 1 gives the order of the layers and no sizes. For its 80 pixels, and so for other sizes (``channel_plan``):

    generator                              discriminator
    z, fully connected         5 x 5       convolution 3x3             40 x 40
    residual structure       10 x 10       residual structure          20 x 20
    residual structure       20 x 20       self-attention module       20 x 20
    self-attention module    20 x 20       residual structure          10 x 10
    residual structure       40 x 40       residual structure            5 x 5
    residual structure       80 x 80       residual structure            5 x 5
    convolution 3x3, tanh    80 x 80       fully connected

Both attend at a quarter of the image's side: 8 x 8 for 32 pixels, after the first of three blocks. Figure 5 shows a
block of two 3x3 convolutions and a shortcut; here activations come before convolutions (He et al. 2016, "Identity
mappings"), the convolution at the larger size has as few channels as the block allows, the shortcut is a 1x1
convolution where channels change, and the discriminator has no normalisation, so that an image's logit depends on that
image alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainables.generators.latents import Latents, MixtureLatents
from trainables.generators.networks.dcgan import LEAK, ConditionalBatchNorm, DcganDiscriminator, channel_plan, create
from trainables.generators.networks.image_network import ImageNetwork

ATTENTION_SHARE = 8
"""Queries, keys and values have this fraction of the channels (Zhang et al. 2019, section 3)."""
ATTENTION_LEVEL = 1
"""Position of the attended feature map in ``channel_plan``: 0 is half the image's side, 1 a quarter."""


def attend(queries_NTC: Tensor, keys_NTC: Tensor, values_NTC: Tensor) -> Tensor:
    """Mean of the values, weighted by the softmax over positions of query times key, which is not divided by sqrt(C).

    Of PyTorch's kernels the plain one computes it: the others cannot be differentiated twice, or not reproducibly.

    Args:
        queries_NTC: of T positions; likewise keys and values.

    Returns:
        float (N, T, C).

    Source: SAGAN (Zhang et al. 2019), equations 1 and 2.
    """
    with sdpa_kernel(SDPBackend.MATH):
        return functional.scaled_dot_product_attention(queries_NTC, keys_NTC, values_NTC, scale=1.0)


class SelfAttention(nn.Module):
    """Self-attention over positions, ``gamma * attention(x) + x`` with gamma learnt from 0.

    Args:
        channels: C; queries, keys and values have C / 8, at least 1.

    Source: SAGAN (Zhang et al. 2019), section 3 and equation 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(channels // ATTENTION_SHARE, 1)
        self.query, self.key, self.value = (nn.Conv2d(channels, narrow, 1, bias=False) for _ in range(3))
        self.back = nn.Conv2d(narrow, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.empty(()))

    @torch.no_grad()
    def draw(self, *, rng: torch.Generator) -> None:
        """Begin anew: convolutions that keep the scale of their input, gamma 0."""
        for each in (self.query, self.key, self.value, self.back):
            each.weight.normal_(0.0, 1 / math.sqrt(each.in_channels), generator=rng)
        self.gamma.zero_()

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Features of the same shape."""
        positions = (each(features_NCHW).flatten(2).transpose(1, 2) for each in (self.query, self.key, self.value))
        attended_NTC = attend(*positions)
        attended_NCHW = attended_NTC.transpose(1, 2).reshape(len(features_NCHW), -1, *features_NCHW.shape[2:])
        change_NCHW: Tensor = self.back(attended_NCHW)
        return self.gamma * change_NCHW + features_NCHW


class ResidualDoubling(nn.Module):
    """The generator's block: twice the size; normalised per class before each convolution."""

    def __init__(self, before: int, after: int, *, n_classes: int) -> None:
        super().__init__()
        self.first_norm = ConditionalBatchNorm(before, n_classes=n_classes)
        self.first = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.second_norm = ConditionalBatchNorm(after, n_classes=n_classes)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = _shortcut(before, after)

    def forward(self, features_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """Features (N, after, 2H, 2W) of (N, before, H, W)."""
        change_NCHW: Tensor = self.first(torch.relu(self.first_norm(features_NCHW, labels_N)))
        change_NCHW = self.second(_doubled(torch.relu(self.second_norm(change_NCHW, labels_N))))
        return change_NCHW + _doubled(self.shortcut(features_NCHW))


class DcganDoubling(nn.Module):
    """The layer of DCGAN's generator in a block's place: normalised, rectified, then a transposed convolution."""

    def __init__(self, before: int, after: int, *, n_classes: int) -> None:
        super().__init__()
        self.norm = ConditionalBatchNorm(before, n_classes=n_classes)
        self.convolution = nn.ConvTranspose2d(before, after, 4, 2, 1, bias=after == 1)

    def forward(self, features_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """Features (N, after, 2H, 2W) of (N, before, H, W)."""
        doubled_NCHW: Tensor = self.convolution(torch.relu(self.norm(features_NCHW, labels_N)))
        return doubled_NCHW


class ResidualHalving(nn.Module):
    """The discriminator's block, without normalisation: half the size, or the same.

    The sum of branch and shortcut is divided by sqrt(2), which keeps the signal's scale through any number of blocks
    (Karras et al. 2020, the residual discriminator of StyleGAN2).
    """

    def __init__(self, before: int, after: int, *, halved: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, before, 3, padding=1)
        self.second = nn.Conv2d(before, after, 3, padding=1)
        self.shortcut = _shortcut(before, after)
        self.pool: nn.Module = nn.AvgPool2d(2) if halved else nn.Identity()

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Features (N, after, H', W') of (N, before, H, W)."""
        change_NCHW: Tensor = self.pool(self.first(functional.leaky_relu(features_NCHW, LEAK)))
        change_NCHW = self.second(functional.leaky_relu(change_NCHW, LEAK))
        kept_NCHW: Tensor = self.shortcut(self.pool(features_NCHW))
        return (change_NCHW + kept_NCHW) * math.sqrt(0.5)


class DaeGenerator(ImageNetwork):
    """Noise and labels to images in [-1, 1]; the class acts through the normalisations, as in ``DcganGenerator``.

    Args:
        pixels: height and width of the images; a multiple of 16.
        latents: turns noise into latents; its parameters, if it has any, are this network's.
        width: channels of the feature map of half the image's side.
        n_classes: 1 for an unconditional network, which ignores the labels.
        residual: residual blocks, the last one with half as many channels; else DCGAN's layers.
        attention: self-attention at a quarter of the image's side.
    """

    def __init__(
        self, *, pixels: int, latents: Latents, width: int, n_classes: int, residual: bool, attention: bool
    ) -> None:
        super().__init__()
        grid, channels = channel_plan(pixels, width)
        downwards = channels[::-1]
        self.latents = latents
        self.project = nn.Linear(latents.size, downwards[0] * grid * grid, bias=False)
        self.unflatten = nn.Unflatten(1, (downwards[0], grid, grid))
        layer, last = (ResidualDoubling, width // 2) if residual else (DcganDoubling, 1)
        self.doublings = nn.ModuleList(
            layer(before, after, n_classes=n_classes)
            for before, after in zip(downwards, (*downwards[1:], last), strict=True)
        )
        self.attention_at = len(channels) - 1 - ATTENTION_LEVEL
        self.attention = SelfAttention(channels[ATTENTION_LEVEL]) if attention else None
        self.norm = ConditionalBatchNorm(last, n_classes=n_classes) if residual else None
        self.image = nn.Conv2d(last, 1, 3, padding=1) if residual else None

    def noise(self, count: int, *, rng: torch.Generator) -> Tensor:
        """All that is random in ``count`` images: float32 (count, M)."""
        return self.latents.noise(count, rng=rng)

    def forward(self, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        """Images float32 (N, 1, P, P) of noise (N, M) and int64 labels (N,)."""
        features_NCHW: Tensor = self.unflatten(self.project(self.latents(noise_NM)))
        for position, double in enumerate(self.doublings):
            if self.attention is not None and position == self.attention_at:
                features_NCHW = self.attention(features_NCHW)
            features_NCHW = double(features_NCHW, labels_N)
        if self.norm is not None and self.image is not None:
            features_NCHW = self.image(torch.relu(self.norm(features_NCHW, labels_N)))
        return torch.tanh(features_NCHW)


class DaeDiscriminator(DcganDiscriminator):
    """Images and labels to logits: ``DcganDiscriminator`` without batch normalisation, with other feature layers.

    Args:
        pixels: height and width of the images; a multiple of 16.
        width: channels after the first layer.
        n_classes: 1 for an unconditional network, which ignores the labels.
        residual: residual blocks; else DCGAN's layers.
        attention: self-attention at a quarter of the image's side.
    """

    def __init__(self, *, pixels: int, width: int, n_classes: int, residual: bool, attention: bool) -> None:
        super().__init__(pixels=pixels, width=width, n_classes=n_classes, batch_norm=False)
        _, channels = channel_plan(pixels, width)
        layers = _residual_features(channels) if residual else list(self.features)
        if attention:
            # the residual stem and each of DCGAN's halvings are two layers, a block is one
            place = 2 + ATTENTION_LEVEL if residual else 2 + 2 * ATTENTION_LEVEL
            layers.insert(place, SelfAttention(channels[ATTENTION_LEVEL]))
        self.features = nn.Sequential(*layers)


def _residual_features(channels: tuple[int, ...]) -> list[nn.Module]:
    """A convolution and all halvings but the first in blocks, then a block that keeps the size."""
    halvings = itertools.pairwise(channels)
    stem: list[nn.Module] = [nn.Conv2d(1, channels[0], 3, padding=1), nn.AvgPool2d(2)]
    blocks: list[nn.Module] = [ResidualHalving(before, after, halved=True) for before, after in halvings]
    return [*stem, *blocks, ResidualHalving(channels[-1], channels[-1], halved=False), nn.LeakyReLU(LEAK), nn.Flatten()]


def _shortcut(before: int, after: int) -> nn.Module:
    return nn.Identity() if before == after else nn.Conv2d(before, after, 1, bias=False)


def _doubled(features_NCHW: Tensor) -> Tensor:
    return functional.interpolate(features_NCHW, scale_factor=2, mode="nearest")


Network = TypeVar("Network", bound=nn.Module)


def create_dae(make: Callable[[], DaeGenerator], *, rng: torch.Generator, device: torch.device) -> DaeGenerator:
    """As ``create``; then self-attention and mixture latents draw their own initial values, from ``rng`` too."""
    network = create(make, rng=rng, device=torch.device("cpu"))
    for module in network.modules():
        if isinstance(module, SelfAttention | MixtureLatents):
            module.draw(rng=rng)
    return network.to(device)


@torch.no_grad()
def without_attention(network: Network) -> Network:
    """The network with gamma 0 in every self-attention: it learns to attend, but does not yet."""
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.gamma.zero_()
    return network
