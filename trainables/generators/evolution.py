"""The numerics of evolutionary GANs: mutations, fitness, selection (Wang et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor], Tensor]


def minimax(logits_N: Tensor) -> Tensor:
    """``1/2 E log(1 - s)``, s = sigmoid(logit). Source: Wang et al. 2019, equation 2."""
    return -functional.softplus(logits_N).mean() / 2


def heuristic(logits_N: Tensor) -> Tensor:
    """``-1/2 E log s``. Source: Wang et al. 2019, equation 4."""
    return functional.softplus(-logits_N).mean() / 2


def least_squares(logits_N: Tensor) -> Tensor:
    """``E (s - 1)^2``. Source: Wang et al. 2019, equation 5, on the probability s."""
    return (torch.sigmoid(logits_N) - 1).square().mean()


MUTATIONS: Mapping[str, Loss] = MappingProxyType(
    {"minimax": minimax, "heuristic": heuristic, "least_squares": least_squares}
)
"""Losses of generated images' logits, by name; a recorded mutation is an index into this order."""


def logit_slopes(logits_N: Tensor) -> tuple[Tensor, ...]:
    """Derivative of each mutation's loss by each sample's logit, in the order of ``MUTATIONS``.

    Args:
        logits_N: the discriminator's logits of N generated samples.

    Returns:
        One tensor (N,) per mutation, all negative: descent raises every logit.
    """
    count = len(logits_N)
    s_N = torch.sigmoid(logits_N)
    rest_N = torch.sigmoid(-logits_N)
    return (-s_N / (2 * count), -rest_N / (2 * count), -2 * s_N * rest_N.square() / count)


def mutation_gradients(
    samples: Tensor,
    parameters: tuple[Tensor, ...],
    discriminate: Callable[[Tensor], Tensor],
) -> tuple[tuple[tuple[Tensor, ...], ...], Tensor]:
    """Gradients of all mutations from one forward pass and one backward pass through the discriminator.

    Args:
        samples: generated samples (N, ...), still attached to ``parameters``.
        parameters: of the generator.
        discriminate: samples to logits (N,); the logit of a sample must depend on that sample alone, so the
            discriminator may have no batch normalisation and no minibatch statistics.

    Returns:
        Per mutation, in the order of ``MUTATIONS``, the gradient of its loss by each parameter; and the logits.

    Source: the chain rule, d loss / d sample = (d loss / d logit) (d logit / d sample).
    """
    leaf = samples.detach().requires_grad_()
    logits_N = discriminate(leaf)
    (slopes,) = torch.autograd.grad(logits_N.sum(), leaf)
    weights = logit_slopes(logits_N.detach())
    shape = (-1, *(1 for _ in samples.shape[1:]))
    gradients = tuple(
        torch.autograd.grad(
            samples, parameters, grad_outputs=weight_N.view(shape) * slopes, retain_graph=index + 1 < len(weights)
        )
        for index, weight_N in enumerate(weights)
    )
    return gradients, logits_N.detach()


def discriminator_loss(real_logits_N: Tensor, fake_logits_N: Tensor) -> Tensor:
    """``-E log D(x) - E log(1 - D(G(z)))``. Source: Goodfellow et al. 2014, equation 1."""
    return functional.softplus(-real_logits_N).mean() + functional.softplus(fake_logits_N).mean()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement:
    """How good a child is.

    Args:
        quality: F_q, a scalar.
        diversity: F_d, a scalar.
        loss: the discriminator's, on the images that the diversity was measured on.
        gradients: of this loss, by the discriminator's parameters.
    """

    quality: Tensor
    diversity: Tensor
    loss: Tensor
    gradients: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RealPart:
    """What the real images of an evaluation contribute to the discriminator's loss: the same for all children.

    Args:
        loss: ``-E log D(x)``.
        gradients: of it, by the discriminator's parameters.
    """

    loss: Tensor
    gradients: tuple[Tensor, ...]


def real_part(real_logits_N: Tensor, parameters: tuple[Tensor, ...]) -> RealPart:
    """The part of the evaluation that all children share."""
    loss = functional.softplus(-real_logits_N).mean()
    return RealPart(loss=loss.detach(), gradients=torch.autograd.grad(loss, parameters))


def adversarial_judgement(fake_logits_N: Tensor, parameters: tuple[Tensor, ...], real: RealPart) -> Judgement:
    """Quality and diversity of a child.

    Args:
        fake_logits_N: logits of the child's samples, attached to ``parameters``.
        parameters: of the discriminator.
        real: of the evaluation's real batch.

    Returns:
        ``F_q = E sigmoid(D(G(z)))`` and ``F_d = -log || grad_D (-E log D(x) - E log(1 - D(G(z)))) ||``.

    Source: Wang et al. 2019, equations 7 and 8; the norm is not squared and covers the whole bracket.
    """
    loss = functional.softplus(fake_logits_N).mean()
    gradients = tuple(torch._foreach_add(real.gradients, torch.autograd.grad(loss, parameters)))
    return Judgement(
        quality=torch.sigmoid(fake_logits_N.detach()).mean(),
        diversity=diversity(gradients),
        loss=real.loss + loss.detach(),
        gradients=gradients,
    )


def diversity(gradients: tuple[Tensor, ...]) -> Tensor:
    """``F_d = -log ||gradients||``, of the discriminator's loss. Source: Wang et al. 2019, equation 8."""
    length: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return -length.log()


def fittest(fitness_C: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` fittest children, best first; the earlier child wins a tie.

    Non-elitist: parents do not compete. Source: Wang et al. 2019, algorithm 1, lines 14 to 17.

    Args:
        fitness_C: of each child.
        count: at most C.

    Returns:
        int64 (count,), on the device of the fitness, whose values the host does not wait for.
    """
    return fitness_C.sort(descending=True, stable=True).indices[:count]
