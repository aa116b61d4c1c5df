"""A discriminator that sees real and generated images mixed and says how much is real (DAE GAN, Fu et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainables.generators.evolution import Judgement, diversity
from trainables.mixers.interpolation import beta_symmetric, mix


def mixed_images(real_NCHW: Tensor, fake_NCHW: Tensor, real_share_N: Tensor) -> Tensor:
    """``lambda x + (1 - lambda) G(z)``, one lambda per image.

    Args:
        real_NCHW: float32 images in [-1, 1].
        fake_NCHW: generated images, of the same classes in the same order.
        real_share_N: lambda in [0, 1], as from ``real_shares``.

    Source: Fu et al. 2020, formula 12, and formula 9 without its misprinted bracket.
    """
    return mix(real_NCHW, fake_NCHW, real_share_N)


def real_shares(alpha: float, count: int, *, rng: torch.Generator) -> Tensor:
    """lambda ~ Beta(alpha, alpha), float32 (count,) on the CPU, drawn there too. Source: Fu et al. 2020, formula 9."""
    return beta_symmetric(alpha, count, rng=rng)


def mixed_loss(logits_N: Tensor, real_share_N: Tensor) -> Tensor:
    """``E (-lambda log D(x~) - (1 - lambda) log(1 - D(x~)))``, from the logits of the mixed images.

    At lambda in {0, 1} its terms are those of the unmixed loss. It is at least the mean entropy of lambda, which a
    discriminator reaches that knows every lambda.

    Source: Fu et al. 2020, formula 12, L being the binary cross-entropy.
    """
    return functional.binary_cross_entropy_with_logits(logits_N, real_share_N)


def mixed_judgement(
    fake_logits_N: Tensor, mixed_logits_N: Tensor, real_share_N: Tensor, parameters: tuple[Tensor, ...]
) -> Judgement:
    """A child whose diversity is ``F_d = -log || grad_D E L(D(x~), lambda) ||``: formula 12 in formula 8's bracket.

    Args:
        fake_logits_N: logits of the child's images, for its quality.
        mixed_logits_N: logits of the child's images mixed with real ones, attached to ``parameters``.
        real_share_N: their lambda, the same for all children of a generation.
        parameters: of the discriminator.

    Source: Fu et al. 2020, formulas 7, 8 and 12.
    """
    loss = mixed_loss(mixed_logits_N, real_share_N)
    gradients = torch.autograd.grad(loss, parameters)
    return Judgement(
        quality=torch.sigmoid(fake_logits_N.detach()).mean(),
        diversity=diversity(gradients),
        loss=loss.detach(),
        gradients=gradients,
    )
