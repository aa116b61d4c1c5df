"""Where ImageNet weights lie, and whether they can be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.classifiers import pretrained
from trainables.classifiers.pretrained import available, content_digest, ensure
from trainables.errors import DataError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def in_hub_cache(cache: Path, name: str) -> Path:
    """A folder as the hub's client leaves it."""
    commit = "0" * 40
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


def test_random_weights_are_always_there() -> None:
    assert all(available(name, "none") is None for name in ("small_cnn", "resnet50", "xception", "vgg16"))


def test_a_network_without_imagenet_weights_is_refused_with_those_that_have_them() -> None:
    reason = available("small_cnn", "weights.safetensors")
    assert reason is not None
    assert "no ImageNet weights of small_cnn; set classifier.name to one of resnet50, xception, vgg16" in reason


def test_a_file_or_a_folder_is_found(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pth", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"")
        assert ensure(tmp_path / name) == tmp_path / name
    assert ensure(tmp_path) == tmp_path / "pytorch_model.bin"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert ensure(str(tmp_path)) == tmp_path / "model.safetensors"


def test_what_is_neither_weights_nor_a_hub_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.ckpt").write_bytes(b"")
    with pytest.raises(DataError, match=r"w\.ckpt is no file of weights; expected NAME\.safetensors or NAME\.pth"):
        ensure(tmp_path / "w.ckpt")
    with pytest.raises(DataError, match=r"nowhere is no file and no hub id; expected .* or a hub id OWNER/NAME"):
        ensure("nowhere")
    with pytest.raises(DataError, match=r"has no model\.safetensors or pytorch_model\.bin in"):
        (tmp_path / "empty").mkdir()
        ensure(tmp_path / "empty")


def test_a_hub_id_is_looked_up_in_the_local_cache_only(cache: Path) -> None:
    with pytest.raises(DataError, match=r"nor in the local hub cache on this machine\. .* hf download owner/model"):
        ensure("owner/model")
    assert "hf download owner/model" in str(available("vgg16", "owner/model"))
    folder = in_hub_cache(cache, "owner/model")
    (folder / "model.safetensors").write_bytes(b"")
    assert ensure("owner/model") == folder / "model.safetensors"


@pytest.mark.parametrize("allowed", [False, True])
def test_a_download_is_tried_only_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    import huggingface_hub

    asked: list[bool] = []

    def download(name: str, *, local_files_only: bool, allow_patterns: list[str]) -> str:
        asked.append(not local_files_only)
        raise FileNotFoundError(name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(DataError, match="could not be downloaded" if allowed else "on this machine"):
        ensure("owner/model", allow_download=allowed)
    assert asked == [allowed]


def test_a_hub_id_without_the_hubs_client_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install huggingface_hub"):
        ensure("owner/model")


def test_weights_are_named_by_their_content_wherever_they_lie(tmp_path: Path) -> None:
    for name, content in (("a.pth", b"one"), ("b.pth", b"one"), ("c.pth", b"two")):
        (tmp_path / name).write_bytes(content)
    one, same, other = (content_digest(tmp_path / name) for name in ("a.pth", "b.pth", "c.pth"))
    assert one == same != other
    (tmp_path / "a.pth").write_bytes(b"three")
    assert content_digest(tmp_path / "a.pth") not in (one, other)
