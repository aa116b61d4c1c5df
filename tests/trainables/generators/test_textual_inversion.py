"""Textual inversion on tiny pipelines, through the code path of a user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from spaces.generators import TextualInversionConfig
from tests.trainables.generators.tiny_pipelines import write_latent_diffusion, write_stable_diffusion
from tests.trainables.generators.whole_trainings import fit
from trainables.data.image_set import ImageSet
from trainables.errors import DataError
from trainables.generators.networks.ddim import noised
from trainables.generators.networks.latent_pipeline import ExtendedWords, LatentPipeline
from trainables.generators.textual_inversion import (
    SOURCES,
    InversionNetwork,
    InversionTraining,
    TextualInversion,
    skipped_steps,
)
from trainables.generators.training import Deck, TrainingImages
from trainables.training.parts import pack, unpack

CPU = torch.device("cpu")
TINY = {"steps": 2, "batch_size": 2, "sampling_steps": 2, "guidance": 2.0, "tokens_per_class": 2}
WRITERS = {"stable": write_stable_diffusion, "latent": write_latent_diffusion}


@pytest.fixture(scope="module", params=list(WRITERS))
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("pipelines") / "tiny")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(folder: Path, **settings: Any) -> TextualInversionConfig:
    return TextualInversionConfig(pretrained=str(folder), **{**TINY, **settings})


def toy(count: int = 6) -> ImageSet:
    labels_N = torch.arange(count) % 2
    images_NCHW = 1.2 * labels_N[:, None, None, None] - 0.6 + 0.2 * torch.randn(count, 1, 32, 32, generator=rng())
    names = tuple(f"image{index}" for index in range(count))
    return ImageSet(
        images_NCHW=images_NCHW.clamp(-1, 1), labels_N=labels_N, ids=names, patients=names, classes=("dark", "bright")
    )


def begun(folder: Path, **settings: Any) -> InversionTraining:
    train = toy()
    images = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=2)
    return TextualInversion(config(folder, **settings)).train_one(images, seed=0, device=CPU)


def network_of(training: InversionTraining) -> InversionNetwork:
    network = training.parts["network"]
    assert isinstance(network, InversionNetwork)
    return network


def frozen_tensors(pipeline: LatentPipeline) -> dict[str, Tensor]:
    models: dict[str, nn.Module] = {"text": pipeline.text, "vae": pipeline.vae, "unet": pipeline.unet}
    return {f"{part}.{name}": value for part, model in models.items() for name, value in model.state_dict().items()}


def test_only_the_new_words_are_learnt_and_all_else_keeps_its_bytes(pipeline: Path) -> None:
    training = begun(pipeline)
    network = network_of(training)
    frozen = frozen_tensors(network.pipeline)
    before = {name: value.clone() for name, value in frozen.items()}
    words_RE = network.rows_RE.detach().clone()
    for _ in range(2):
        training.step()
    assert len(before) > 50
    assert all(torch.equal(frozen[name], before[name]) for name in before)
    for model in (network.pipeline.text, network.pipeline.vae, network.pipeline.unet):
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert [name for name, _ in network.named_parameters()] == ["rows_RE"]
    assert bool((network.rows_RE != words_RE).any(dim=1).all())


def test_words_of_absent_classes_are_left_alone(pipeline: Path) -> None:
    train = toy()
    dark = TrainingImages(images_NCHW=train.images_NCHW, labels_N=torch.zeros_like(train.labels_N), n_classes=2)
    training = TextualInversion(config(pipeline)).train_one(dark, seed=0, device=CPU)
    before = network_of(training).rows_RE.detach().clone()
    training.step()
    changed = (network_of(training).rows_RE != before).any(dim=1)
    assert changed.tolist() == [True, True, False, False]


def test_the_words_learn_to_lower_the_denoisers_error(pipeline: Path) -> None:
    training = begun(pipeline, learning_rate=0.05)
    draws = pack({"rng": training.parts["rng"], "deck": training.parts["deck"]})
    for _ in range(20):
        unpack({"rng": training.parts["rng"], "deck": training.parts["deck"]}, draws)
        training.step()
    losses = training.curves.lists()["loss"]
    assert isinstance(losses[0], float)
    assert isinstance(losses[-1], float)
    assert losses[-1] < losses[0] - 1e-4


@pytest.mark.parametrize(("side", "images"), [(512, 4), (256, 16), (2048, 1)])
def test_so_many_images_are_made_at_once_as_fit_into_memory(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, side: int, images: int
) -> None:
    monkeypatch.setattr(LatentPipeline, "side", side)
    assert LatentPipeline(pipeline, words=1).batch == images


def test_images_made_at_once_are_those_made_one_by_one(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(begun(pipeline, sampling_steps=3)).eval()
    noise_NM, labels_N = network.noise(5, rng=rng(4)), torch.tensor([0, 1, 0, 1, 1])
    with torch.no_grad():
        together_NCHW = network(noise_NM, labels_N)
        monkeypatch.setattr(LatentPipeline, "batch", 1)
        torch.testing.assert_close(network(noise_NM, labels_N), together_NCHW, rtol=1e-4, atol=1e-5)


def test_images_are_made_with_the_average_of_the_words(pipeline: Path) -> None:
    training = begun(pipeline, learning_rate=0.05, ema=0.15)
    average_RE = network_of(training).rows_RE.detach().clone()
    for decay in (1 / 10, 0.15, 0.15):
        training.step()
        average_RE = decay * average_RE + (1 - decay) * network_of(training).rows_RE.detach()
    sampler = training.sampler()
    assert isinstance(sampler, InversionNetwork)
    torch.testing.assert_close(sampler.rows_RE.detach(), average_RE)
    assert float((average_RE - network_of(training).rows_RE.detach()).abs().max()) > 1e-3


def test_a_text_is_read_as_by_a_model_whose_embedding_was_resized(pipeline: Path) -> None:
    made = LatentPipeline(pipeline, words=3)
    rows_RE = torch.randn(3, 16, generator=rng())
    with torch.no_grad():
        found_NLE = made.read(["a photo of <genmix1> <genmix2>", ""], rows_RE)
        own = made.text.get_input_embeddings()
        assert isinstance(own, ExtendedWords)
        whole = nn.Embedding.from_pretrained(torch.cat([own.own.weight, rows_RE]))
        made.text.set_input_embeddings(whole)
        ids = made.tokenizer(
            ["a photo of <genmix1> <genmix2>", ""], padding="max_length", max_length=20, return_tensors="pt"
        ).input_ids
        assert {len(whole.weight) - 2, len(whole.weight) - 1} < set(ids[0].tolist())
        expected_NLE = made.text(input_ids=ids, return_dict=True)[0]
    torch.testing.assert_close(found_NLE, expected_NLE)


def test_the_denoisers_error_is_what_is_learnt_from(pipeline: Path) -> None:
    training = begun(pipeline)
    network = network_of(training)
    draws = pack({"rng": training.parts["rng"], "deck": training.parts["deck"]})
    deck, again = Deck(6, rng=torch.Generator()), torch.Generator()
    unpack({"deck": deck, "rng": again}, draws)
    positions_N, train = deck.deal(2), toy()
    with torch.no_grad():
        latents_NCHW = network.pipeline.encode(train.images_NCHW)[positions_N]
        timesteps_N = torch.randint(1000, (2,), generator=again)
        noise_NCHW = torch.randn(latents_NCHW.shape, generator=again)
        mixed_NCHW = noised(latents_NCHW, noise_NCHW, network.schedule.alphas_T[timesteps_N])
        read_NLE = network.reading(train.labels_N[positions_N])
        predicted_NCHW = network.pipeline.unet(mixed_NCHW, timesteps_N, encoder_hidden_states=read_NLE).sample
        expected = float((predicted_NCHW - noise_NCHW).square().mean())
    training.step()
    assert training.curves.lists()["loss"] == [pytest.approx(expected, rel=1e-4)]


def test_guidance_in_one_batch_equals_two_separate_passes(pipeline: Path) -> None:
    network = network_of(begun(pipeline, guidance=3.0))
    latents_NCHW = torch.randn(2, *network.pipeline.latent_shape, generator=rng())
    timesteps_N, labels_N = torch.tensor([10, 900]), torch.tensor([0, 1])
    with torch.no_grad():
        read_NLE = network.reading(labels_N)
        none_NLE = network.pipeline.read(["", ""], network.rows_RE)
        with_NCHW = network.pipeline.predict(latents_NCHW, timesteps_N, read_NLE)
        without_NCHW = network.pipeline.predict(latents_NCHW, timesteps_N, none_NLE)
        found_NCHW = network.predict(latents_NCHW, timesteps_N, read_NLE, none_NLE)
    assert float((with_NCHW - without_NCHW).abs().max()) > 1e-4
    torch.testing.assert_close(found_NCHW, without_NCHW + 3 * (with_NCHW - without_NCHW), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("strength", "skipped"), [(1.0, 0), (0.6, 4), (0.25, 8), (0.001, 9)])
def test_strength_is_the_share_of_the_steps_that_are_taken(strength: float, skipped: int) -> None:
    assert skipped_steps(strength, 10) == skipped


def test_the_less_strength_the_nearer_to_the_encoded_training_image(pipeline: Path) -> None:
    distances = []
    for strength in (0.02, 1.0):
        network = network_of(begun(pipeline, strength=strength, sampling_steps=50, guidance=1.0)).eval()
        noise_NM = network.noise(4, rng=rng(4))
        labels_N = torch.tensor([0, 1, 0, 1])
        with torch.no_grad():
            images_NCHW = network(noise_NM, labels_N)
            chosen_NM = network.get_buffer("sources_KSM")[labels_N, (noise_NM[:, -1] * SOURCES).long()]
            latents_NCHW = chosen_NM.reshape(4, *network.pipeline.latent_shape)
            sources_NCHW = network.pipeline.decode(latents_NCHW, 32).clamp(-1, 1)
        distances.append(float((images_NCHW - sources_NCHW).square().mean()))
    assert distances[0] < 0.8 * distances[1]


def test_sources_are_of_their_class_each_before_any_twice(pipeline: Path) -> None:
    network = network_of(begun(pipeline))
    latents_NM = network.pipeline.encode(toy().images_NCHW).flatten(1)
    for label in (0, 1):
        distinct_NM = network.get_buffer("sources_KSM")[label].unique(dim=0)
        assert len(distinct_NM) == 3
        of_class_NM = latents_NM[toy().labels_N == label]
        assert float(torch.cdist(distinct_NM, of_class_NM).min(dim=1).values.max()) < 1e-4


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_it_is_trained_saved_and_loaded_quietly_without_the_pipeline(
    pipeline: Path, strength: float, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    state = torch.get_rng_state()
    settings = config(pipeline, strength=strength)
    fitted = fit(TextualInversion(settings), 2, toy(), seed=1, device=CPU, on_step=lambda done, total: None)
    kept = load(save(fitted.state()))
    assert set(kept) == {"seen_K", "conditional.rows_RE", "conditional.sources_KSM"}
    again = TextualInversion(settings).load(kept, fitted.history, n_classes=2, pixels=32, device=CPU)
    images_NCHW = fitted.sample(1, 0, 3, seed=1)
    assert torch.equal(again.sample(1, 0, 3, seed=1), images_NCHW)
    assert images_NCHW.shape == (3, 1, 32, 32)
    assert float(images_NCHW.abs().max()) <= 1
    assert not torch.equal(fitted.sample(0, 0, 3, seed=1), images_NCHW)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_a_training_goes_on_from_its_state_to_the_byte(pipeline: Path) -> None:
    generator = TextualInversion(config(pipeline))
    undisturbed, killed = (generator.begin(toy(), seed=1, device=CPU) for _ in range(2))
    for _ in range(3):
        undisturbed.step()
    killed.step()
    resumed = generator.begin(toy(), seed=1, device=CPU)
    resumed.restore(load(save(killed.state())))
    for _ in range(2):
        resumed.step()
    expected, found = undisturbed.state(), resumed.state()
    assert set(expected) == set(found)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_more_words_than_the_text_encoder_takes_are_refused(pipeline: Path) -> None:
    with pytest.raises(DataError, match=r"expected at most the 20 of the pipeline's text encoder. Lower generator"):
        begun(pipeline, tokens_per_class=16).step()


def test_another_text_encoder_or_lost_weights_are_refused(tmp_path: Path) -> None:
    folder = write_stable_diffusion(tmp_path / "tiny")
    file = folder / "text_encoder" / "config.json"
    original = file.read_text()
    file.write_text(json.dumps({**json.loads(original), "architectures": ["T5EncoderModel"]}))
    with pytest.raises(DataError, match="is a T5EncoderModel; expected CLIPTextModel or LDMBertModel"):
        LatentPipeline(folder, words=1)
    file.write_text(original)
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = load(weights.read_bytes())
    name = next(each for each in tensors if each.endswith("final_layer_norm.weight"))
    del tensors[name]
    weights.write_bytes(save(tensors, metadata={"format": "pt"}))
    with pytest.raises(DataError, match=r"lacks 1 weights, '.*final_layer_norm.weight' the first"):
        LatentPipeline(folder, words=1)
