"""How a GPU computes the same bits every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def deterministic(device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Compute in full float32 precision, with kernels whose sums have one order.

    Args:
        device: where it is computed. On a GPU, attention takes the plain kernel: the backward passes of the others add
            in the order in which threads finish.
        tf32: whether a GPU's convolutions may round what they multiply to 10 bits of mantissa; a CPU never does.
    """
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
        if device.type != "cuda":
            yield
            return
        with sdpa_kernel(SDPBackend.MATH):
            yield
