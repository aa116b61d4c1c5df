"""AugMix of real images: chains of operations, mixed with one another and with the image (Hendrycks et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from spaces.config import AugmixConfig
from trainables.data.image_set import ImageSet
from trainables.mixers.augmix_operations import OPERATIONS, operate
from trainables.mixers.base import Augment, Batch
from trainables.mixers.epochs import in_batches, sources

DRAWN_DEPTH = 3
"""Longest chain where ``depth`` is drawn."""
LOWEST_LEVEL = 0.1
VIEWS = 2
"""Augmented versions of each image that are compared with it, where there is a consistency loss."""
PIXELS_AT_ONCE, PIXELS_AT_ONCE_ON_GPU = 2**18, 2**21
"""Pixels of all chains that are computed together: what caches hold, what keeps a GPU busy; changes no number."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recipe:
    """What is drawn for N augmented images of W chains with at most D operations.

    Args:
        operation_NWD: int64 positions in ``OPERATIONS``.
        level_NWD: float64, the strength of each operation; its sign is the direction.
        depth_NW: int64, 1 to D: how many operations a chain has.
        chain_weight_NW: float32, rows sum to 1.
        mixed_weight_N: float32 in [0, 1]: the share of the chains against the image itself.
    """

    operation_NWD: Tensor
    level_NWD: Tensor
    depth_NW: Tensor
    chain_weight_NW: Tensor
    mixed_weight_N: Tensor

    def part(self, start: int, stop: int) -> Recipe:
        """The draws of the images from ``start`` to ``stop``."""
        return Recipe(
            operation_NWD=self.operation_NWD[start:stop],
            level_NWD=self.level_NWD[start:stop],
            depth_NW=self.depth_NW[start:stop],
            chain_weight_NW=self.chain_weight_NW[start:stop],
            mixed_weight_N=self.mixed_weight_N[start:stop],
        )

    def to(self, device: torch.device) -> Recipe:
        """The same draws on a device."""
        return Recipe(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def draw_recipe(config: AugmixConfig, count: int, *, rng: torch.Generator) -> Recipe:
    """Draw the augmentations of ``count`` images.

    Operations are uniform over the nine, their levels U(0.1, severity) with either sign, a chain's length uniform over
    1 to 3 or fixed, the weights of the chains Dirichlet(1, ..., 1), that of all chains together Beta(1, 1). An image's
    draws do not depend on the images after it.

    Args:
        config: width, depth and severity.
        count: how many images.
        rng: CPU generator.

    Returns:
        The draws.

    Source: AugMix, algorithm 1; levels and signs from the authors' augmentations.py.
    """
    width, depth = config.width, config.depth or DRAWN_DEPTH
    sizes = [width * depth, width * depth, width * depth, width, width, 1]
    uniform_NU = torch.rand(count, sum(sizes), generator=rng, dtype=torch.float64)
    operation_NU, level_NU, sign_NU, depth_NU, weight_NU, mixed_NU = torch.split(uniform_NU, sizes, dim=1)
    level_NU = LOWEST_LEVEL + (config.severity - LOWEST_LEVEL) * level_NU
    exponential_NW = -torch.log1p(-weight_NU)
    drawn_NW = torch.floor(depth * depth_NU).long() + 1
    return Recipe(
        operation_NWD=torch.floor(len(OPERATIONS) * operation_NU).long().view(count, width, depth),
        level_NWD=torch.where(sign_NU < 0.5, -level_NU, level_NU).view(count, width, depth),
        depth_NW=torch.full_like(drawn_NW, depth) if config.depth else drawn_NW,
        chain_weight_NW=(exponential_NW / exponential_NW.sum(dim=1, keepdim=True)).float(),
        mixed_weight_N=mixed_NU[:, 0].float(),
    )


def augment_and_mix(images_N1HW: Tensor, recipe: Recipe) -> Tensor:
    """Augment images by their recipes.

    The chains work on 8-bit versions of the images, of 256 levels from -1 to 1, as the authors' code does; the image
    that they are mixed with is not rounded.

    Args:
        images_N1HW: float32 in [-1, 1], one channel, on any device.
        recipe: the draws of the same N images.

    Returns:
        Images of the same shape and range, where the given ones are. Borders that an operation moves into an image are
        black (-1).

    Source: AugMix, algorithm 1.
    """
    recipe = recipe.to(images_N1HW.device)
    width = recipe.depth_NW.shape[1]
    pixels = PIXELS_AT_ONCE_ON_GPU if images_N1HW.is_cuda else PIXELS_AT_ONCE
    at_once = max(1, pixels // (width * images_N1HW[0].numel()))
    parts = [
        _augment_and_mix(part_B1HW, recipe.part(index * at_once, (index + 1) * at_once))
        for index, part_B1HW in enumerate(torch.split(images_N1HW, at_once))
    ]
    return torch.cat(parts)


def _augment_and_mix(images_N1HW: Tensor, recipe: Recipe) -> Tensor:
    count, width, depth = recipe.operation_NWD.shape
    bytes_NHW = (127.5 * (images_N1HW[:, 0] + 1)).round().to(torch.uint8)
    chains_MHW = bytes_NHW.repeat_interleave(width, dim=0)
    operation_MD, level_MD = recipe.operation_NWD.view(-1, depth), recipe.level_NWD.view(-1, depth)
    for step in range(depth):
        goes_on_B = (recipe.depth_NW.flatten() > step).nonzero().flatten()
        chains_MHW[goes_on_B] = operate(chains_MHW[goes_on_B], operation_MD[goes_on_B, step], level_MD[goes_on_B, step])
    chains_NWHW = chains_MHW.view(count, width, *images_N1HW.shape[2:])
    mixture_NHW = torch.zeros_like(images_N1HW[:, 0])
    for chain in range(width):  # one after the other: the order of the sum is then the same everywhere
        mixture_NHW += recipe.chain_weight_NW[:, chain, None, None] * (chains_NWHW[:, chain].float() / 127.5 - 1)
    mixed_weight_N111 = recipe.mixed_weight_N[:, None, None, None]
    return ((1 - mixed_weight_N111) * images_N1HW + mixed_weight_N111 * mixture_NHW[:, None]).clamp(-1, 1)


class Augmix:
    """An epoch visits each real image once, with two augmented versions of it for the Jensen-Shannon loss.

    The cross-entropy is that of the image itself. Where ``js_weight`` is 0 there are no further versions: the batches
    are made of one augmented version of each image, the paper's variant without that loss.
    """

    def __init__(self, config: AugmixConfig) -> None:
        self._config = config

    def epoch(
        self, real: ImageSet, synthetic: ImageSet | None, *, batch_size: int, augment: Augment, rng: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of one epoch; ``synthetic`` is not used. See ``Mixer.epoch``."""
        order_N = torch.randperm(len(real), generator=rng)
        source = sources(real, augment=augment, rng=rng)

        def version() -> Tensor:
            return augment_and_mix(source.images_NCHW, draw_recipe(self._config, len(real), rng=rng))

        if self._config.js_weight > 0:
            views = tuple(version() for _ in range(VIEWS))
            samples = replace(source, views=views, consistency=self._config.js_weight)
        else:
            samples = replace(source, images_NCHW=version())
        return in_batches(samples, order_N, batch_size)
