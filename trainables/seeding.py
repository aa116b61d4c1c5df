"""Named random streams: a seed is a function of the search's seed and a name, never of call order."""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, name: str) -> int:
    """Derive the seed of one named stream.

    Args:
        seed: any integer, for instance the search's ``--seed``.
        name: what the stream is for, such as "repeat0/fold3/generator".

    Returns:
        An integer in [0, 2**63), independent of every other name's.
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, name: str = "") -> torch.Generator:
    """A CPU random generator seeded with ``seed``, or with ``stream(seed, name)`` where a name is given.

    Draws are made on the CPU and moved to the device, so that they do not depend on the device.
    """
    return torch.Generator().manual_seed(stream(seed, name) if name else seed)
