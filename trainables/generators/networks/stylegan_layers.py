"""The layers of StyleGAN2's networks: equalised learning rate, modulation, blurred changes of size."""

from __future__ import annotations

import math
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from trainables.generators.networks.dcgan import LEAK

BLUR = (1.0, 3.0, 3.0, 1.0)
"""Filter of all changes of size (Karras et al. 2020, appendix B)."""
EPSILON = 1e-8


def leaky(features: Tensor) -> Tensor:
    """Leaky ReLU with the gain that keeps the features' scale."""
    return functional.leaky_relu(features, LEAK) * math.sqrt(2)


def unit(vectors_NF: Tensor) -> Tensor:
    """Each vector scaled to a mean square of 1."""
    return vectors_NF * torch.rsqrt(vectors_NF.square().mean(dim=1, keepdim=True) + EPSILON)


def equalised(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The weight that a layer computes with: its own, N(0, 1) at first, divided by the root of the number of inputs.

    A spectrally normalised weight stays as it is: the factor would cancel in W / sigma(W).

    Source: Karras et al. 2018, section 4.1.
    """
    weight: Tensor = layer.weight
    if parametrize.is_parametrized(layer, "weight"):
        return weight
    return weight / math.sqrt(weight[0].numel())


class EqualLinear(nn.Linear):
    """A linear layer with equalised learning rate.

    Args:
        inputs: features taken.
        outputs: features given.
        first_bias: initial value of all biases.
        rate: learning rate relative to other layers.
    """

    def __init__(self, inputs: int, outputs: int, *, first_bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        self._first_bias = first_bias
        self._rate = rate

    def fill(self, rng: torch.Generator) -> None:
        """Draw the initial weights."""
        self.weight.normal_(0, 1 / self._rate, generator=rng)
        self.bias.fill_(self._first_bias / self._rate)

    def forward(self, features_NF: Tensor) -> Tensor:
        """Features (N, inputs) to (N, outputs)."""
        return functional.linear(features_NF, equalised(self) * self._rate, self.bias * self._rate)


class EqualConv(nn.Conv2d):
    """A convolution with equalised learning rate, for maps whose size stays.

    Args:
        inputs: channels taken.
        outputs: channels given.
        kernel: side of the kernel, odd.
        bias: whether there is a bias; it starts at 0.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, bias=bias)

    def fill(self, rng: torch.Generator) -> None:
        """Draw the initial weights."""
        self.weight.normal_(generator=rng)
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Features (N, inputs, H, W) to (N, outputs, H, W)."""
        return functional.conv2d(features_NCHW, equalised(self), self.bias, padding=self.kernel_size[0] // 2)


class HalvingConv(EqualConv):
    """The same for maps that are blurred and halved; kernels of side 1 or 3."""

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Features (N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        if self.kernel_size[0] == 1:
            return functional.conv2d(blurred(features_NCHW, padding=1, stride=2), equalised(self), self.bias)
        return functional.conv2d(blurred(features_NCHW, padding=2), equalised(self), self.bias, stride=2)


class ModulatedConv(nn.Conv2d):
    """A convolution whose weights are scaled by each image's style, and normalised again.

    The weights stay the same for all images: the style scales the channels that go in, the normalisation those that
    come out, which gives the same numbers and needs no convolution of each image's own.

    Args:
        inputs: channels taken.
        outputs: channels given.
        kernel: side of the kernel; 1 or 3.
        style_size: length of a style.
        demodulate: whether outputs are normalised; not for the layers that make images.
        double: whether the map is doubled in size and blurred; for a kernel of side 3.

    Source: Karras et al. 2020, equations 1 to 3.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, style_size: int, demodulate: bool, double: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, bias=False)
        self.affine = EqualLinear(style_size, inputs, first_bias=1.0)
        self._demodulate = demodulate
        self._double = double

    def fill(self, rng: torch.Generator) -> None:
        """Draw the initial weights."""
        self.weight.normal_(generator=rng)

    def forward(self, features_NCHW: Tensor, styles_NS: Tensor) -> Tensor:  # type: ignore[override]
        """Features (N, inputs, H, W) to (N, outputs, H, W), or twice H and W."""
        weight = equalised(self)
        scales_NI = self.affine(styles_NS)
        features_NCHW = features_NCHW * scales_NI[:, :, None, None]
        if self._double:
            features_NCHW = functional.conv_transpose2d(features_NCHW, weight.transpose(0, 1), stride=2)
            features_NCHW = blurred(features_NCHW, padding=1, gain=4.0)
        else:
            features_NCHW = functional.conv2d(features_NCHW, weight, padding=self.kernel_size[0] // 2)
        if not self._demodulate:
            return features_NCHW
        squares_NO = scales_NI.square() @ weight.square().sum(dim=(2, 3)).T
        return features_NCHW * torch.rsqrt(squares_NO + EPSILON)[:, :, None, None]


def blurred(features_NCHW: Tensor, *, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    """Each map filtered with ``BLUR`` along both axes, zero outside.

    Args:
        features_NCHW: maps of any size.
        padding: rows and columns of zeros on each side.
        stride: distance of the filters of neighbouring outputs.
        gain: the sum of the filter.
    """
    channels = features_NCHW.shape[1]
    return functional.conv2d(
        features_NCHW, _filter(features_NCHW, channels, gain), padding=padding, stride=stride, groups=channels
    )


def doubled(images_NCHW: Tensor) -> Tensor:
    """Images of twice the height and width: zeros between the pixels, then ``BLUR``."""
    channels = images_NCHW.shape[1]
    return functional.conv_transpose2d(
        images_NCHW, _filter(images_NCHW, channels, 4.0), padding=1, stride=2, groups=channels
    )


def _filter(like: Tensor, channels: int, gain: float) -> Tensor:
    """One copy of the filter per channel (channels, 1, 4, 4)."""
    return _square(gain, like.dtype, like.device).expand(channels, 1, -1, -1)


@cache  # a GPU that replays a graph cannot be sent a new one
def _square(gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    taps = torch.tensor(BLUR, dtype=torch.float64)
    return (taps.outer(taps) * (gain / taps.sum() ** 2)).to(device, dtype)


Network = TypeVar("Network", bound=nn.Module)
