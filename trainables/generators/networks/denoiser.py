"""The network of a pixel diffusion model: a class-conditional UNet for grey images, and its sampling with DDIM."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from trainables.errors import DataError
from trainables.generators.networks.adm import read_adm
from trainables.generators.networks.ddim import Schedule, ddim, guided
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.pretrained import ADM_SUFFIX, check_image_model, part_folder

BLOCK = 2
"""A network from random weights sees blocks of 2 x 2 pixels as channels: a quarter of the work on the largest grid."""
SMALLEST = 6
"""Its grids are halved down to this side or less, but no further than three grids."""
NEW_CLASS_STD = 0.02
"""Of class embeddings that a pretrained network gets anew: next to nothing beside its embedding of time."""
_SILENCED = ("conv2", "conv_out", "to_out.0")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Architecture:
    """A UNet, without its weights.

    Args:
        unet: arguments of ``UNet2DModel``, but for the classes.
        heads: of every attention module; None where ``unet``'s head size says it.
        block: side of the blocks of pixels that the UNet sees as channels; 1: it sees pixels.
    """

    unet: Mapping[str, Any]
    heads: int | None = None
    block: int = 1

    @property
    def multiple(self) -> int:
        """What the side of its images is a multiple of."""
        return int(self.block * 2 ** (len(self.unet["block_out_channels"]) - 1))


class Denoiser(nn.Module):
    """Predicts noise, velocity or clean image of grey images, by time step and class.

    Args:
        architecture: of the UNet.
        n_classes: there is one embedding more, the last, for "no class" (Ho & Salimans 2022).
    """

    def __init__(self, architecture: Architecture, *, n_classes: int) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d import UNet2DModel

        self.unet = UNet2DModel.from_config(
            # dropout would draw from the global random state
            {**architecture.unet, "class_embed_type": None, "num_class_embeds": n_classes + 1, "dropout": 0.0}
        )
        self.n_classes = n_classes
        self._block = architecture.block
        if architecture.heads is not None:
            for module in self.unet.modules():
                if type(module).__name__ == "Attention":
                    module.heads = architecture.heads

    def forward(self, noised_N1SS: Tensor, timesteps_N: Tensor, labels_N: Tensor) -> Tensor:
        """The prediction, float32 (N, 1, S, S).

        Args:
            noised_N1SS: float32; S a multiple of the architecture's ``multiple``.
            timesteps_N: int64.
            labels_N: int64; ``n_classes`` means: no class.

        Where the UNet has several colour channels, grey is repeated and their predictions are averaged; where it
        predicts its variance too (Nichol & Dhariwal 2021), that part, the second half, is left aside.
        """
        blocks_NCHW = functional.pixel_unshuffle(noised_N1SS, self._block)
        channels: int = self.unet.config.in_channels
        colours = channels // self._block**2
        predicted_NCHW: Tensor = self.unet(
            blocks_NCHW.repeat(1, colours, 1, 1), timesteps_N, labels_N, return_dict=False
        )[0]
        predicted_NCHW = torch.unflatten(predicted_NCHW[:, :channels], 1, (colours, -1)).mean(dim=1)
        return functional.pixel_shuffle(predicted_NCHW, self._block)


class DiffusionNetwork(ImageNetwork):
    """From pure noise to images, with DDIM and classifier-free guidance.

    Args:
        architecture: of the UNet.
        schedule: of noise, and of sampling.
        guidance: weight of guidance; 1: the class's prediction alone, at half the cost.
        pixels: height and width of the images. Where the UNet asks for a multiple of some number, it works on images
            that are padded to it.
        n_classes: without "no class".
    """

    def __init__(
        self, architecture: Architecture, *, schedule: Schedule, guidance: float, pixels: int, n_classes: int
    ) -> None:
        super().__init__()
        self.denoiser = Denoiser(architecture, n_classes=n_classes)
        self.schedule = schedule
        self.side = math.ceil(pixels / architecture.multiple) * architecture.multiple
        self._guidance = guidance
        self._pixels = pixels

    def noise(self, count: int, *, rng: torch.Generator) -> Tensor:
        """x_T of ``count`` images, float32 (count, S * S)."""
        return torch.randn(count, self.side**2, generator=rng)

    def forward(self, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        """Images float32 (N, 1, P, P) in [-1, 1] of x_T (N, S * S) and int64 labels (N,)."""

        def predict(images_N1SS: Tensor, timestep: int) -> Tensor:
            return self.predict(images_N1SS, torch.full_like(labels_N, timestep), labels_N)

        images_N1SS = ddim(predict, noise_NM.reshape(-1, 1, self.side, self.side), self.schedule)
        return images_N1SS[:, :, : self._pixels, : self._pixels].clamp(-1, 1)

    def predict(self, images_N1SS: Tensor, timesteps_N: Tensor, labels_N: Tensor) -> Tensor:
        """The guided prediction; with and without class in one batch of twice the size.

        Source: Ho & Salimans 2022, equation 6.
        """
        if self._guidance == 1:
            predicted_N1SS: Tensor = self.denoiser(images_N1SS, timesteps_N, labels_N)
            return predicted_N1SS
        no_class_N = torch.full_like(labels_N, self.denoiser.n_classes)
        both_N1SS = self.denoiser(
            images_N1SS.repeat(2, 1, 1, 1), timesteps_N.repeat(2), torch.cat([labels_N, no_class_N])
        )
        conditional_N1SS, unconditional_N1SS = both_N1SS.chunk(2)
        return guided(unconditional_N1SS, conditional_N1SS, self._guidance)

    def padded(self, images_NCHW: Tensor) -> Tensor:
        """Images of the side that the UNet works on, continued at the right and below by their last row and column."""
        more = self.side - images_NCHW.shape[-1]
        return functional.pad(images_NCHW, (0, more, 0, more), mode="replicate") if more else images_NCHW


def from_scratch(pixels: int, width: int) -> Architecture:
    """A small UNet for images of this size: one residual block a grid, attention on the smallest.

    Args:
        pixels: height and width, a multiple of 8.
        width: channels of the largest grid; they double from grid to grid, to four times.
    """
    grid, levels = pixels // BLOCK, 1
    while grid % 2 == 0 and levels < 3 and grid > SMALLEST:
        grid, levels = grid // 2, levels + 1
    plain = levels - 1
    return Architecture(
        unet={
            "in_channels": BLOCK**2,
            "out_channels": BLOCK**2,
            "block_out_channels": tuple(width * 2**level for level in range(levels)),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D",) * plain + ("AttnDownBlock2D",),
            "up_block_types": ("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
            "norm_num_groups": math.gcd(width, 8),
            "attention_head_dim": math.gcd(width * 2**plain, 32),
        },
        block=BLOCK,
    )


def read_architecture(path: Path) -> tuple[Architecture, Mapping[str, Any]]:
    """The UNet of a folder or an ADM file, and the configuration of its scheduler.

    Raises:
        DataError: there is no such UNet.
    """
    with torch.device("cpu"):
        if path.suffix == ADM_SUFFIX:
            adm = read_adm(path)
            return Architecture(unet=adm.unet, heads=adm.heads), adm.scheduler
    check_image_model(path)
    unet = json.loads((part_folder(path, "unet") / "config.json").read_text(encoding="utf-8"))
    return Architecture(unet=unet), _read_scheduler(path)


def _read_scheduler(path: Path) -> Mapping[str, Any]:
    """Ho et al.'s linear schedule where a UNet lies alone. Raises: DataError on a file that is no JSON."""
    file = part_folder(path, "scheduler") / "scheduler_config.json"
    if not file.is_file():
        return {"beta_schedule": "linear", "clip_sample": True}
    try:
        found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"generator.pretrained={path} has a scheduler/scheduler_config.json that could not be read ({error}); "
            "expected JSON as save_pretrained writes it. Save the model again."
        ) from error
    return found


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """The weights of a folder's or an ADM file's UNet, float32 on the CPU.

    Raises:
        DataError: they are not whole.
    """
    if path.suffix == ADM_SUFFIX:
        return read_adm(path).weights
    from diffusers.models.unets.unet_2d import UNet2DModel

    try:
        with torch.random.fork_rng(devices=[]):  # the library draws weights before it reads them
            unet, report = UNet2DModel.from_pretrained(
                part_folder(path, "unet"), local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"generator.pretrained={path} could not be read ({error}); expected a UNet2DModel as save_pretrained "
            "writes it. Pass such a folder."
        ) from error
    if report["missing_keys"]:
        raise DataError(
            f"generator.pretrained={path} lacks {len(report['missing_keys'])} weights of its UNet, "
            f"'{report['missing_keys'][0]}' the first; expected all. Save it again with save_pretrained."
        )
    return {name: value.float() for name, value in unet.state_dict().items()}


@torch.no_grad()
def fill_scratch(denoiser: Denoiser, *, rng: torch.Generator) -> None:
    """Draw all weights: U(-1, 1) / sqrt(inputs), class embeddings N(0, 1); every residual branch begins as nothing.

    Source: PyTorch's ``Linear.reset_parameters``; Dhariwal & Nichol 2021's code (``zero_module``).
    """
    for name, module in denoiser.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 0.0 if name.endswith(_SILENCED) else module.weight[0].numel() ** -0.5
            module.weight.uniform_(-bound, bound, generator=rng)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.GroupNorm):
            module.weight.fill_(1)
            module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(generator=rng)


@torch.no_grad()
def fill_pretrained(denoiser: Denoiser, weights: Mapping[str, Tensor], *, rng: torch.Generator) -> None:
    """Take over pretrained weights; class embeddings are drawn anew where they are not for as many classes.

    Args:
        denoiser: of the same architecture.
        weights: by the UNet's names. Class embeddings for as many classes, with or without "no class", are kept.
        rng: of the class embeddings.

    Raises:
        DataError: names or shapes differ.
    """
    held = dict(weights)
    rows = denoiser.n_classes + 1
    embedding_KE = torch.randn(rows, denoiser.unet.class_embedding.weight.shape[1], generator=rng) * NEW_CLASS_STD
    known_KE = held.get("class_embedding.weight")
    if known_KE is not None and len(known_KE) in (rows - 1, rows):
        embedding_KE[: len(known_KE)] = known_KE
    held = {name: value for name, value in held.items() if not name.startswith("class_embedding.")}
    try:
        denoiser.unet.load_state_dict({**held, "class_embedding.weight": embedding_KE})
    except RuntimeError as error:
        raise DataError(
            f"generator.pretrained's weights do not fit its architecture: {' '.join(str(error).split())[:300]}. Pass a "
            "checkpoint whose configuration and weights belong together."
        ) from error
