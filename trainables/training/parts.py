"""Everything that changes in a training, as named tensors and back: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Stateful(Protocol):
    """Anything that can say what it holds and take it back."""

    def state(self) -> dict[str, Tensor]:
        """What it holds, as named tensors."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""


Part: TypeAlias = nn.Module | torch.optim.Optimizer | torch.Generator | Stateful


def pack(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """The state of all parts, as contiguous CPU tensors named ``PART/NAME``."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous().clone()
        for name, part in parts.items()
        for key, value in _state(part).items()
    }


def unpack(parts: Mapping[str, Part], state: Mapping[str, Tensor]) -> None:
    """Give every part back what ``pack`` took from it; tensors keep their device and memory layout.

    Raises:
        KeyError, RuntimeError: the state belongs to another configuration.
    """
    for name, part in parts.items():
        prefix = f"{name}/"
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        _restore(part, own)


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each name after the prefix and a slash; ``under`` takes them out again."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix`` and a slash, without these."""
    return {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(f"{prefix}/")}


def _state(part: Part) -> dict[str, Tensor]:
    if isinstance(part, nn.Module):
        return dict(part.state_dict())
    if isinstance(part, torch.optim.Optimizer):
        return {
            f"{index}/{key}": torch.as_tensor(value)
            for index, memory in part.state_dict()["state"].items()
            for key, value in memory.items()
        }
    if isinstance(part, torch.Generator):
        return {"state": part.get_state()}
    return part.state()


def _restore(part: Part, state: dict[str, Tensor]) -> None:
    if isinstance(part, nn.Module):
        part.load_state_dict(state)
    elif isinstance(part, torch.optim.Optimizer):
        _restore_optimizer(part, state)
    elif isinstance(part, torch.Generator):
        part.set_state(state["state"])
    else:
        part.restore(state)


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Moments are laid out like their parameters: another layout would be computed with other roundings."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    counts_on_device = bool(optimizer.defaults.get("fused") or optimizer.defaults.get("capturable"))
    optimizer.state.clear()
    for key, value in state.items():
        index, _, name = key.partition("/")
        parameter = parameters[int(index)]
        if name == "step":
            held = value.clone().to(parameter.device if counts_on_device else "cpu")
        else:
            held = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][name] = held
