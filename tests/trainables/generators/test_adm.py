"""ADM checkpoints compute the same under diffusers' names."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from tests.trainables.generators.tiny_pipelines import write_adm
from trainables.errors import DataError
from trainables.generators.networks.adm import read_adm
from trainables.generators.networks.denoiser import Denoiser, fill_pretrained, read_architecture, read_weights


@pytest.mark.parametrize("by_block", [True, False])
@pytest.mark.parametrize(("scale_shift", "multiples"), [(True, (1, 2)), (False, (1, 2)), (True, (1, 2, 3))])
def test_a_converted_model_predicts_what_the_original_does(
    tmp_path: Path, by_block: bool, scale_shift: bool, multiples: tuple[int, ...]
) -> None:
    path = tmp_path / "adm.pt"
    original = write_adm(path, classes=5, by_block=by_block, scale_shift=scale_shift, heads=2, multiples=multiples)
    architecture, _ = read_architecture(path)
    converted = Denoiser(architecture, n_classes=4)
    fill_pretrained(converted, read_weights(path), rng=torch.Generator())
    rng = torch.Generator().manual_seed(1)
    images_NCHW = torch.randn(3, 3, 16, 16, generator=rng)
    timesteps_N, labels_N = torch.tensor([0, 500, 999]), torch.tensor([0, 3, 4])
    with torch.no_grad():
        expected_NCHW = original(images_NCHW, timesteps_N, labels_N)
        found_NCHW = converted.unet(images_NCHW, timesteps_N, labels_N).sample
        torch.testing.assert_close(found_NCHW, expected_NCHW, rtol=1e-4, atol=1e-4)
        grey_N1HW = images_NCHW[:, :1]
        expected_N1HW = original(grey_N1HW.repeat(1, 3, 1, 1), timesteps_N, labels_N)[:, :3].mean(dim=1, keepdim=True)
        torch.testing.assert_close(converted(grey_N1HW, timesteps_N, labels_N), expected_N1HW, rtol=1e-4, atol=1e-4)


def test_the_settings_beside_the_weights_are_honoured(tmp_path: Path) -> None:
    path = tmp_path / "adm.pt"
    write_adm(path, classes=None)
    assert read_adm(path).scheduler["beta_schedule"] == "linear"
    assert read_adm(path).unet["num_class_embeds"] is None
    path.with_suffix(".json").write_text(json.dumps({"noise_schedule": "cosine", "num_head_channels": 16}))
    found = read_adm(path)
    assert found.scheduler["beta_schedule"] == "squaredcos_cap_v2"
    assert (found.unet["attention_head_dim"], found.heads) == (16, None)
    path.with_suffix(".json").write_text(json.dumps({"noise_schedule": "sigmoid"}))
    with pytest.raises(DataError, match="noise_schedule is 'sigmoid'"):
        read_adm(path)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "harm.pt"
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(DataError, match="not a file of tensors alone"):
        read_adm(path)
    torch.save({"input_blocks.0.0.weight": Harmful()}, path)
    with pytest.raises(DataError, match="not a file of tensors alone"):
        read_adm(path)
    assert "run" not in capsys.readouterr().out


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(DataError, match=r"has no weights 'input_blocks.0.0' and 'out.2'"):
        read_adm(path)


def test_a_weight_of_another_shape_or_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adm.pt"
    write_adm(path)
    weights = torch.load(path, weights_only=True)
    torch.save({**weights, "surplus.weight": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="is not the UNet of guided-diffusion"):
        read_adm(path)
    torch.save({**weights, "input_blocks.1.0.in_layers.2.bias": torch.zeros(7)}, path)
    architecture, _ = read_architecture(path)
    with pytest.raises(DataError, match=r"do not fit its architecture: .*conv1.bias"):
        fill_pretrained(Denoiser(architecture, n_classes=2), read_weights(path), rng=torch.Generator())
