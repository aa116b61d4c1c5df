"""A frozen latent diffusion pipeline (Rombach et al. 2022) that knows a few words more than it was trained with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from trainables.errors import DataError
from trainables.generators.pretrained import check_latent_pipeline

PIXELS_AT_ONCE = 4 * 512**2
"""Of the images that are encoded or made together: more may not fit into memory."""


class ExtendedWords(nn.Module):
    """An embedding with rows that come from outside, beyond its own.

    Args:
        own: the frozen embedding.
        first: id of the first row from outside; the embedding's own rows from there on are not used.
    """

    def __init__(self, own: nn.Embedding, *, first: int) -> None:
        super().__init__()
        self.own = own
        self._first = first
        self._rows: list[Tensor] = []

    def use(self, rows_RE: Tensor) -> None:
        """Take these rows from now on; they are not parameters of this module."""
        self._rows = [rows_RE]

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., E) of int64 ids (...)."""
        is_new = ids >= self._first
        own: Tensor = self.own(torch.where(is_new, 0, ids))
        new = self._rows[0][torch.where(is_new, ids - self._first, 0)]
        return torch.where(is_new[..., None], new, own)


class LatentPipeline:
    """Text encoder, autoencoder and denoiser of a pipeline, none of which ever changes; copies share them.

    Args:
        path: folder of a ``StableDiffusionPipeline`` or ``LDMTextToImagePipeline``.
        words: how many words it is taught; their names are ``word_name``.

    Raises:
        DataError: another kind of pipeline, or parts of it are missing.
    """

    def __init__(self, path: Path, *, words: int) -> None:
        folders = check_latent_pipeline(path)
        with _quiet(), torch.random.fork_rng(devices=[]), torch.device("cpu"):  # drawn before they are read
            try:
                self.text, self.tokenizer = _read_text(folders["text"], folders["tokenizer"])
                self.vae = _read_model(folders["vae"], ("AutoencoderKL", "VQModel"))
                self.unet = _read_model(folders["unet"], ("UNet2DConditionModel",))
                self.scheduler: Mapping[str, Any] = json.loads(
                    (folders["scheduler"] / "scheduler_config.json").read_text(encoding="utf-8")
                )
            except (OSError, ValueError, RuntimeError, SafetensorError) as error:
                raise DataError(
                    f"generator.pretrained={path} could not be read ({error}); expected every part of a pipeline as "
                    "save_pretrained writes it. Pass such a folder."
                ) from error
            own = self.text.get_input_embeddings()
            first = len(self.tokenizer)
            self.tokenizer.add_tokens([word_name(index) for index in range(words)])
        self._words = ExtendedWords(own, first=first)
        self.text.set_input_embeddings(self._words)
        for model in (self.text, self.vae, self.unet):
            model.float().eval().requires_grad_(False)
        self.own_words_VE: Tensor = own.weight[:first].detach()
        self._device = torch.device("cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> LatentPipeline:
        return self

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent image."""
        side = int(self.unet.config.sample_size)
        return int(self.unet.config.in_channels), side, side

    @property
    def side(self) -> int:
        """Height and width of the pipeline's images: twice the latents' for each level of the autoencoder but one."""
        return int(self.latent_shape[1] * 2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def batch(self) -> int:
        """How many images are encoded or made together: four of 512 x 512 pixels."""
        return max(1, PIXELS_AT_ONCE // self.side**2)

    def on(self, device: torch.device) -> LatentPipeline:
        """Itself, moved to a device."""
        if device != self._device:
            for model in (self.text, self.vae, self.unet):
                model.to(device)
            self._device = device
        return self

    @torch.no_grad()
    def encode(self, images_NCHW: Tensor) -> Tensor:
        """Latents (N, c, h, w) of grey images (N, 1, P, P) in [-1, 1] of any size, of unit scale."""
        return torch.cat([self._encode(chunk) for chunk in torch.split(images_NCHW, self.batch)])

    def _encode(self, images_NCHW: Tensor) -> Tensor:
        size = (self.side, self.side)
        large_NCHW = functional.interpolate(images_NCHW, size, mode="bilinear", antialias=True, align_corners=False)
        coded = self.vae.encode(large_NCHW.repeat(1, self.vae.config.in_channels, 1, 1))
        latents_NCHW: Tensor = coded.latents if hasattr(coded, "latents") else coded.latent_dist.mode()
        scale: float = self.vae.config.scaling_factor
        return latents_NCHW * scale

    @torch.no_grad()
    def decode(self, latents_NCHW: Tensor, pixels: int) -> Tensor:
        """Grey images (N, 1, P, P) of latents: the mean of the colours, resized."""
        images_NCHW: Tensor = self.vae.decode(latents_NCHW / self.vae.config.scaling_factor).sample
        return functional.interpolate(
            images_NCHW.mean(dim=1, keepdim=True),
            (pixels, pixels),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )

    def read(self, texts: list[str], rows_RE: Tensor) -> Tensor:
        """What the denoiser reads, (N, L, E), of N texts in which the new words have these embeddings.

        Raises:
            DataError: a text is longer than the text encoder takes.
        """
        longest = min(self.tokenizer.model_max_length, self.text.config.max_position_embeddings)
        ids = [self.tokenizer(text).input_ids for text in texts]
        if max(map(len, ids)) > longest:
            raise DataError(
                f"the text '{texts[0]}' has {max(map(len, ids))} tokens; expected at most the {longest} of the "
                "pipeline's text encoder. Lower generator.tokens_per_class."
            )
        padded = [each + [self.tokenizer.pad_token_id] * (longest - len(each)) for each in ids]
        self._words.use(rows_RE)
        read_NLE: Tensor = self.text(input_ids=torch.tensor(padded, device=rows_RE.device), return_dict=True)[0]
        return read_NLE

    def predict(self, noised_NCHW: Tensor, timesteps_N: Tensor, read_NLE: Tensor) -> Tensor:
        """The denoiser's prediction for noised latents at these time steps, under what it reads."""
        predicted_NCHW: Tensor = self.unet(noised_NCHW, timesteps_N, encoder_hidden_states=read_NLE, return_dict=False)[
            0
        ]
        return predicted_NCHW[:, : noised_NCHW.shape[1]]


def word_name(index: int) -> str:
    """A new word as it stands in a text."""
    return f"<genmix{index}>"


def _read_text(model: Path, tokenizer: Path) -> tuple[Any, Any]:
    """Text encoder and tokenizer, by the class that the encoder's configuration names."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    name = (config.get("architectures") or ["unknown"])[0]
    if name == "CLIPTextModel":
        from transformers import CLIPTextModel, CLIPTokenizer

        encoder, words = CLIPTextModel, CLIPTokenizer
    elif name == "LDMBertModel":
        from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
        from transformers import BertTokenizer

        encoder, words = LDMBertModel, BertTokenizer
    else:
        raise DataError(
            f"generator.pretrained's text encoder in {model} is a {name}; expected CLIPTextModel or LDMBertModel. Pass "
            "a Stable Diffusion 1 or 2, or a LDMTextToImagePipeline."
        )
    loaded, report = encoder.from_pretrained(model, local_files_only=True, output_loading_info=True)
    _check_whole(model, report)
    return loaded, words.from_pretrained(tokenizer, local_files_only=True)


def _read_model(folder: Path, expected: tuple[str, ...]) -> Any:
    """One of diffusers' models, by the class that its configuration names."""
    import diffusers

    name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    if name not in expected:
        raise DataError(
            f"generator.pretrained's {folder.name} is a {name}; expected {' or '.join(expected)}. Pass a pipeline of "
            "Stable Diffusion 1 or 2, or a LDMTextToImagePipeline."
        )
    model, report = getattr(diffusers, name).from_pretrained(
        folder, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
    )
    _check_whole(folder, report)
    return model


def _check_whole(folder: Path, report: Mapping[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        raise DataError(
            f"generator.pretrained: {folder} lacks {len(missing)} weights, '{missing[0]}' the first; expected all. "
            "Save the pipeline again with save_pretrained."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice out of the way for a while."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
