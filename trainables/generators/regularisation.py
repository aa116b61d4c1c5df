"""Penalties on derivatives: R1, WGAN-GP's gradient penalty, StyleGAN2's path length."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def r1(logits_N: Tensor, images_NCHW: Tensor) -> Tensor:
    """Mean squared length of the gradient of each real image's logit by the image; times gamma / 2 it is R1.

    Args:
        logits_N: of the real images, computed from ``images_NCHW``, possibly through an augmentation.
        images_NCHW: the real images, requiring a gradient.

    Returns:
        A scalar that can be differentiated by the discriminator's parameters.

    Source: Mescheder et al. 2018, equation 9, without its factor gamma / 2.
    """
    (slopes_NCHW,) = torch.autograd.grad(logits_N.sum(), images_NCHW, create_graph=True)
    penalty: Tensor = slopes_NCHW.square().flatten(1).sum(dim=1).mean()
    return penalty


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real_NCHW: Tensor, fake_NCHW: Tensor, *, mix_N: Tensor
) -> Tensor:
    """Mean squared deviation of the critic's slope from 1, between real and generated images.

    Args:
        critic: images to values (N,); the value of an image must depend on that image alone, so the critic may have
            no batch normalisation.
        real_NCHW: real images.
        fake_NCHW: as many generated images; neither these nor the real ones receive a gradient.
        mix_N: epsilon in [0, 1], the real image's share in each mixed one; drawn uniformly by the caller.

    Returns:
        ``E (||grad D(x^)|| - 1)^2``, a scalar that can be differentiated by the critic's parameters.

    Source: Gulrajani et al. 2017, equation 3, without its factor lambda; algorithm 1, line 6.
    """
    mix_N111 = mix_N.to(real_NCHW)[:, None, None, None]
    mixed_NCHW = (mix_N111 * real_NCHW + (1 - mix_N111) * fake_NCHW).detach().requires_grad_()
    (slopes_NCHW,) = torch.autograd.grad(critic(mixed_NCHW).sum(), mixed_NCHW, create_graph=True)
    # vector_norm has derivative 0, not NaN, where an image has no slope at all.
    lengths_N = torch.linalg.vector_norm(slopes_NCHW.flatten(1), dim=1)
    penalty: Tensor = (lengths_N - 1).square().mean()
    return penalty


def path_lengths(images_NCHW: Tensor, styles_NLS: Tensor, *, directions_NCHW: Tensor) -> Tensor:
    """How much each image moves with its styles, along one random direction in image space.

    Args:
        images_NCHW: computed from ``styles_NLS``.
        styles_NLS: style vectors of each of the generator's L layers, requiring a gradient.
        directions_NCHW: N(0, 1), drawn by the caller; like the images.

    Returns:
        ``||J_w^T y||`` of each image, (N,), with y scaled by 1 / sqrt(pixels), averaged over layers in the mean square.

    Source: Karras et al. 2020, equation 4, and the authors' code for the scale and the mean over layers.
    """
    scale = 1 / math.sqrt(images_NCHW.shape[-2] * images_NCHW.shape[-1])
    (slopes_NLS,) = torch.autograd.grad((images_NCHW * directions_NCHW * scale).sum(), styles_NLS, create_graph=True)
    lengths_N: Tensor = torch.linalg.vector_norm(slopes_NLS.flatten(1), dim=1)
    return lengths_N / math.sqrt(styles_NLS.shape[1])


def path_penalty(lengths_N: Tensor, mean_length: Tensor, *, decay: float) -> tuple[Tensor, Tensor]:
    """How unequal the path lengths are.

    Args:
        lengths_N: as from ``path_lengths``.
        mean_length: scalar, the moving average of the lengths so far.
        decay: the share of a new mean in the moving average.

    Returns:
        ``E (length - a)^2`` with a the new moving average; and a, detached.

    Source: Karras et al. 2020, equation 4.
    """
    average = mean_length + decay * (lengths_N.detach().mean() - mean_length)
    return (lengths_N - average).square().mean(), average
