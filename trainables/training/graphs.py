"""Steps of a training that a GPU replays as a whole, so that it never waits for Python to say what comes next.

A step is written in two parts: what is drawn, on the host, as named CPU tensors of fixed shapes, and what is computed
from it, which reads and changes tensors in place and looks at none of their values. On a GPU the second part is
recorded once as a CUDA graph and replayed from then on: the same kernels in the same order, so the same numbers.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

Drawn: TypeAlias = Mapping[str, Tensor]
"""All that is random in a step, by name, drawn on the CPU. Which names there are says what the step is to do."""
Compute: TypeAlias = Callable[[Drawn], tuple[Tensor, ...]]
"""From what was drawn, on the device, to what is recorded."""

WARM_UP = 3
"""Steps that are computed as they come before they are recorded: libraries choose kernels and take memory in them."""
_ALIGNMENT = 16
_AHEAD = 2
"""Steps whose draws can be under way to the device at the same time."""


class Graphs:
    """Runs the computing part of steps on one device.

    Args:
        device: a CPU, where everything is computed as it comes, or a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._recorded: dict[Hashable, _Recorded] = {}

    def run(self, compute: Compute, drawn: Drawn) -> tuple[Tensor, ...]:
        """What ``compute`` gives for these draws.

        Args:
            compute: a method of a training, the same object's at every call. Everything that it changes are tensors
                that stay where they are in memory from step to step.
            drawn: CPU tensors. Draws of other names, shapes or types are another kind of step, recorded on its own.

        Returns:
            What ``compute`` returns; on a GPU copies of it, which the next step leaves as they are.
        """
        if self._stream is None:
            return compute(drawn)
        kind = (compute.__qualname__, *((name, value.shape, value.dtype) for name, value in drawn.items()))
        if kind not in self._recorded:
            self._recorded[kind] = _Recorded(drawn, stream=self._stream)
        with torch.cuda.device(self._device):
            return self._recorded[kind].run(compute, drawn)


class _Recorded:
    """One kind of step on a GPU; it does not hold what it computes, so that a training that is dropped is gone.

    Args:
        drawn: of the step's kind.
        stream: that records it. One for all kinds of a training: libraries keep memory of their own for each stream.
    """

    def __init__(self, drawn: Drawn, *, stream: torch.cuda.Stream) -> None:
        self._draws = _Mailbox(drawn, device=stream.device)
        self._stream = stream
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: tuple[Tensor, ...] = ()
        self._runs = 0

    def run(self, compute: Compute, drawn: Drawn) -> tuple[Tensor, ...]:
        """One step."""
        received = self._draws.send(drawn)
        self._runs += 1
        if self._runs <= WARM_UP:
            return self._aside(compute, received)
        if self._graph is None:
            self._graph, self._outputs = self._record(compute, received)
        self._graph.replay()
        return tuple(each.clone() for each in self._outputs)

    def _record(self, compute: Compute, received: Drawn) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
        """The outer stream is the current one again also where the recording fails, as for want of memory."""
        graph = torch.cuda.CUDAGraph()
        outer = torch.cuda.stream(torch.cuda.current_stream())
        with outer, _nothing_collected(), torch.cuda.graph(graph, stream=self._stream):
            outputs = compute(received)
        return graph, outputs

    def _aside(self, compute: Compute, received: Drawn) -> tuple[Tensor, ...]:
        """On the stream that will record: autograd ties its nodes to the stream that they were made on."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = compute(received)
        torch.cuda.current_stream().wait_stream(self._stream)
        return outputs


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Another graph that is garbage, destroyed while this one is recorded, would spoil the recording."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Mailbox:
    """Brings the draws of a step to fixed places on a GPU, in one transfer that the host does not wait for.

    Args:
        drawn: of the step's kind.
        device: the GPU.
    """

    def __init__(self, drawn: Drawn, *, device: torch.device) -> None:
        offsets, end = [], 0
        for value in drawn.values():
            offsets.append(end)
            end += -(-value.nbytes // _ALIGNMENT) * _ALIGNMENT
        received = torch.empty(max(end, 1), dtype=torch.uint8, device=device)
        self._received = received
        self._places = _views(received, drawn, offsets)
        outgoing = [torch.empty(max(end, 1), dtype=torch.uint8, pin_memory=True) for _ in range(_AHEAD)]
        self._outgoing = [
            (each, _views(each, drawn, offsets), torch.cuda.Event())  # type: ignore[no-untyped-call]
            for each in outgoing
        ]
        self._sent = 0

    def send(self, drawn: Drawn) -> Drawn:
        """The draws on the device, where those of the last step were."""
        packed, places, on_its_way = self._outgoing[self._sent % _AHEAD]
        on_its_way.synchronize()
        for name, value in drawn.items():
            places[name].copy_(value)
        self._received.copy_(packed, non_blocking=True)
        on_its_way.record()
        self._sent += 1
        return self._places


def _views(memory: Tensor, drawn: Drawn, offsets: list[int]) -> Drawn:
    return {
        name: memory[start : start + value.nbytes].view(value.dtype).view(value.shape)
        for (name, value), start in zip(drawn.items(), offsets, strict=True)
    }
