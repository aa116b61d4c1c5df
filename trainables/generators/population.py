"""The generators that compete in an evolutionary training: weights, memories and averages of each.

Each individual is a row of memory, so that a whole generation inherits, learns and is selected in a few operations, and
on a GPU without the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.generators.averages import decay_after
from trainables.generators.networks.image_network import ImageNetwork
from trainables.training.adam import adam

ALIGNMENT = 16
"""Every tensor begins at a multiple of so many values of its row, as where memory was taken for it alone."""


class Rows:
    """Tensors of the same layout for several individuals, in one block of memory.

    Args:
        like: one individual's tensors, float32 and dense; their sizes, strides and device are taken over.
        count: number of individuals.
    """

    def __init__(self, like: Sequence[Tensor], count: int) -> None:
        offsets, end = [], 0
        for each in like:
            offsets.append(end)
            end += -(-each.numel() // ALIGNMENT) * ALIGNMENT
        device = like[0].device if like else None
        self.block_ID = torch.zeros(count, end, device=device)
        self.views = tuple(
            tuple(
                row_D[start : start + each.numel()].as_strided(
                    each.size(), each.stride(), row_D.storage_offset() + start
                )
                for each, start in zip(like, offsets, strict=True)
            )
            for row_D in self.block_ID
        )
        """Of each individual, its tensors; changes of these are changes of the block."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Individuals:
    """Some generators.

    Args:
        parameters: weights, learnt latents among them.
        buffers: batch normalisation statistics, updated in place.
        first, second: Adam's memory of the weights.
    """

    parameters: Rows
    buffers: Rows
    first: Rows
    second: Rows

    @property
    def groups(self) -> Mapping[str, Rows]:
        """All of it by name."""
        return {
            "parameters": self.parameters,
            "buffers": self.buffers,
            "first": self.first,
            "second": self.second,
        }


class Population:
    """Survivors, fittest first, and their children.

    Args:
        networks: the first generation, one network per survivor.
        children_each: how many children a survivor has.
        rate, betas: of Adam.
        ema: decay of the moving average of the weights; 0: no average is kept.
    """

    def __init__(
        self,
        networks: Sequence[ImageNetwork],
        *,
        children_each: int,
        rate: float,
        betas: tuple[float, float],
        ema: float,
    ) -> None:
        self._children_each = children_each
        self._ema = ema
        self._generations = 0
        self.survivors = _individuals(networks[0], len(networks))
        self.children = _individuals(networks[0], len(networks) * children_each)
        self.gradients = Rows(self.children.parameters.views[0], len(self.children.parameters.views))
        """For the caller to fill: of each child's loss by its parent's weights, all children of a parent in turn."""
        with torch.no_grad():
            for index, network in enumerate(networks):
                _copy(self.survivors.parameters.views[index], list(network.parameters()))
                _copy(self.survivors.buffers.views[index], _statistics(network))
        self.leaves = tuple(
            tuple(each.detach().requires_grad_() for each in views) for views in self.survivors.parameters.views
        )
        """The survivors' weights, to be differentiated by."""
        self.average = Rows(self.survivors.parameters.views[0], len(networks)) if ema else None
        if self.average is not None:
            self.average.block_ID.copy_(self.survivors.parameters.block_ID)
        self._weights_ID = nn.Parameter(self.children.parameters.block_ID)
        self._adam = adam([self._weights_ID], rate=rate, betas=betas)
        self._steps = torch.zeros((), device=self._weights_ID.device)
        self._adam.state[self._weights_ID] = {
            "step": self._steps,
            "exp_avg": self.children.first.block_ID,
            "exp_avg_sq": self.children.second.block_ID,
        }

    @torch.no_grad()
    def breed(self) -> None:
        """Children inherit all that their parents have, and take one step of Adam down their own gradients."""
        for inherited, given in zip(self.children.groups.values(), self.survivors.groups.values(), strict=True):
            count, length = given.block_ID.shape
            inherited.block_ID.view(count, self._children_each, length).copy_(given.block_ID[:, None])
        self._weights_ID.grad = self.gradients.block_ID
        self._adam.step()

    @torch.no_grad()
    def select(self, chosen_S: Tensor) -> None:
        """The chosen children, int64 positions, take the survivors' places; parents do not compete."""
        for kept, candidates in zip(self.survivors.groups.values(), self.children.groups.values(), strict=True):
            torch.index_select(candidates.block_ID, 0, chosen_S, out=kept.block_ID)

    @torch.no_grad()
    def follow(self, chosen_S: Tensor) -> None:
        """Count a generation, and move each survivor's average, its parent's so far, towards its weights."""
        if self.average is not None:
            inherited_SD = self.average.block_ID[chosen_S // self._children_each]
            weight = 1 - decay_after(self._generations, self._ema)
            torch.lerp(inherited_SD, self.survivors.parameters.block_ID, weight, out=self.average.block_ID)
        self._generations += 1

    def state(self) -> dict[str, Tensor]:
        """All survivors as named tensors."""
        held = {name: rows.block_ID for name, rows in self.survivors.groups.items()}
        if self.average is not None:
            held["average"] = self.average.block_ID
        return {**held, "generations": torch.tensor(self._generations)}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        for name, rows in self.survivors.groups.items():
            rows.block_ID.copy_(state[name])
        if self.average is not None:
            self.average.block_ID.copy_(state["average"])
        self._generations = int(state["generations"])
        self._steps.fill_(self._generations)

    @torch.no_grad()
    def embody(self, network: ImageNetwork) -> None:
        """Give a network the weights of the fittest, or their average where one is kept, and its buffers."""
        _copy(list(network.parameters()), (self.average or self.survivors.parameters).views[0])
        _copy(_statistics(network), self.survivors.buffers.views[0])


def images_of(
    network: ImageNetwork,
    parameters: Sequence[Tensor],
    buffers: Sequence[Tensor],
    noise_NM: Tensor,
    labels_N: Tensor,
) -> Tensor:
    """An individual's images in training mode; updates its buffers in place."""
    tensors = dict(zip((name for name, _ in network.named_parameters()), parameters, strict=True))
    names = (name for name, buffer in network.named_buffers() if buffer.is_floating_point())
    tensors |= dict(zip(names, buffers, strict=True))
    images_NCHW: Tensor = functional_call(network, tensors, (noise_NM, labels_N))
    return images_NCHW


def _individuals(network: nn.Module, count: int) -> Individuals:
    parameters = [each.detach() for each in network.parameters()]
    return Individuals(
        parameters=Rows(parameters, count),
        buffers=Rows(_statistics(network), count),
        first=Rows(parameters, count),
        second=Rows(parameters, count),
    )


def _statistics(network: nn.Module) -> list[Tensor]:
    """Buffers that something is computed with; how many batches there were is counted and never used."""
    return [each for each in network.buffers() if each.is_floating_point()]


def _copy(to: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    if to:
        torch._foreach_copy_(list(to), list(values))
