"""Weights that a generator starts from: a local folder, a hub id in the local cache, or an ADM ``.pt`` file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spaces.generators import SCRATCH
from trainables.errors import DataError

ADM_SUFFIX = ".pt"
WEIGHTS = (".safetensors", ".bin")
"""Endings of weight files; both are read without running code that is in them, safetensors where there are both."""
CONTENT = (*WEIGHTS, ADM_SUFFIX, ".json", ".txt", ".model")
"""Endings of the files that numbers depend on: weights, configurations, vocabularies."""
LIBRARIES = {"diffusion": ("diffusers",), "textual_inversion": ("diffusers", "transformers")}
"""What each generator imports, whatever it starts from."""
ROLES = {
    "StableDiffusionPipeline": {"text": "text_encoder", "vae": "vae"},
    "LDMTextToImagePipeline": {"text": "bert", "vae": "vqvae"},
}
"""Names of a latent diffusion pipeline's parts, by its class; ``unet``, ``tokenizer`` and ``scheduler`` in both."""
VOCABULARIES = {"text_encoder": ("vocab.json", "merges.txt"), "bert": ("vocab.txt",)}
"""Files in which a text encoder's tokenizer has its words, by the encoder's folder, where it has no ``TOKENIZER``."""
TOKENIZER = "tokenizer.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def available(generator: str, value: str) -> str | None:
    """Say why a generator cannot start from ``value`` here; nothing is downloaded, no network library is imported.

    Args:
        generator: "diffusion" or "textual_inversion".
        value: of its setting ``pretrained``; "none" for random weights.

    Returns:
        None where it can; else one sentence with what is missing and what to pass.
    """
    missing = [name for name in LIBRARIES[generator] if find_spec(name) is None]
    if missing:
        return (
            f"generator.name={generator} needs the package {' and '.join(missing)}, not installed here. "
            f"Run: pip install {' '.join(missing)}"
        )
    if generator == "diffusion" and value == SCRATCH:
        return None
    try:
        path = ensure(value)
        check_latent_pipeline(path) if generator == "textual_inversion" else check_image_model(path)
    except DataError as error:
        return str(error)
    return None


def ensure(value: str | Path, *, allow_download: bool = False) -> Path:
    """Find where the weights lie.

    Args:
        value: a folder, a ``.pt`` file, or a hub id such as "google/ddpm-ema-cat-256".
        allow_download: whether a hub id that is not in the local cache may be downloaded: only where a user named it.

    Returns:
        The folder or file. A folder with that name goes before a hub id.

    Raises:
        DataError: there is no such thing, or it could not be downloaded.
    """
    path = Path(value).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ADM_SUFFIX):
        return path.resolve()
    if path.exists():
        raise DataError(
            f"generator.pretrained={value} is a file; expected a folder that diffusers wrote, or an ADM checkpoint "
            "NAME.pt. Pass one of these."
        )
    if not _HUB_ID.fullmatch(str(value)):
        raise DataError(
            f"generator.pretrained={value} is neither a folder nor a .pt file, nor a hub id OWNER/NAME. Pass the path "
            "of a folder that diffusers wrote (save_pretrained), of an ADM .pt file, or a hub id."
        )
    return _from_hub(str(value), allow_download=allow_download)


def _from_hub(name: str, *, allow_download: bool) -> Path:
    if find_spec("huggingface_hub") is None:
        raise DataError(
            f"generator.pretrained={name} is a hub id, and the package huggingface_hub is not installed here. Run: pip "
            "install huggingface_hub, or pass a local folder."
        )
    from huggingface_hub import snapshot_download

    patterns = [f"*{ending}" for ending in CONTENT]
    try:
        return Path(snapshot_download(name, local_files_only=not allow_download, allow_patterns=patterns)).resolve()
    except (OSError, ValueError) as error:  # not cached, no network, no such id: all of the library's are one of these
        tried = f"and could not be downloaded ({type(error).__name__})" if allow_download else "on this machine"
        raise DataError(
            f"generator.pretrained={name} is not in the local hub cache {tried}. Pass a local folder, or run: "
            f"hf download {name}"
        ) from error


def check_image_model(path: Path) -> None:
    """Check that a pixel diffusion model lies here; of a folder's, without reading its weights.

    Raises:
        DataError: no ``UNet2DModel``, no weights, or a ``.pt`` of anything but an ADM model.
    """
    if path.suffix == ADM_SUFFIX and path.is_file():
        from trainables.generators.networks.adm import read_adm  # imports PyTorch, which nothing else here needs

        read_adm(path)
        return
    folder = part_folder(path, "unet")
    found = _read(folder / "config.json", path).get("_class_name")
    if found != "UNet2DModel":
        raise DataError(
            f"generator.pretrained={path} holds a {found or 'model of unknown class'}; expected a UNet2DModel or a "
            "pipeline of one (DDPMPipeline, DDIMPipeline). Pass its folder."
        )
    _check_weights(folder)


def check_latent_pipeline(path: Path) -> dict[str, Path]:
    """Check that a latent diffusion pipeline lies here, without reading its weights.

    Returns:
        The folders of its parts "text", "vae", "unet", "tokenizer" and "scheduler".

    Raises:
        DataError: a pipeline of another class, or a part is missing.
    """
    found = _read(path / "model_index.json", path).get("_class_name")
    if found not in ROLES:
        raise DataError(
            f"generator.pretrained={path} holds a {found or 'pipeline of unknown class'}; expected one of "
            f"{', '.join(ROLES)}. Pass the folder or hub id of such a pipeline."
        )
    parts = {"unet": "unet", "tokenizer": "tokenizer", "scheduler": "scheduler", **ROLES[found]}
    folders = {role: path / name for role, name in parts.items()}
    for folder in folders.values():
        if not folder.is_dir():
            raise DataError(
                f"generator.pretrained={path} has no folder '{folder.name}'; expected every part of a {found}. Save "
                "the pipeline again with save_pretrained."
            )
    for role in ("text", "vae", "unet"):
        _check_weights(folders[role])
    _check_words(folders["tokenizer"], VOCABULARIES[parts["text"]])
    _read(folders["scheduler"] / "scheduler_config.json", path)
    return folders


def part_folder(path: Path, name: str) -> Path:
    """The folder of a part of a pipeline: its own, or the pipeline's where everything lies in one folder."""
    return path / name if (path / name).is_dir() else path


def _read(file: Path, named: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"generator.pretrained={named} has no readable {file.name} in {file.parent}; expected a folder that "
            "diffusers wrote. Pass the folder that save_pretrained was given."
        ) from error
    return content if isinstance(content, dict) else {}


def _check_weights(folder: Path) -> None:
    if not any(file.suffix in WEIGHTS for file in folder.iterdir()):
        raise DataError(
            f"generator.pretrained: {folder} has no weights; expected a file ending in {' or '.join(WEIGHTS)}. Save "
            "the model again with save_pretrained, or download it whole."
        )


def _check_words(folder: Path, vocabulary: Sequence[str]) -> None:
    if (folder / TOKENIZER).is_file() or all((folder / name).is_file() for name in vocabulary):
        return
    raise DataError(
        f"generator.pretrained: {folder} has no words; expected {TOKENIZER}, or {' and '.join(vocabulary)}. Save the "
        "pipeline again with save_pretrained, or download it whole."
    )


def content_digest(value: str | Path) -> str:
    """Name weights by what is in them, wherever they lie.

    Args:
        value: as in ``ensure``.

    Returns:
        32 hexadecimal digits over the names and contents of the files that numbers depend on. Files are read once in
        a process, and again where their size or time has changed.

    Raises:
        DataError: there are none.
    """
    path = ensure(value)
    files = _sidecar_and(path) if path.is_file() else _files_under(path)
    hasher = hashlib.blake2b(digest_size=16)
    for name, file in files:
        status = file.stat()
        hasher.update(f"{name}:{_file_digest(file, status.st_size, status.st_mtime_ns)}\n".encode())
    return hasher.hexdigest()


def sidecar(path: Path) -> Path:
    """The file of an ADM checkpoint's settings: NAME.json beside NAME.pt."""
    return path.with_suffix(".json")


def _sidecar_and(path: Path) -> list[tuple[str, Path]]:
    beside = sidecar(path)
    return [("weights", path), *([("settings", beside)] if beside.is_file() else [])]


def _files_under(folder: Path) -> list[tuple[str, Path]]:
    found = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.suffix in CONTENT and file.is_file() and not any(part.startswith(".") for part in name.parts):
            found.append((name.as_posix(), file))
    return found


@lru_cache(maxsize=256)
def _file_digest(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
