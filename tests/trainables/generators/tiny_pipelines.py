"""Tiny diffusion models with random weights, written to disk the way that users' checkpoints are."""

from __future__ import annotations

import atexit
import json
import math
import shutil
import string
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LETTERS = list(string.ascii_lowercase)


def write_ddpm(folder: Path, *, learned_variance: bool = False, classes: int | None = None) -> Path:
    """A three-channel ``DDPMPipeline`` of 32 x 32 images."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=32,
            out_channels=6 if learned_variance else 3,
            block_out_channels=(8, 16, 16, 16),
            down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            num_class_embeds=classes,
        )
        variance = "learned_range" if learned_variance else "fixed_small"
        DDPMPipeline(unet, DDPMScheduler(variance_type=variance)).save_pretrained(folder)
    return folder


def write_stable_diffusion(folder: Path) -> Path:
    """A ``StableDiffusionPipeline`` whose words are letters; 16 x 16 images, 8 x 8 latents."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = folder.with_name(f"{folder.name}-words")
    words.mkdir(parents=True)
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    (words / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(vocabulary)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    text = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        StableDiffusionPipeline(
            vae=AutoencoderKL(**_autoencoder()),
            text_encoder=CLIPTextModel(text),
            tokenizer=CLIPTokenizer.from_pretrained(words, model_max_length=20),
            unet=_text_unet(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    return folder


def write_latent_diffusion(folder: Path) -> Path:
    """A ``LDMTextToImagePipeline`` whose words are letters; 16 x 16 images, 8 x 8 latents."""
    from diffusers import DDIMScheduler, LDMTextToImagePipeline, VQModel
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
    from transformers import BertTokenizer

    words = folder.with_name(f"{folder.name}-words")
    words.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (words / "vocab.txt").write_text("\n".join(vocabulary))
    text = LDMBertConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=20,
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        head_dim=8,
        d_model=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LDMTextToImagePipeline(
            vqvae=VQModel(**_autoencoder(), num_vq_embeddings=16),
            bert=LDMBertModel(text),
            tokenizer=BertTokenizer.from_pretrained(words, model_max_length=20),
            unet=_text_unet(),
            scheduler=DDIMScheduler(clip_sample=False),
        ).save_pretrained(folder)
    return folder


def _autoencoder() -> dict[str, Any]:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (4, 8),
        "latent_channels": 4,
        "norm_num_groups": 4,
    }


def _text_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def write_adm(file: Path, *, classes: int | None = 5, **settings: Any) -> AdmUnet:
    """A ``.pt`` of an ADM UNet, with its settings beside it; returns the network itself."""
    file.parent.mkdir(parents=True, exist_ok=True)
    network = AdmUnet(classes=classes, **settings)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.2, generator=rng)
    torch.save(network.state_dict(), file)
    file.with_suffix(".json").write_text(json.dumps({"num_heads": network.heads}))
    return network.eval()


class AdmUnet(nn.Module):
    """The UNet of guided-diffusion (``unet.py``), written out anew from its description: an independent reference.

    Args:
        classes: of its label embedding, if it has one.
        by_block: residual blocks halve and double the grid (``resblock_updown``), not convolutions.
        scale_shift: ``use_scale_shift_norm``.
        heads: of every attention module.
        multiples: of each level's channels; all levels but the first attend.
    """

    def __init__(
        self,
        *,
        classes: int | None,
        by_block: bool = True,
        scale_shift: bool = True,
        heads: int = 4,
        out: int = 6,
        multiples: tuple[int, ...] = (1, 2),
    ) -> None:
        super().__init__()
        self.heads = heads
        base, blocks, attends = 32, 1, (False, *[True] * (len(multiples) - 1))
        emb = 4 * base
        self.base = base

        def residual(before: int, after: int, sampling: str = "") -> AdmResidual:
            return AdmResidual(before, after, emb, scale_shift=scale_shift, sampling=sampling)

        self.time_embed = nn.Sequential(nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb))
        if classes is not None:
            self.label_emb = nn.Embedding(classes, emb)
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(3, base, 3, padding=1)])])
        kept, channels = [base], base
        for level, multiple in enumerate(multiples):
            for _ in range(blocks):
                layers: list[nn.Module] = [residual(channels, base * multiple)]
                channels = base * multiple
                layers += [AdmAttention(channels, heads)] if attends[level] else []
                self.input_blocks.append(nn.ModuleList(layers))
                kept.append(channels)
            if level < len(multiples) - 1:
                halving = residual(channels, channels, "down") if by_block else AdmHalving(channels)
                self.input_blocks.append(nn.ModuleList([halving]))
                kept.append(channels)
        self.middle_block = nn.ModuleList(
            [residual(channels, channels), AdmAttention(channels, heads), residual(channels, channels)]
        )
        self.output_blocks = nn.ModuleList()
        for level, multiple in reversed(list(enumerate(multiples))):
            for block in range(blocks + 1):
                layers = [residual(channels + kept.pop(), base * multiple)]
                channels = base * multiple
                layers += [AdmAttention(channels, heads)] if attends[level] else []
                if level and block == blocks:
                    layers.append(residual(channels, channels, "up") if by_block else AdmDoubling(channels))
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))

    def forward(self, images_NCHW: Tensor, timesteps_N: Tensor, labels_N: Tensor | None = None) -> Tensor:
        half = self.base // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
        angles = timesteps_N[:, None] * frequencies
        emb_NE = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        if labels_N is not None:
            emb_NE = emb_NE + self.label_emb(labels_N)
        kept = []
        for layers in self.input_blocks:
            images_NCHW = _through(layers, images_NCHW, emb_NE)
            kept.append(images_NCHW)
        images_NCHW = _through(self.middle_block, images_NCHW, emb_NE)
        for layers in self.output_blocks:
            images_NCHW = _through(layers, torch.cat([images_NCHW, kept.pop()], dim=1), emb_NE)
        made_NCHW: Tensor = self.out(images_NCHW)
        return made_NCHW


def _through(layers: Any, images_NCHW: Tensor, emb_NE: Tensor) -> Tensor:
    for layer in layers:
        images_NCHW = layer(images_NCHW, emb_NE) if isinstance(layer, AdmResidual) else layer(images_NCHW)
    return images_NCHW


class AdmResidual(nn.Module):
    def __init__(self, before: int, after: int, emb: int, *, scale_shift: bool, sampling: str) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * after if scale_shift else after))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, after), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(after, after, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        self._scale_shift = scale_shift
        self._sampling = sampling

    def _resample(self, images_NCHW: Tensor) -> Tensor:
        if self._sampling == "down":
            return functional.avg_pool2d(images_NCHW, 2)
        return functional.interpolate(images_NCHW, scale_factor=2.0) if self._sampling else images_NCHW

    def forward(self, images_NCHW: Tensor, emb_NE: Tensor) -> Tensor:
        inner_NCHW = self.in_layers[2](self._resample(self.in_layers[1](self.in_layers[0](images_NCHW))))
        emb_NC11 = self.emb_layers(emb_NE)[:, :, None, None]
        if self._scale_shift:
            scale_NC11, shift_NC11 = emb_NC11.chunk(2, dim=1)
            inner_NCHW = self.out_layers[0](inner_NCHW) * (1 + scale_NC11) + shift_NC11
            inner_NCHW = self.out_layers[3](self.out_layers[1](inner_NCHW))
        else:
            inner_NCHW = self.out_layers(inner_NCHW + emb_NC11)
        made_NCHW: Tensor = self.skip_connection(self._resample(images_NCHW)) + inner_NCHW
        return made_NCHW


class AdmAttention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        self._heads = heads

    def forward(self, images_NCHW: Tensor) -> Tensor:
        count, channels, *grid = images_NCHW.shape
        flat_NCL = images_NCHW.flatten(2)
        size = channels // self._heads
        query, key, value = self.qkv(self.norm(flat_NCL)).reshape(count * self._heads, 3 * size, -1).split(size, dim=1)
        weights = torch.einsum("bct,bcs->bts", query, key).div(math.sqrt(size)).softmax(dim=-1)
        found_NCL = torch.einsum("bts,bcs->bct", weights, value).reshape(count, channels, -1)
        made_NCHW: Tensor = (flat_NCL + self.proj_out(found_NCL)).reshape(count, channels, *grid)
        return made_NCHW


class AdmHalving(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        made_NCHW: Tensor = self.op(images_NCHW)
        return made_NCHW


class AdmDoubling(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        made_NCHW: Tensor = self.conv(functional.interpolate(images_NCHW, scale_factor=2.0))
        return made_NCHW


@lru_cache(maxsize=1)
def stable_diffusion() -> Path:
    """The tiny ``StableDiffusionPipeline``, written once a process and removed at its end; always the same bytes."""
    folder = Path(tempfile.mkdtemp(prefix="genmix-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_stable_diffusion(folder / "stable")
