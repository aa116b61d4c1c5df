"""The numerics of evolutionary GANs: mutations, fitness, selection (Wang et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def real_gradients(real_logits_N: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradient of ``-E log D(x)`` by the discriminator's parameters: the part that all children share."""
    return torch.autograd.grad(functional.softplus(-real_logits_N).mean(), parameters)


def fitness(
    fake_logits_N: Tensor, parameters: tuple[Tensor, ...], real_gradients: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Quality and diversity of a child.

    Args:
        fake_logits_N: logits of the child's samples, attached to ``parameters``.
        parameters: of the discriminator.
        real_gradients: ``real_gradients`` of the evaluation's real batch.

    Returns:
        ``F_q = E sigmoid(D(G(z)))`` and ``F_d = -log || grad_D (-E log D(x) - E log(1 - D(G(z)))) ||``, scalars.

    Source: Wang et al. 2019, equations 7 and 8; the norm is not squared and covers the whole bracket.
    """
    fake_gradients = torch.autograd.grad(functional.softplus(fake_logits_N).mean(), parameters)
    norms = torch._foreach_norm(torch._foreach_add(real_gradients, fake_gradients))
    return torch.sigmoid(fake_logits_N.detach()).mean(), -torch.linalg.vector_norm(torch.stack(norms)).log()


def fittest(fitness_by_child: Sequence[float], count: int) -> tuple[int, ...]:
    """Positions of the ``count`` fittest children, best first; the earlier child wins a tie.

    Non-elitist: parents do not compete. Source: Wang et al. 2019, algorithm 1, lines 14 to 17.
    """
    ranked = sorted(range(len(fitness_by_child)), key=lambda child: (-fitness_by_child[child], child))
    return tuple(ranked[:count])
