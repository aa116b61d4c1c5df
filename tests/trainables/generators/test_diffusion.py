"""Diffusion: schedules, guidance, sampling, and training from random weights and from checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from spaces.generators import DiffusionConfig
from tests.trainables.generators.tiny_pipelines import write_adm, write_ddpm
from tests.trainables.generators.whole_trainings import fit
from trainables.data.image_set import ImageSet
from trainables.errors import DataError
from trainables.generators.base import FittedGenerator
from trainables.generators.diffusion import Diffusion, DiffusionTraining
from trainables.generators.networks.ddim import COSINE, clean_of, ddim, guided, noised, schedule_of, target
from trainables.generators.networks.denoiser import Denoiser, DiffusionNetwork, fill_scratch, from_scratch
from trainables.generators.training import TrainingImages

CPU = torch.device("cpu")
TINY = {"steps": 2, "batch_size": 4, "width": 4, "sampling_steps": 2, "guidance": 1.0}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy(count: int = 12, pixels: int = 32) -> ImageSet:
    """Dark and bright noise."""
    labels_N = torch.arange(count) % 2
    images_NCHW = (
        1.2 * labels_N[:, None, None, None] - 0.6 + 0.2 * torch.randn(count, 1, pixels, pixels, generator=rng())
    )
    names = tuple(f"image{index}" for index in range(count))
    return ImageSet(
        images_NCHW=images_NCHW.clamp(-1, 1), labels_N=labels_N, ids=names, patients=names, classes=("dark", "bright")
    )


def network(*, guidance: float = 1.0, pixels: int = 32, sampling_steps: int = 3) -> DiffusionNetwork:
    """One whose every layer has something to say, also those that begin as nothing."""
    made = DiffusionNetwork(
        from_scratch(pixels, 4),
        schedule=schedule_of(COSINE, sampling_steps=sampling_steps, clips=True),
        guidance=guidance,
        pixels=pixels,
        n_classes=2,
    )
    with torch.no_grad():
        fill_scratch(made.denoiser, rng=rng())
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng(1)))
    return made.eval()


def trained(**settings: object) -> FittedGenerator:
    config = DiffusionConfig(**{**TINY, **settings})  # type: ignore[arg-type]
    return fit(Diffusion(config), config.steps, toy(), seed=1, device=CPU, on_step=lambda done, total: None)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_gives_the_clean_image_back(kind: str) -> None:
    clean_NCHW, noise_NCHW = torch.randn(2, 3, 1, 4, 4, generator=rng(), dtype=torch.float64)
    alphas_N = torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)
    mixed_NCHW = noised(clean_NCHW, noise_NCHW, alphas_N)
    torch.testing.assert_close(mixed_NCHW, 0.3**0.5 * clean_NCHW + 0.7**0.5 * noise_NCHW)
    predicted_NCHW = target(clean_NCHW, noise_NCHW, alphas_N, kind)
    torch.testing.assert_close(clean_of(predicted_NCHW, mixed_NCHW, 0.3, kind), clean_NCHW)


def test_the_cosine_schedule_is_that_of_nichol_and_dhariwal() -> None:
    schedule = schedule_of(COSINE, sampling_steps=25, clips=True)
    times = (torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008
    signal = (times * torch.pi / 2).cos() ** 2
    torch.testing.assert_close(schedule.alphas_T[:998].double(), (signal / signal[0])[1:999], rtol=1e-3, atol=1e-6)
    assert schedule.timesteps[0] == 999
    assert len(schedule.timesteps) == 25


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_sampling_agrees_with_the_library_step_by_step(kind: str) -> None:
    from diffusers import DDIMScheduler

    config = {"beta_schedule": "linear", "prediction_type": kind, "timestep_spacing": "leading", "clip_sample": True}
    schedule = schedule_of(config, sampling_steps=10, clips=True)
    weight = torch.randn(16, 16, generator=rng()) / 4

    def predict(images_NM: Tensor, timestep: int) -> Tensor:
        return torch.tanh(images_NM @ weight + timestep / 1000)

    start_NM = torch.randn(3, 16, generator=rng(1))
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(10)
    images_NM = start_NM
    for timestep in scheduler.timesteps:
        step = scheduler.step(predict(images_NM, int(timestep)), timestep, images_NM, use_clipped_model_output=True)
        images_NM = step.prev_sample
    torch.testing.assert_close(ddim(predict, start_NM, schedule), images_NM, rtol=1e-3, atol=1e-4)


def test_a_denoiser_that_knows_the_data_samples_it() -> None:
    schedule = schedule_of(COSINE, sampling_steps=50, clips=False)
    mean, std = 0.3, 0.2

    def predict(images_NM: Tensor, timestep: int) -> Tensor:
        alpha = schedule.alpha(timestep)
        gain = alpha**0.5 * std**2 / (alpha * std**2 + 1 - alpha)
        clean_NM = mean + gain * (images_NM - alpha**0.5 * mean)
        noise_NM = (images_NM - alpha**0.5 * clean_NM) / (1 - alpha) ** 0.5
        return alpha**0.5 * noise_NM - (1 - alpha) ** 0.5 * clean_NM

    images_NM = ddim(predict, torch.randn(4000, 4, generator=rng()), schedule)
    assert float(images_NM.mean()) == pytest.approx(mean, abs=0.02)
    assert float(images_NM.std()) == pytest.approx(std, rel=0.1)


def test_schedules_that_cannot_be_sampled_are_refused() -> None:
    with pytest.raises(DataError, match="FlowMatchScheduler predicting 'epsilon'; expected a scheduler with discrete"):
        schedule_of({"_class_name": "FlowMatchScheduler"}, sampling_steps=2, clips=True)
    with pytest.raises(DataError, match=r"in 20 steps: .* Lower generator.sampling_steps"):
        schedule_of({"beta_schedule": "linear", "num_train_timesteps": 10}, sampling_steps=20, clips=True)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_one_batch_of_twice_the_size_guides_like_two_separate_passes(guidance: float) -> None:
    made = network(guidance=guidance)
    images_NCHW = torch.randn(3, 1, 32, 32, generator=rng(2))
    timesteps_N, labels_N = torch.tensor([10, 500, 990]), torch.tensor([0, 1, 1])
    with torch.no_grad():
        conditional_NCHW = made.denoiser(images_NCHW, timesteps_N, labels_N)
        unconditional_NCHW = made.denoiser(images_NCHW, timesteps_N, torch.full_like(labels_N, 2))
        expected_NCHW = unconditional_NCHW + guidance * (conditional_NCHW - unconditional_NCHW)
        torch.testing.assert_close(made.predict(images_NCHW, timesteps_N, labels_N), expected_NCHW)
    assert float((conditional_NCHW - unconditional_NCHW).abs().max()) > 1e-3
    torch.testing.assert_close(guided(unconditional_NCHW, conditional_NCHW, guidance), expected_NCHW)


def test_without_guidance_nothing_is_computed_without_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    made, batches = network(), []
    forward = Denoiser.forward

    def counted(self: Denoiser, images: Tensor, timesteps: Tensor, labels_N: Tensor) -> Tensor:
        batches.append(labels_N.tolist())
        return forward(self, images, timesteps, labels_N)

    monkeypatch.setattr(Denoiser, "forward", counted)
    with torch.no_grad():
        made(made.noise(2, rng=rng()), torch.tensor([0, 1]))
    assert batches == [[0, 1]] * 3


def test_an_image_depends_on_its_own_noise_and_label_only() -> None:
    made = network(guidance=2.0)
    noise_NM = made.noise(4, rng=rng(3))
    with torch.no_grad():
        images_NCHW = made(noise_NM, torch.tensor([0, 1, 0, 1]))
        others_NCHW = made(torch.cat([noise_NM[:1], -noise_NM[1:]]), torch.tensor([0, 0, 1, 0]))
    assert torch.equal(images_NCHW[0], others_NCHW[0])
    assert not torch.equal(images_NCHW[1], others_NCHW[1])


def test_labels_are_dropped_at_the_share_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    forward = Denoiser.forward

    def watched(self: Denoiser, images: Tensor, timesteps: Tensor, labels_N: Tensor) -> Tensor:
        seen.append(labels_N)
        return forward(self, images, timesteps, labels_N)

    monkeypatch.setattr(Denoiser, "forward", watched)
    train = toy()
    images = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)
    config = DiffusionConfig(batch_size=256, width=4, label_dropout=0.3)
    Diffusion(config).train_one(images, seed=0, device=CPU).step()
    assert float((seen[0] == 2).float().mean()) == pytest.approx(0.3, abs=0.08)


def test_the_average_makes_the_pool_and_none_is_the_weights_themselves() -> None:
    train = toy()
    images = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)

    def weights(ema: float) -> tuple[Tensor, Tensor]:
        training = Diffusion(DiffusionConfig(batch_size=4, width=4, ema=ema)).train_one(images, seed=0, device=CPU)
        for _ in range(3):
            training.step()
        assert isinstance(training, DiffusionTraining)
        own, averaged = training.parts["network"], training.sampler()
        assert isinstance(own, DiffusionNetwork)
        return own.denoiser.unet.conv_in.weight, dict(averaged.named_parameters())["denoiser.unet.conv_in.weight"]

    assert torch.equal(*weights(0.0))
    assert not torch.equal(*weights(0.99))


def test_a_wider_network_learns_at_a_lower_rate() -> None:
    train = toy()
    images = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)
    for width, expected in ((8, 4e-3), (32, 1e-3)):
        config = DiffusionConfig(batch_size=2, width=width, learning_rate=1e-3)
        training = Diffusion(config).train_one(images, seed=0, device=CPU)
        adam = training.parts["adam"]
        assert isinstance(adam, torch.optim.Adam)
        assert adam.param_groups[0]["lr"] == pytest.approx(expected)
        training.step()
        assert adam.param_groups[0]["lr"] < expected / 10


def test_images_of_any_side_are_padded_for_the_network_and_cropped(tmp_path: Path) -> None:
    folder = str(write_ddpm(tmp_path / "ddpm"))
    made = Diffusion(DiffusionConfig(pretrained=folder, sampling_steps=2)).network(36, 2)
    assert made.side == 40
    images_NCHW = torch.arange(36.0).expand(1, 1, 36, 36)
    assert made.padded(images_NCHW)[0, 0, -1, -5:].tolist() == [35.0] * 5
    with torch.no_grad():
        assert made(made.noise(1, rng=rng()), torch.tensor([0])).shape == (1, 1, 36, 36)


def test_grey_is_repeated_and_colours_are_averaged(tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    folder = write_ddpm(tmp_path / "ddpm", learned_variance=True, classes=3)
    made = started(folder)
    unet = UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).eval()
    images_NCHW = torch.randn(2, 1, 32, 32, generator=rng())
    timesteps_N, labels_N = torch.tensor([10, 700]), torch.tensor([0, 2])
    with torch.no_grad():
        whole_NCHW = unet(images_NCHW.repeat(1, 3, 1, 1), timesteps_N, labels_N).sample
        assert whole_NCHW.shape[1] == 6
        expected_NCHW = whole_NCHW[:, :3].mean(dim=1, keepdim=True)
        torch.testing.assert_close(made.denoiser(images_NCHW, timesteps_N, labels_N), expected_NCHW)


def started(folder: Path) -> DiffusionNetwork:
    """A training's network before its first step."""
    train = toy(4)
    images = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)
    training = Diffusion(DiffusionConfig(pretrained=str(folder))).train_one(images, seed=0, device=CPU)
    made = training.sampler()
    assert isinstance(made, DiffusionNetwork)
    return made.eval()


@pytest.mark.parametrize(("classes", "kept"), [(None, 0), (2, 2), (3, 3), (10, 0)])
def test_class_embeddings_are_kept_for_as_many_classes_and_new_otherwise(
    tmp_path: Path, classes: int | None, kept: int
) -> None:
    from diffusers import UNet2DModel

    folder = write_ddpm(tmp_path / "ddpm", classes=classes)
    found_KE = started(folder).denoiser.unet.class_embedding.weight
    assert len(found_KE) == 3
    assert float(found_KE[kept:].detach().abs().sum()) < 0.1 * found_KE.numel()
    if kept:
        unet = UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False)
        assert torch.equal(found_KE[:kept], unet.class_embedding.weight[:kept])


def test_a_checkpoints_own_schedule_applies(tmp_path: Path) -> None:
    folder = write_ddpm(tmp_path / "ddpm")
    file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    changed = {"prediction_type": "v_prediction", "beta_end": 0.01, "clip_sample_range": 0.7}
    file.write_text(json.dumps({**config, **changed}))
    schedule = started(folder).schedule
    assert (schedule.prediction, schedule.clip) == ("v_prediction", 0.7)
    betas_T = torch.linspace(0.0001, 0.01, 1000, dtype=torch.float64)
    torch.testing.assert_close(schedule.alphas_T.double(), (1 - betas_T).cumprod(0), rtol=1e-4, atol=1e-6)


def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = write_ddpm(tmp_path / "ddpm")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load(weights.read_bytes())
    del tensors["conv_in.weight"]
    weights.write_bytes(save(tensors, metadata={"format": "pt"}))
    with pytest.raises(DataError, match=r"lacks 1 weights of its UNet, 'conv_in.weight' the first"):
        started(folder)


@pytest.mark.parametrize("kind", ["pipeline", "unet", "one folder"])
def test_a_checkpoint_is_trained_on_saved_and_sampled(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_ddpm(tmp_path / "ddpm")
    if kind == "unet":
        path = path / "unet"
    if kind == "one folder":
        for part in ("unet", "scheduler"):
            for file in (path / part).iterdir():
                file.rename(path / file.name)
            shutil.rmtree(path / part)
    capfd.readouterr()
    state = torch.get_rng_state()
    fitted = trained(pretrained=str(path))
    again = Diffusion(DiffusionConfig(**{**TINY, "pretrained": str(path)})).load(  # type: ignore[arg-type]
        load(save(fitted.state())), fitted.history, n_classes=2, pixels=32, device=CPU
    )
    images_NCHW = fitted.sample(0, 0, 3, seed=1)
    assert torch.equal(again.sample(0, 0, 3, seed=1), images_NCHW)
    assert float(images_NCHW.abs().max()) <= 1
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_an_adm_file_is_trained_on_and_taken_up_again(tmp_path: Path) -> None:
    write_adm(tmp_path / "adm.pt")
    train = toy(4, pixels=16)
    images = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)
    generator = Diffusion(DiffusionConfig(batch_size=2, sampling_steps=2, pretrained=str(tmp_path / "adm.pt")))
    training = generator.train_one(images, seed=0, device=CPU)
    training.step()
    made = training.sampler().eval()
    with torch.device("meta"):
        again = generator.network(16, 2)
    again.to_empty(device=CPU)
    again.load_state_dict(made.state_dict())
    noise_NM, labels_N = made.noise(2, rng=rng()), torch.tensor([0, 1])
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(noise_NM, labels_N), made(noise_NM, labels_N))
