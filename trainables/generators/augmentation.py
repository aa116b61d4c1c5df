"""What a discriminator's images go through: DiffAugment (Zhao et al. 2020) and ADA (Karras et al. 2020a).

Both are drawn first and applied afterwards, so that several batches can go through the very same augmentation. Both
can be differentiated any number of times by the images, as penalties on a discriminator's gradient need it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.training.graphs import Drawn

SHIFT_SHARE = 0.125
"""Largest shift by whole pixels, as a share of the image's side, in both methods."""
CUTOUT_SHARE = 0.5
"""Side of DiffAugment's grey square, as a share of the image's."""
SCALE_STD = 0.2
"""Standard deviation of the binary logarithm of ADA's zooms (Karras et al. 2020a, appendix B)."""
FRACTIONAL_STD = 0.125
"""Standard deviation of ADA's fractional shift, as a share of the image's side (appendix B)."""
BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5
"""Of ADA's brightness, and of the binary logarithm of its contrast (appendix B)."""
ADJUSTED_EVERY = 4
"""Steps between two adjustments of ADA's probability (Karras et al. 2020a, section 3)."""
SAFE_PROBABILITY = 0.8
"""Above this probability, augmentations leak into the generated images (Karras et al. 2020a, section 2.2)."""


def draw_diffaugment(count: int, pixels: int, *, rng: torch.Generator) -> Drawn:
    """Draw brightness, contrast, translation and cutout for ``count`` images.

    Saturation, the method's other colour operation, does nothing on one channel.

    Args:
        count: number of images.
        pixels: their height and width.
        rng: CPU generator.

    Returns:
        ``brightness_N``, float32 in [-.5, .5), added; ``contrast_N``, float32 in [.5, 1.5), multiplies the deviation
        from the image's mean; ``shifts_N2``, int64 pixels, down and right, that the image is read from;
        ``corners_N2``, int64 row and column of the grey square's upper left corner, which may lie outside.

    Source: Zhao et al. 2020, section 3.2 and the authors' code.
    """
    brightness_N, contrast_N = torch.rand(2, count, generator=rng)
    reach, side = _whole(pixels * SHIFT_SHARE), _whole(pixels * CUTOUT_SHARE)
    shifts_N2 = torch.randint(-reach, reach + 1, (count, 2), generator=rng)
    centres_N2 = torch.randint(0, pixels + 1 - side % 2, (count, 2), generator=rng)
    return {
        "brightness_N": brightness_N - 0.5,
        "contrast_N": contrast_N + 0.5,
        "shifts_N2": shifts_N2,
        "corners_N2": centres_N2 - side // 2,
    }


def apply_diffaugment(images_NCHW: Tensor, draws: Drawn) -> Tensor:
    """Augment each image by its own draw; differentiable by the images.

    Args:
        images_NCHW: float (N, 1, P, P) in [-1, 1], on any device.
        draws: for N images of P pixels, there too.

    Returns:
        Images of the same shape, not clamped; what is shifted in and what is cut out is 0, as in the authors' code.

    Source: Zhao et al. 2020, section 3.2.
    """
    pixels = images_NCHW.shape[-1]
    bright_NCHW = images_NCHW + _per_image(draws["brightness_N"], images_NCHW)
    mean_N111 = bright_NCHW.mean(dim=(1, 2, 3), keepdim=True)
    coloured_NCHW = (bright_NCHW - mean_N111) * _per_image(draws["contrast_N"], images_NCHW) + mean_N111
    along = torch.arange(pixels, device=images_NCHW.device)
    # A shift as a product with a matrix of zeros and ones: its derivatives are sums in a fixed order on any device.
    shifts_2NPP = (along == (along[:, None] + draws["shifts_N2"].T[:, :, None, None])).to(images_NCHW)
    shifted_NCHW = shifts_2NPP[0][:, None] @ coloured_NCHW @ shifts_2NPP[1][:, None].mT
    from_corner_2NP = along - draws["corners_N2"].T[:, :, None]
    inside_2NP = (from_corner_2NP >= 0) & (from_corner_2NP < _whole(pixels * CUTOUT_SHARE))
    kept_NPP = ~(inside_2NP[0, :, :, None] & inside_2NP[1, :, None, :])
    return shifted_NCHW * kept_NPP[:, None].to(images_NCHW)


def draw_ada(count: int, pixels: int, *, probability: float, rng: torch.Generator) -> Drawn:
    """Draw ADA's geometric and colour augmentations for ``count`` images, each with the same probability.

    In this order: mirror image, rotation by quarters, shift by whole pixels, zoom, rotation, zoom along one axis,
    rotation, fractional shift, brightness, contrast. Of the colour operations, hue and saturation do nothing on one
    channel, and the luma flip would make negatives, which no image of a modality with a fixed grey scale is.
    As many numbers are drawn whatever the probability, so that it does not change what is drawn later.

    Args:
        count: number of images.
        pixels: their height and width.
        probability: in [0, 1]; of each operation, for each image.
        rng: CPU generator.

    Returns:
        ``matrices_N33``, float64, from output to input coordinates (x, y, 1) in pixels from the image's centre;
        ``brightness_N``, float32, added first; ``contrast_N``, float32, multiplied afterwards.

    Source: Karras et al. 2020a, appendix B, for one channel.
    """
    chances_10N, uniforms_6N = (torch.rand(rows, count, generator=rng, dtype=torch.float64) for rows in (10, 6))
    normals_6N = torch.randn(6, count, generator=rng, dtype=torch.float64)
    # Two rotations share the probability of one.
    limits = [probability] * 10
    limits[4] = limits[6] = 1 - math.sqrt(1 - probability)
    mirror, quarter, whole, zoom, before, stretch, after, fraction, bright, contrast = (
        (chance_N < limit).double() for chance_N, limit in zip(chances_10N, limits, strict=True)
    )
    sides_N = 1 - 2 * mirror * torch.floor(2 * uniforms_6N[0])
    quarters_N = quarter * torch.floor(4 * uniforms_6N[1])
    shift_2N = whole * torch.round(pixels * SHIFT_SHARE * (2 * uniforms_6N[2:4] - 1))
    zoom_N, stretch_N = torch.exp2(SCALE_STD * zoom * normals_6N[0]), torch.exp2(SCALE_STD * stretch * normals_6N[1])
    angle_2N = math.pi * torch.stack([before, after]) * (2 * uniforms_6N[4:6] - 1)
    drift_2N = fraction * pixels * FRACTIONAL_STD * normals_6N[2:4]
    one_N = torch.ones(count, dtype=torch.float64)
    factors = (
        _scaling(sides_N, one_N),
        _rotation(quarters_N * (math.pi / 2)),
        _translation(*shift_2N),
        _scaling(1 / zoom_N, 1 / zoom_N),
        _rotation(angle_2N[0]),
        _scaling(1 / stretch_N, stretch_N),
        _rotation(angle_2N[1]),
        _translation(*drift_2N),
    )
    matrices_N33 = factors[0]
    for factor_N33 in factors[1:]:  # from the output back to the input, hence the first operation stands first
        matrices_N33 = matrices_N33 @ factor_N33
    return {
        "matrices_N33": matrices_N33,
        "brightness_N": (BRIGHTNESS_STD * bright * normals_6N[4]).float(),
        "contrast_N": torch.exp2(CONTRAST_STD * contrast * normals_6N[5]).float(),
    }


def apply_ada(images_NCHW: Tensor, draws: Drawn) -> Tensor:
    """Augment each image by its own draw; differentiable by the images.

    Args:
        images_NCHW: float (N, 1, P, P) in [-1, 1], on any device.
        draws: for N images of P pixels, there too.

    Returns:
        Images of the same shape, not clamped.
    """
    warped_NCHW = resample(images_NCHW, draws["matrices_N33"])
    brightness_N111, contrast_N111 = (_per_image(draws[name], images_NCHW) for name in ("brightness_N", "contrast_N"))
    return (warped_NCHW + brightness_N111) * contrast_N111


def resample(images_NCHW: Tensor, matrices_N33: Tensor) -> Tensor:
    """Read each image at transformed positions, bilinear, mirrored at the outermost pixels.

    ``torch.nn.functional.grid_sample`` will not do: it has no second derivative in all supported versions, and its
    first one adds up in any order on CUDA.

    Args:
        images_NCHW: float (N, 1, P, P).
        matrices_N33: float64, from output to input coordinates in pixels from the image's centre.

    Returns:
        Images of the same shape and range.
    """
    count, _, _, pixels = images_NCHW.shape
    middle = (pixels - 1) / 2
    along = torch.arange(pixels, dtype=torch.float64, device=images_NCHW.device) - middle
    y_PP, x_PP = torch.meshgrid(along, along, indexing="ij")
    places_3Q = torch.stack([x_PP.flatten(), y_PP.flatten(), torch.ones_like(x_PP).flatten()])
    read_N2Q = (matrices_N33[:, :2] @ places_3Q + middle).remainder(2 * (pixels - 1))
    read_N2Q = torch.minimum(read_N2Q, 2 * (pixels - 1) - read_N2Q)
    low_N2Q = read_N2Q.floor().clamp(max=pixels - 2)
    share_N2Q = read_N2Q - low_N2Q
    corner_NQ = (low_N2Q[:, 1] * pixels + low_N2Q[:, 0]).long()
    indices_N4Q = torch.stack([corner_NQ + step for step in (0, 1, pixels, pixels + 1)], dim=1)
    right_NQ, down_NQ = share_N2Q[:, 0], share_N2Q[:, 1]
    weights_N4Q = torch.stack(
        [(1 - down_NQ) * (1 - right_NQ), (1 - down_NQ) * right_NQ, down_NQ * (1 - right_NQ), down_NQ * right_NQ], dim=1
    )
    taken_N4Q = _take(images_NCHW.reshape(count, -1), indices_N4Q)
    return (taken_N4Q * weights_N4Q.to(images_NCHW)).sum(dim=1).view_as(images_NCHW)


class AdaController:
    """Raises and lowers ADA's probability so that the discriminator is sure of a given share of the real images.

    Args:
        target: of r_t = E sign(D(x)), the mean sign of the real images' logits.
        ramp: steps in which the probability can go from 0 to 1.

    Source: Karras et al. 2020a, section 3, equation 1 (r_t) and the text after it.
    """

    def __init__(self, *, target: float, ramp: int) -> None:
        self._target = target
        self._ramp = ramp
        self._probability = torch.zeros((), dtype=torch.float64)
        self._signs_sum = torch.zeros((), dtype=torch.float64)
        self._signs_count = torch.zeros((), dtype=torch.int64)
        self._steps = torch.zeros((), dtype=torch.int64)

    @property
    def probability(self) -> float:
        """Of each augmentation, in [0, ``SAFE_PROBABILITY``]."""
        return float(self._probability)

    def observe(self, real_logits_N: Tensor) -> None:
        """Take in one step's logits of real images, and adjust the probability every ``ADJUSTED_EVERY`` steps.

        Only then does the host wait for the device.
        """
        self._signs_sum = self._signs_sum.to(real_logits_N.device) + real_logits_N.detach().sign().sum().double()
        self._signs_count += real_logits_N.numel()
        self._steps += 1
        if int(self._steps) % ADJUSTED_EVERY:
            return
        excess = self._signs_sum.cpu() / self._signs_count - self._target
        self._probability += excess.sign() * (ADJUSTED_EVERY / self._ramp)
        self._probability.clamp_(0.0, SAFE_PROBABILITY)
        self._signs_sum = torch.zeros_like(self._signs_sum)
        self._signs_count.zero_()

    def state(self) -> dict[str, Tensor]:
        """Everything that changes, as CPU tensors."""
        return {
            "probability": self._probability.clone(),
            "signs_sum": self._signs_sum.cpu().clone(),
            "signs_count": self._signs_count.clone(),
            "steps": self._steps.clone(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned."""
        self._probability = state["probability"].clone()
        self._signs_sum = state["signs_sum"].clone()
        self._signs_count = state["signs_count"].clone()
        self._steps = state["steps"].clone()


def _take(pixels_NQ: Tensor, indices_N4Q: Tensor) -> Tensor:
    """The pixels at the indices, in the one way whose derivative adds up in a fixed order on this device."""
    if pixels_NQ.device.type == "cpu":
        return pixels_NQ.gather(1, indices_N4Q.flatten(1)).view(indices_N4Q.shape)
    rows_N11 = torch.arange(len(pixels_NQ), device=pixels_NQ.device)[:, None, None]
    return pixels_NQ[rows_N11, indices_N4Q]


def _scaling(x_N: Tensor, y_N: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x_N, y_N, torch.ones_like(x_N)], dim=1))


def _rotation(angle_N: Tensor) -> Tensor:
    cosine_N, sine_N = angle_N.cos(), angle_N.sin()
    zero_N, one_N = torch.zeros_like(angle_N), torch.ones_like(angle_N)
    rows = ((cosine_N, -sine_N, zero_N), (sine_N, cosine_N, zero_N), (zero_N, zero_N, one_N))
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _translation(x_N: Tensor, y_N: Tensor) -> Tensor:
    zero_N, one_N = torch.zeros_like(x_N), torch.ones_like(x_N)
    rows = ((one_N, zero_N, x_N), (zero_N, one_N, y_N), (zero_N, zero_N, one_N))
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _per_image(values_N: Tensor, images_NCHW: Tensor) -> Tensor:
    return values_N.to(images_NCHW)[:, None, None, None]


def _whole(value: float) -> int:
    """Rounded half up, as in Zhao et al.'s code."""
    return int(value + 0.5)
