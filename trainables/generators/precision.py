"""In which precision networks compute in training."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def computing_in(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Forward passes in here compute as the setting ``precision`` says; weights, losses and optimisers stay float32.

    Args:
        precision: "bfloat16": convolutions and matrix products of 8 bits of mantissa, sums in float32; with "float32"
            and "tf32" (see ``deterministic``) nothing is rounded here.
        device: where the passes are computed.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)
