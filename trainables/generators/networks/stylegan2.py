"""StyleGAN2's two networks for one-channel images of 32 to 128 pixels (Karras et al. 2020)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from trainables.generators.networks.dcgan import WIDEST
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.networks.stylegan_layers import (
    EPSILON,
    EqualConv,
    EqualLinear,
    HalvingConv,
    ModulatedConv,
    doubled,
    leaky,
    unit,
)

MAPPING_RATE = 0.01
"""Learning rate of the mapping network, relative to all other layers (Karras et al. 2019, appendix C)."""
GROUP = 4
"""Images whose standard deviation the discriminator sees (Karras et al. 2020, appendix B)."""


def level_plan(pixels: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sides and channels of the feature maps, from the smallest to the image's size.

    Args:
        pixels: height and width of the images; a multiple of 16.
        width: channels at the image's size.

    Returns:
        Sides from 4 (5 for 80 pixels, 6 for 48) to ``pixels``, each twice the one before; and channels, doubled at
        every halving up to ``WIDEST`` times ``width``.
    """
    sides = [pixels]
    while sides[-1] % 2 == 0 and sides[-1] >= 8:
        sides.append(sides[-1] // 2)
    channels = [width * min(2**level, WIDEST) for level in range(len(sides))]
    return tuple(sides[::-1]), tuple(channels[::-1])


class StyledLayer(nn.Module):
    """A modulated convolution, noise at every pixel with a learnt strength, bias, activation."""

    def __init__(self, inputs: int, outputs: int, *, style_size: int, double: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style_size=style_size, demodulate=True, double=double)
        self.strength = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(outputs))

    def fill(self, rng: torch.Generator) -> None:
        """Start without noise and without bias."""
        self.strength.zero_()
        self.bias.zero_()

    def forward(self, features_NCHW: Tensor, styles_NS: Tensor, noise_N1HW: Tensor) -> Tensor:
        """Features to features of the noise's height and width."""
        convolved_NCHW = self.conv(features_NCHW, styles_NS)
        return leaky(convolved_NCHW + self.strength * noise_N1HW + self.bias[:, None, None])


class ToImage(nn.Module):
    """A feature map's contribution to the image."""

    def __init__(self, inputs: int, *, style_size: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 1, 1, style_size=style_size, demodulate=False)
        self.bias = nn.Parameter(torch.empty(1))

    def fill(self, rng: torch.Generator) -> None:
        """Start without bias."""
        self.bias.zero_()

    def forward(self, features_NCHW: Tensor, styles_NS: Tensor) -> Tensor:
        """Features to (N, 1, H, W)."""
        image_N1HW: Tensor = self.conv(features_NCHW, styles_NS) + self.bias[:, None, None]
        return image_N1HW


class Mapping(nn.Module):
    """Latents and labels to styles (Karras et al. 2019, section 2; the class as in Karras et al. 2020a's code)."""

    def __init__(self, *, latent_size: int, layers: int, n_classes: int) -> None:
        super().__init__()
        self.classes_KL = nn.Parameter(torch.empty(n_classes, latent_size)) if n_classes > 1 else None
        inputs = latent_size * (1 if self.classes_KL is None else 2)
        self.layers = nn.ModuleList(
            EqualLinear(inputs if layer == 0 else latent_size, latent_size, rate=MAPPING_RATE)
            for layer in range(layers)
        )

    def fill(self, rng: torch.Generator) -> None:
        """Draw the classes' codes."""
        if self.classes_KL is not None:
            self.classes_KL.normal_(generator=rng)

    def forward(self, latents_NL: Tensor, labels_N: Tensor) -> Tensor:
        """Styles (N, L) of latents (N, L) and int64 labels (N,)."""
        features_NF = unit(latents_NL)
        if self.classes_KL is not None:
            features_NF = torch.cat([features_NF, unit(self.classes_KL)[labels_N]], dim=1)
        for layer in self.layers:
            features_NF = leaky(layer(features_NF))
        return features_NF


class StyleganGenerator(ImageNetwork):
    """Noise and labels to images, in evaluation mode clamped to [-1, 1].

    Args:
        pixels: height and width of the images; a multiple of 16.
        latent_size: length of z and of the styles.
        width: channels of the feature map of the image's size.
        mapping_layers: depth of the mapping network.
        n_classes: 1 for an unconditional network, which ignores the labels.

    Source: Karras et al. 2020, figure 2 (layers) and figure 7 (skip connections).
    """

    def __init__(self, *, pixels: int, latent_size: int, width: int, mapping_layers: int, n_classes: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        sides, channels = level_plan(pixels, width)
        self.mapping = Mapping(latent_size=latent_size, layers=mapping_layers, n_classes=n_classes)
        self.constant_CHW = nn.Parameter(torch.empty(channels[0], sides[0], sides[0]))
        layers = [StyledLayer(channels[0], channels[0], style_size=latent_size, double=False)]
        for before, after in itertools.pairwise(channels):
            layers.append(StyledLayer(before, after, style_size=latent_size, double=True))
            layers.append(StyledLayer(after, after, style_size=latent_size, double=False))
        self.layers = nn.ModuleList(layers)
        self.to_image = nn.ModuleList(ToImage(each, style_size=latent_size) for each in channels)
        self._map_sides = (sides[0], *(side for side in sides[1:] for _ in range(2)))

    @property
    def style_count(self) -> int:
        """Styles that an image's layers take: one for each layer and one for the last contribution to the image."""
        return len(self.layers) + 1

    def fill(self, rng: torch.Generator) -> None:
        """Draw the constant input."""
        self.constant_CHW.normal_(generator=rng)

    def noise(self, count: int, *, rng: torch.Generator) -> Tensor:
        """All that is random in ``count`` images: N(0, 1) float32 (count, M), z and then each layer's noise map."""
        return torch.randn(count, self.latent_size + sum(side * side for side in self._map_sides), generator=rng)

    def styles(self, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        """Styles (N, L) of the latents in noise rows, for int64 labels (N,)."""
        styles_NL: Tensor = self.mapping(noise_NM[:, : self.latent_size], labels_N)
        return styles_NL

    def synthesize(self, styles_NLS: Tensor, noise_NM: Tensor) -> Tensor:
        """Images (N, 1, P, P), not clamped, of one style for each layer (N, ``style_count``, L) and noise rows."""
        sizes = [side * side for side in self._map_sides]
        flat_maps = torch.split(noise_NM[:, self.latent_size :], sizes, dim=1)
        maps = [flat_NQ.view(-1, 1, side, side) for flat_NQ, side in zip(flat_maps, self._map_sides, strict=True)]
        features_NCHW = self.constant_CHW.expand(len(noise_NM), -1, -1, -1)
        image_N1HW: Tensor | None = None
        for index, (layer, noise_N1HW) in enumerate(zip(self.layers, maps, strict=True)):
            features_NCHW = layer(features_NCHW, styles_NLS[:, index], noise_N1HW)
            if index % 2:
                continue
            part_N1HW = self.to_image[index // 2](features_NCHW, styles_NLS[:, index + 1])
            image_N1HW = part_N1HW if image_N1HW is None else doubled(image_N1HW) + part_N1HW
        assert image_N1HW is not None  # noqa: S101  (there is at least one layer)
        return image_N1HW

    def forward(self, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        """Images float32 (N, 1, P, P) of noise rows as from ``noise`` and int64 labels (N,)."""
        styles_NLS = self.styles(noise_NM, labels_N)[:, None].expand(-1, self.style_count, -1)
        images_NCHW = self.synthesize(styles_NLS, noise_NM)
        return images_NCHW if self.training else images_NCHW.clamp(-1, 1)


class ResidualHalving(nn.Module):
    """Two convolutions beside a skip connection; the map is halved (Karras et al. 2020, figure 7)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.keep = EqualConv(inputs, inputs, 3)
        self.halve = HalvingConv(inputs, outputs, 3)
        self.skip = HalvingConv(inputs, outputs, 1, bias=False)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Features (N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        convolved_NCHW = leaky(self.halve(leaky(self.keep(features_NCHW))))
        skipped_NCHW: Tensor = self.skip(features_NCHW)
        return (convolved_NCHW + skipped_NCHW) / math.sqrt(2)


class StyleganDiscriminator(nn.Module):
    """Images and labels to logits, large where an image looks real.

    An image's logit depends on the other images of its batch, through their standard deviation.

    Args:
        pixels: height and width of the images; a multiple of 16.
        width: channels of the feature map of the image's size.
        n_classes: 1 for an unconditional network, which ignores the labels.

    Source: Karras et al. 2020, figure 7 (residual connections); projection: Miyato & Koyama 2018, equation 4.
    """

    def __init__(self, *, pixels: int, width: int, n_classes: int) -> None:
        super().__init__()
        sides, channels = level_plan(pixels, width)
        self.from_image = EqualConv(1, channels[-1], 1)
        pairs = itertools.pairwise(channels[::-1])
        self.halvings = nn.Sequential(*(ResidualHalving(before, after) for before, after in pairs))
        self.last = EqualConv(channels[0] + 1, channels[0], 3)
        self.dense = EqualLinear(channels[0] * sides[0] ** 2, channels[0])
        self.logit = EqualLinear(channels[0], 1)
        self.classes_KF = nn.Parameter(torch.empty(n_classes, channels[0])) if n_classes > 1 else None

    def fill(self, rng: torch.Generator) -> None:
        """Draw the classes' directions."""
        if self.classes_KF is not None:
            self.classes_KF.normal_(generator=rng)

    def forward(self, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """Logits float32 (N,) of images (N, 1, P, P) and int64 labels (N,)."""
        features_NCHW: Tensor = self.halvings(leaky(self.from_image(images_NCHW)))
        spread_N111 = minibatch_spread(features_NCHW)[:, None, None, None]
        spread_N1HW = spread_N111.expand(-1, 1, *features_NCHW.shape[2:])
        features_NCHW = leaky(self.last(torch.cat([features_NCHW, spread_N1HW], dim=1)))
        features_NF = leaky(self.dense(features_NCHW.flatten(1)))
        logits_N: Tensor = self.logit(features_NF)[:, 0]
        if self.classes_KF is None:
            return logits_N
        return logits_N + (self.classes_KF[labels_N] * features_NF).sum(dim=1) / math.sqrt(features_NF.shape[1])


def minibatch_spread(features_NCHW: Tensor) -> Tensor:
    """How much the images of a group differ: their features' standard deviation, averaged, for each image.

    Image i is in group i mod M. There are as many groups as are filled by ``GROUP`` images each; the images left over
    where the batch is no multiple of ``GROUP`` make some groups larger. The images of a smaller batch are one group.

    Args:
        features_NCHW: float.

    Returns:
        (N,), the same number for all images of a group.

    Source: Karras et al. 2018, section 3, with groups as in Karras et al. 2020's code.
    """
    count = len(features_NCHW)
    groups = max(count // GROUP, 1)
    places_N = torch.arange(count, device=features_NCHW.device)
    member_NM = (places_N[:, None] % groups == torch.arange(groups, device=places_N.device)).to(features_NCHW)
    mean_MN = member_NM.T / member_NM.sum(dim=0)[:, None]
    features_NF = features_NCHW.flatten(1)
    centred_NF = features_NF - member_NM @ (mean_MN @ features_NF)
    spread_MF = (mean_MN @ centred_NF.square() + EPSILON).sqrt()
    return member_NM @ spread_MF.mean(dim=1)
