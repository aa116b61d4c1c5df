"""ADM checkpoints (Dhariwal & Nichol 2021, guided-diffusion's ``.pt`` files) as ``diffusers`` UNets.

The architecture is read off the names and shapes of the weights. What does not show in them stands in NAME.json beside
NAME.pt, under the names of guided-diffusion's flags: ``num_heads`` or ``num_head_channels``, ``noise_schedule``
("linear" or "cosine"), ``use_new_attention_order``, ``diffusion_steps``, ``predict_xstart``. Without it: heads of 64
channels (four heads where these do not fit), a linear schedule of 1,000 steps, predicted noise: the flags of most
published models.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.errors import DataError
from trainables.generators.pretrained import sidecar

GROUPS = 32
"""Of every group normalisation (guided-diffusion, ``nn.py``)."""
HEAD_CHANNELS = 64
HEADS = 4
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_RESAMPLING = {**_RESIDUAL, "op": "conv", "conv": "conv"}
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}
_SINGLE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdmCheckpoint:
    """An ADM model in the terms of ``diffusers``.

    Args:
        unet: arguments of ``UNet2DModel``.
        scheduler: a scheduler's configuration.
        heads: attention heads of every attention module; None where ``unet``'s head size says it.
        weights: float32, by the names of ``UNet2DModel``.
    """

    unet: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    heads: int | None
    weights: Mapping[str, Tensor]


def read_adm(path: Path) -> AdmCheckpoint:
    """Read an ADM checkpoint and the settings beside it.

    Args:
        path: NAME.pt, a plain dictionary of tensors; nothing that is in it is run.

    Raises:
        DataError: it holds anything else, or an architecture that is not ADM's.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        # what the restricted unpickler raises on bytes that are no pickle depends on the bytes
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        OSError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:
        raise DataError(
            f"generator.pretrained={path} is not a file of tensors alone; expected the state dict of an ADM model. "
            "Save it again with torch.save(model.state_dict(), PATH)."
        ) from error
    if not isinstance(found, dict) or "input_blocks.0.0.weight" not in found or "out.2.weight" not in found:
        raise DataError(
            f"generator.pretrained={path} has no weights 'input_blocks.0.0' and 'out.2'; expected the state dict of an "
            "ADM model (guided-diffusion). Pass such a file, or a folder that diffusers wrote."
        )
    try:
        weights = {name: value.float() for name, value in found.items()}
        settings = json.loads(sidecar(path).read_text(encoding="utf-8")) if sidecar(path).is_file() else {}
        scheduler = _scheduler(settings)
        shape = _Shape.of(weights)
        unet, heads = _architecture(weights, shape, settings)
        renamed = _renamed(weights, shape, settings, unet, heads)
    except (AttributeError, KeyError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"generator.pretrained={path} is not the UNet of guided-diffusion ({error}); expected its names and "
            "shapes. Pass an ADM state dict, or a folder that diffusers wrote."
        ) from error
    return AdmCheckpoint(unet=unet, scheduler=scheduler, heads=heads, weights=renamed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """How many levels there are, how many residual blocks in each, and how they are joined.

    Args:
        levels: grids.
        blocks: residual blocks of a level on the way down; one more on the way up.
        resampled_by_blocks: whether residual blocks halve and double the grid, or convolutions.
    """

    levels: int
    blocks: int
    resampled_by_blocks: bool

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> _Shape:
        """On the way up, the last block of a level is followed by what doubles the grid."""
        last = max(int(name.split(".")[1]) for name in weights if name.startswith("output_blocks."))
        doubling = re.compile(r"output_blocks\.\d+\.[12]\.(conv|in_layers\.0)\.weight")
        kinds = [found[1] for found in map(doubling.fullmatch, weights) if found]
        levels = 1 + len(kinds)
        blocks, rest = divmod(last + 1, levels)
        if rest:
            raise ValueError(f"{last + 1} output blocks on {levels} levels")
        return cls(levels=levels, blocks=blocks - 1, resampled_by_blocks="in_layers.0" in kinds)

    def down(self, level: int, block: int) -> str:
        """Name of a block on the way down; block number ``blocks`` halves the grid."""
        return f"input_blocks.{1 + level * (self.blocks + 1) + block}"

    def up(self, level: int, block: int) -> str:
        """Name of a block on the way up; level 0 is the smallest grid."""
        return f"output_blocks.{level * (self.blocks + 1) + block}"


def _architecture(
    weights: Mapping[str, Tensor], shape: _Shape, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], int | None]:
    """Arguments of ``UNet2DModel``, and heads where they are counted rather than sized."""
    levels = range(shape.levels)
    channels = tuple(len(weights[f"{shape.down(level, 0)}.0.out_layers.3.weight"]) for level in levels)
    attends = tuple(f"{shape.down(level, 0)}.1.qkv.weight" in weights for level in levels)
    if weights["time_embed.0.weight"].shape[1] != channels[0]:
        raise ValueError("the first level's channels differ from the time embedding's")
    attending = {size for size, attending in zip(channels, attends, strict=True) if attending} | {channels[-1]}
    size, heads = _heads(settings, attending)
    scales = len(weights["middle_block.0.emb_layers.1.weight"]) == 2 * channels[-1]
    by_block = shape.resampled_by_blocks
    down = ("ResnetDownsampleBlock2D" if by_block else "DownBlock2D", "AttnDownBlock2D")
    up = ("ResnetUpsampleBlock2D" if by_block else "UpBlock2D", "AttnUpBlock2D")
    unet = {
        "in_channels": weights["input_blocks.0.0.weight"].shape[1],
        "out_channels": len(weights["out.2.weight"]),
        "block_out_channels": channels,
        "layers_per_block": shape.blocks,
        "down_block_types": tuple(down[attending] for attending in attends),
        "up_block_types": tuple(up[attending] for attending in reversed(attends)),
        "downsample_type": "resnet" if by_block else "conv",
        "upsample_type": "resnet" if by_block else "conv",
        "resnet_time_scale_shift": "scale_shift" if scales else "default",
        "attention_head_dim": size,
        "norm_num_groups": GROUPS,
        "attn_norm_num_groups": GROUPS,
        "num_class_embeds": len(weights["label_emb.weight"]) if "label_emb.weight" in weights else None,
    }
    return unet, heads


def _heads(settings: Mapping[str, Any], channels: set[int]) -> tuple[int, int | None]:
    """Channels of a head, and the number of heads where that is what is fixed."""
    size, heads = settings.get("num_head_channels", -1), settings.get("num_heads")
    fits = all(each % HEAD_CHANNELS == 0 for each in channels)
    if size == -1 and heads is None and fits:
        size = HEAD_CHANNELS
    if size != -1:
        return int(size), None
    return math.gcd(*channels), int(heads or HEADS)


def _renamed(
    weights: Mapping[str, Tensor],
    shape: _Shape,
    settings: Mapping[str, Any],
    unet: Mapping[str, Any],
    heads: int | None,
) -> dict[str, Tensor]:
    """The weights under the names of ``UNet2DModel``."""
    owners = dict(_owners(weights, shape))
    renamed = {}
    for name, value in weights.items():
        old = next((each for each in owners if name.startswith(f"{each}.")), None)
        if old is None:
            raise KeyError(name)
        layer, _, kind = name.removeprefix(f"{old}.").rpartition(".")
        new = owners[old]
        if layer == "qkv":
            count = heads or len(value) // 3 // unet["attention_head_dim"]
            for part, rows in zip("qkv", _split(value, count, settings), strict=True):
                renamed[f"{new}.to_{part}.{kind}"] = rows
        elif ".attentions." in new:
            renamed[f"{new}.{_ATTENTION[layer]}.{kind}"] = value.squeeze(-1) if layer == "proj_out" else value
        else:
            renamed[".".join(filter(None, (new, _RESAMPLING[layer] if layer else "", kind)))] = value
    return renamed


def _owners(weights: Mapping[str, Tensor], shape: _Shape) -> Iterator[tuple[str, str]]:
    """Old and new names of all modules that own weights."""
    yield from _SINGLE.items()
    for level in range(shape.levels):
        resampled = level < shape.levels - 1
        for block in range(shape.blocks):
            yield f"{shape.down(level, block)}.0", f"down_blocks.{level}.resnets.{block}"
            yield f"{shape.down(level, block)}.1", f"down_blocks.{level}.attentions.{block}"
        if resampled:
            yield f"{shape.down(level, shape.blocks)}.0", f"down_blocks.{level}.downsamplers.0"
        for block in range(shape.blocks + 1):
            old, new = shape.up(level, block), f"up_blocks.{level}"
            yield f"{old}.0", f"{new}.resnets.{block}"
            attends = f"{old}.1.qkv.weight" in weights
            if attends:
                yield f"{old}.1", f"{new}.attentions.{block}"
            if resampled and block == shape.blocks:
                yield f"{old}.{2 if attends else 1}", f"{new}.upsamplers.0"


def _split(value: Tensor, heads: int, settings: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Query, key and value of a joint layer: grouped by head, or (new order) all heads' queries first.

    Source: guided-diffusion, ``QKVAttentionLegacy`` and ``QKVAttention``.
    """
    flat = value.squeeze(-1) if value.ndim == 3 else value
    if settings.get("use_new_attention_order", False):
        return flat.chunk(3)
    by_head = flat.reshape(heads, 3, len(flat) // heads // 3, *flat.shape[1:])
    return tuple(by_head[:, part].reshape(len(flat) // 3, *flat.shape[1:]) for part in range(3))


def _scheduler(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Source: guided-diffusion, ``get_named_beta_schedule``: a linear schedule's betas scale with 1,000 / steps."""
    steps = int(settings.get("diffusion_steps", 1000))
    named = settings.get("noise_schedule", "linear")
    if named not in ("linear", "cosine"):
        raise ValueError(f"noise_schedule is {named!r}, neither linear nor cosine")
    betas = {"beta_start": 0.1 / steps, "beta_end": min(20 / steps, 0.999), "beta_schedule": "linear"}
    return {
        "_class_name": "ADM schedule",
        "num_train_timesteps": steps,
        "prediction_type": "sample" if settings.get("predict_xstart", False) else "epsilon",
        "clip_sample": True,
        "timestep_spacing": "leading",
        **({"beta_schedule": "squaredcos_cap_v2"} if named == "cosine" else betas),
    }
