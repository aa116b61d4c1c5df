"""The pipeline that the fidelity benchmark inverts: it is whole, and has seen neither the rest nor a label."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from tests.benchmarks.captioned_images import LOOKS, captioned, read_kinds
from tests.benchmarks.small_pipeline import main
from tests.trainables.conftest import write_images
from trainables.generators.networks.latent_pipeline import LatentPipeline


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("images")
    return {noun: write_images(made / noun, seed=seed) for seed, noun in enumerate(("chest", "heart"))}


def named(folders: dict[str, Path]) -> list[str]:
    return [f"{noun}={folder}" for noun, folder in folders.items()]


def test_the_pipeline_is_whole_and_reads_words(folders: dict[str, Path], tmp_path: Path) -> None:
    given = [part for text in named(folders) for part in ("--images", text)]
    main([*given, "--out", str(tmp_path), "--cpu-minutes", "0.01"])
    made = LatentPipeline(tmp_path, words=2)
    ids = made.tokenizer("a photo of dark smooth heart <genmix1>").input_ids
    assert made.tokenizer.unk_token_id not in ids[:-1]
    assert len(ids) == 9
    images_NCHW = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert made.decode(made.encode(images_NCHW), 32).shape == images_NCHW.shape


def test_half_the_patients_are_left_for_the_inversion(folders: dict[str, Path], tmp_path: Path) -> None:
    kinds = read_kinds(named(folders), tmp_path, seed=0)
    with (tmp_path / "rest.csv").open(encoding="utf-8") as opened:
        rest = list(csv.DictReader(opened))
    patients = {row["patient"] for row in rest}
    assert len(patients) == 6
    assert len(rest) == 12
    assert {row["label"] for row in rest} == {"dark", "bright"}
    assert len(kinds["chest"]) == 12
    assert len(kinds["heart"]) == 24


def test_captions_say_what_is_measured_and_no_class() -> None:
    rng = torch.Generator().manual_seed(0)
    ramp_N = torch.linspace(-0.8, 0.8, 9)
    images_NCHW = (ramp_N[:, None, None, None] + 0.01 * torch.randn(9, 1, 32, 32, generator=rng)).clamp(-1, 1)
    texts = captioned({"chest": images_NCHW}, rng=rng)
    assert [looks[0] for looks in texts.looks[:9]] == ["dark"] * 3 + ["grey"] * 3 + ["bright"] * 3
    known = {"a", "photo", "of", "chest", *(word for words in LOOKS for word in words)}
    captions = [texts.caption(index % 9, rng=rng) for index in range(300)]
    said = {word for caption in captions for word in caption.split()}
    assert said <= known
    assert {"dark", "grey", "bright", "chest"} <= said
    assert 10 < captions.count("") < 60
