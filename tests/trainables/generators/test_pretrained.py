"""Where pretrained weights lie, whether they can be used, and what they are called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainables.generators.tiny_pipelines import write_ddpm, write_stable_diffusion
from trainables.errors import DataError
from trainables.generators import pretrained
from trainables.generators.networks.denoiser import read_architecture, read_weights
from trainables.generators.networks.latent_pipeline import LatentPipeline
from trainables.generators.pretrained import available, content_digest, ensure


def write_unet(
    folder: Path, *, named: str = "UNet2DModel", weights: str = "diffusion_pytorch_model.safetensors"
) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": named}))
    (folder / "unet" / weights).write_bytes(b"weights")
    return folder


def write_pipeline(folder: Path, *, named: str = "StableDiffusionPipeline") -> Path:
    for part in ("unet", "vae", "text_encoder"):
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text('{"a": 0}')
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": named}))
    return folder


def in_hub_cache(cache: Path, name: str) -> Path:
    """A folder as the hub's client leaves it."""
    owner, _, model = name.partition("/")
    commit = "0" * 40
    folder = cache / f"models--{owner}--{model}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_random_weights_need_nothing_but_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available("diffusion", "none") is None
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    reason = available("diffusion", "none")
    assert reason is not None
    assert "pip install diffusers" in reason
    assert "diffusers and transformers" in str(available("textual_inversion", "anything"))


def test_a_local_folder_or_file_is_found(tmp_path: Path) -> None:
    folder = write_unet(tmp_path / "model")
    assert ensure(folder) == folder
    assert available("diffusion", str(folder)) is None
    (tmp_path / "adm.pt").write_bytes(b"")
    assert ensure(tmp_path / "adm.pt") == tmp_path / "adm.pt"
    pipeline = write_pipeline(tmp_path / "pipeline")
    assert available("textual_inversion", str(pipeline)) is None


def test_a_model_of_another_kind_or_without_weights_is_refused_with_what_to_pass(tmp_path: Path) -> None:
    other = write_unet(tmp_path / "other", named="UNet2DConditionModel")
    assert "holds a UNet2DConditionModel; expected a UNet2DModel" in str(available("diffusion", str(other)))
    bare = write_unet(tmp_path / "bare", weights="notes.md")
    assert "has no weights" in str(available("diffusion", str(bare)))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no readable config.json" in str(available("diffusion", str(empty)))
    assert "has no readable model_index.json" in str(available("textual_inversion", str(empty)))
    flux = write_pipeline(tmp_path / "flux", named="FluxPipeline")
    assert "holds a FluxPipeline; expected one of StableDiffusionPipeline" in str(
        available("textual_inversion", str(flux))
    )
    broken = write_pipeline(tmp_path / "broken")
    shutil.rmtree(broken / "tokenizer")
    assert "has no folder 'tokenizer'" in str(available("textual_inversion", str(broken)))


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("tokenizer/vocab.json", "has no words; expected tokenizer.json, or vocab.json and merges.txt"),
        ("tokenizer/merges.txt", "has no words; expected tokenizer.json, or vocab.json and merges.txt"),
        ("scheduler/scheduler_config.json", "has no readable scheduler_config.json"),
    ],
)
def test_a_pipeline_with_an_empty_part_is_refused_before_any_trial(tmp_path: Path, lost: str, said: str) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline")
    (pipeline / lost).unlink()
    assert said in str(available("textual_inversion", str(pipeline)))


def test_a_pipeline_whose_schedule_is_torn_is_refused_before_any_trial(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "pipeline")
    (pipeline / "scheduler" / "scheduler_config.json").write_text("{")
    assert "has no readable scheduler_config.json" in str(available("textual_inversion", str(pipeline)))


def test_what_is_neither_a_path_nor_a_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a folder nor a \.pt file, nor a hub id OWNER/NAME"):
        ensure("nowhere")
    (tmp_path / "weights.ckpt").write_bytes(b"")
    with pytest.raises(DataError, match=r"is a file; expected a folder that diffusers wrote, or an ADM checkpoint"):
        ensure(tmp_path / "weights.ckpt")


def test_a_hub_id_is_looked_up_in_the_local_cache_only(cache: Path) -> None:
    with pytest.raises(DataError, match=r"not in the local hub cache on this machine. .* hf download owner/model"):
        ensure("owner/model")
    folder = write_unet(in_hub_cache(cache, "owner/model"))
    assert ensure("owner/model") == folder
    assert available("diffusion", "owner/model") is None


@pytest.mark.parametrize("allowed", [False, True])
def test_a_download_is_tried_only_where_it_is_allowed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    import huggingface_hub

    asked: list[bool] = []

    def download(name: str, *, local_files_only: bool, allow_patterns: list[str]) -> str:
        asked.append(not local_files_only)
        raise FileNotFoundError(name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(DataError, match="could not be downloaded" if allowed else "on this machine"):
        ensure("owner/model", allow_download=allowed)
    assert asked == [allowed]


def test_the_same_weights_have_the_same_digest_wherever_they_lie(cache: Path, tmp_path: Path) -> None:
    here = write_unet(tmp_path / "here")
    write_unet(in_hub_cache(cache, "owner/model"))
    shutil.copytree(here, tmp_path / "there")
    (tmp_path / "there" / "README.md").write_text("another folder")
    assert content_digest(here) == content_digest(str(tmp_path / "there")) == content_digest("owner/model")


def test_other_weights_settings_or_names_have_another_digest(tmp_path: Path) -> None:
    folder = write_unet(tmp_path / "model")
    seen = {content_digest(folder)}
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"WEIGHTS!")
    seen.add(content_digest(folder))
    (folder / "unet" / "config.json").write_text("{}")
    seen.add(content_digest(folder))
    (folder / "unet").rename(folder / "unet2")
    seen.add(content_digest(folder))
    assert len(seen) == 4
    adm = tmp_path / "adm.pt"
    torch.save({}, adm)
    alone = content_digest(adm)
    (tmp_path / "adm.json").write_text('{"num_heads": 2}')
    assert content_digest(adm) != alone


def test_a_file_that_is_no_adm_model_is_refused_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk\n")
    (tmp_path / "words.pt").write_bytes(b"not a checkpoint")
    torch.save({"input_blocks.0.0.weight": "text", "out.2.weight": "text"}, tmp_path / "text.pt")
    for name in ("junk.pt", "words.pt", "text.pt"):
        reason = available("diffusion", str(tmp_path / name))
        assert reason is not None
        assert name in reason
        assert "ADM" in reason


@pytest.mark.parametrize("harm", ["shape", "torn"])
def test_damaged_parts_of_a_pipeline_are_refused_with_what_to_pass(tmp_path: Path, harm: str) -> None:
    folder = write_stable_diffusion(tmp_path)
    weights = folder / "text_encoder" / "model.safetensors"
    if harm == "shape":
        name, value = next((name, value) for name, value in load_file(weights).items() if value.dim() == 2)
        save_file({**load_file(weights), name: value[:-1].clone()}, weights, metadata={"format": "pt"})
    else:
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"(?s)could not be read .* Pass such a folder"):
        LatentPipeline(folder, words=1)


def test_a_weight_of_another_shape_in_a_diffusion_model_is_refused(tmp_path: Path) -> None:
    folder = write_ddpm(tmp_path)
    weights = next(folder.rglob("*.safetensors"))
    name, value = next((name, value) for name, value in load_file(weights).items() if value.dim() == 4)
    save_file({**load_file(weights), name: value[:-1].clone()}, weights, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"(?s)could not be read .* Pass such a folder"):
        read_weights(folder)


def test_a_torn_schedule_of_a_diffusion_model_is_refused(tmp_path: Path) -> None:
    folder = write_ddpm(tmp_path)
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(DataError, match=r"scheduler_config.json that could not be read"):
        read_architecture(folder)
