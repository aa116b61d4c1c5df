"""The generators that compete in an evolutionary training: weights, memories and averages of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.generators.adam import Moments, adam_step, no_moments
from trainables.generators.averages import decay_after
from trainables.generators.networks.image_network import ImageNetwork


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Individual:
    """One generator of the population; a child inherits all of it from its parent.

    Args:
        parameters: weights, learnt latents among them.
        buffers: batch normalisation statistics, updated in place.
        moments: Adam's memory.
        average: moving average of the parameters; empty where none is kept.
    """

    parameters: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...]
    moments: Moments
    average: tuple[Tensor, ...]


def first_individual(network: nn.Module, *, averaged: bool) -> Individual:
    """A network as a member of the first generation."""
    parameters = tuple(_as_adam_leaves_it(each.detach()) for each in network.parameters())
    return Individual(
        parameters=parameters,
        buffers=tuple(each.clone() for each in network.buffers()),
        moments=no_moments(parameters),
        average=tuple(each.clone() for each in parameters) if averaged else (),
    )


def _as_adam_leaves_it(value: Tensor) -> Tensor:
    """A copy with the strides that a step gives it, from which ``Population.restore`` takes the layout.

    A weight of one channel or one pixel is contiguous in both memory formats; its strides decide on the kernel that
    computes with it, and so on roundings.
    """
    return torch.empty(value.shape, device=value.device).copy_(value) if value.is_contiguous() else value.clone()


def child_of(
    parent: Individual,
    gradients: tuple[Tensor, ...],
    buffers: Sequence[Tensor],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    decay: float,
) -> Individual:
    """The parent after one step of Adam; the parent stays as it is.

    Args:
        parent: whose weights and memories are inherited.
        gradients: of the mutation's loss by each parameter.
        buffers: after the forward pass that gave the gradients; copied.
        learning_rate, betas: of Adam.
        decay: of the moving average, where the parent has one.
    """
    parameters, moments = adam_step(
        parent.parameters, gradients, parent.moments, learning_rate=learning_rate, betas=betas
    )
    average: tuple[Tensor, ...] = ()
    if parent.average:
        weight = 1 - decay_after(parent.moments.steps, decay)
        average = tuple(torch._foreach_lerp(parent.average, parameters, weight))
    return Individual(
        parameters=parameters,
        buffers=tuple(each.clone() for each in buffers),
        moments=moments,
        average=average,
    )


def images_of(network: ImageNetwork, individual: Individual, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
    """An individual's images in training mode; updates its buffers in place."""
    tensors = dict(zip((name for name, _ in network.named_parameters()), individual.parameters, strict=True))
    tensors |= dict(zip((name for name, _ in network.named_buffers()), individual.buffers, strict=True))
    images_NCHW: Tensor = functional_call(network, tensors, (noise_NM, labels_N))
    return images_NCHW


@torch.no_grad()
def embody(network: ImageNetwork, individual: Individual) -> None:
    """Give a network the individual's weights, or their average where one is kept, and its buffers."""
    for parameter, value in zip(network.parameters(), individual.average or individual.parameters, strict=True):
        parameter.copy_(value)
    for buffer, value in zip(network.buffers(), individual.buffers, strict=True):
        buffer.copy_(value)


class Population:
    """The survivors of the last generation, fittest first."""

    def __init__(self, survivors: tuple[Individual, ...]) -> None:
        self.survivors = survivors

    def state(self) -> dict[str, Tensor]:
        """All survivors as named tensors."""
        tensors = {}
        for index, each in enumerate(self.survivors):
            tensors[f"{index}/steps"] = torch.tensor(each.moments.steps)
            for group, values in _groups(each).items():
                tensors |= {f"{index}/{group}/{position}": value for position, value in enumerate(values)}
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave; tensors keep their device and memory layout."""
        self.survivors = tuple(_restored(each, index, state) for index, each in enumerate(self.survivors))


def _groups(individual: Individual) -> dict[str, tuple[Tensor, ...]]:
    return {
        "parameters": individual.parameters,
        "buffers": individual.buffers,
        "first": individual.moments.first,
        "second": individual.moments.second,
        "average": individual.average,
    }


def _restored(like: Individual, index: int, state: Mapping[str, Tensor]) -> Individual:
    groups = {
        group: tuple(
            torch.empty_like(value).copy_(state[f"{index}/{group}/{position}"]) for position, value in enumerate(values)
        )
        for group, values in _groups(like).items()
    }
    moments = Moments(steps=int(state[f"{index}/steps"]), first=groups["first"], second=groups["second"])
    return Individual(
        parameters=groups["parameters"], buffers=groups["buffers"], moments=moments, average=groups["average"]
    )
