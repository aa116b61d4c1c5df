"""Adam as a pure function, so that several children can each take one step from the same parent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Adam's memory: ``steps`` taken and the running first and second moments of each parameter's gradient."""

    steps: int
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]


def no_moments(parameters: tuple[Tensor, ...]) -> Moments:
    """The memory before the first step."""
    zeros = tuple(torch.zeros_like(each) for each in parameters)
    return Moments(steps=0, first=zeros, second=zeros)


def adam_step(
    parameters: tuple[Tensor, ...],
    gradients: tuple[Tensor, ...],
    moments: Moments,
    *,
    learning_rate: float,
    betas: tuple[float, float],
) -> tuple[tuple[Tensor, ...], Moments]:
    """One step of Adam that leaves its arguments as they are.

    Args:
        parameters: the parent's parameters.
        gradients: the loss's gradient, one per parameter and of its shape.
        moments: the parent's memory.
        learning_rate: step size.
        betas: decay of the first and of the second moment.

    Returns:
        The child's parameters and memory.

    Source: Kingma & Ba 2015, algorithm 1.
    """
    steps = moments.steps + 1
    first = torch._foreach_lerp(moments.first, gradients, 1 - betas[0])
    second = torch._foreach_mul(moments.second, betas[1])
    torch._foreach_addcmul_(second, gradients, gradients, 1 - betas[1])
    scales = torch._foreach_sqrt(second)
    torch._foreach_div_(scales, (1 - betas[1] ** steps) ** 0.5)
    torch._foreach_add_(scales, EPSILON)
    stepped = torch._foreach_addcdiv(parameters, first, scales, -learning_rate / (1 - betas[0] ** steps))
    return tuple(stepped), Moments(steps=steps, first=tuple(first), second=tuple(second))
