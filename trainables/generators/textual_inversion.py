"""Textual inversion (Gal et al. 2023): new words for the classes in a frozen latent diffusion pipeline."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spaces.generators import TextualInversionConfig
from trainables import seeding
from trainables.generators.averages import WeightAverage
from trainables.generators.curves import Curves
from trainables.generators.networks.ddim import ddim, guided, noised, schedule_of, target
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.networks.latent_pipeline import LatentPipeline, word_name
from trainables.generators.precision import computing_in
from trainables.generators.pretrained import ensure
from trainables.generators.training import Deck, NetworkGenerator, TrainingImages
from trainables.training.parts import Part

STAGE_VERSION = 3
"""2: the pool is made with the moving average of the words, and as many images at once as fit into memory.

3: noise is sought in each pool, not in images of the default sampling.
"""
PROMPT = "a photo of {words}"
"""Gal et al. 2023, appendix A, the first of the neutral texts."""
SOURCES = 128
"""Training images of each class whose latents are kept to start from, where ``strength`` is below 1."""


class TextualInversion(NetworkGenerator[TextualInversionConfig]):
    """Learns a few words for each class; the pipeline itself never changes."""

    def network(self, pixels: int, n_classes: int) -> InversionNetwork:
        """The network that makes the images. Raises: DataError where ``pretrained`` cannot be used."""
        config = self.config
        pipeline = LatentPipeline(ensure(config.pretrained), words=n_classes * config.tokens_per_class)
        return InversionNetwork(config, pipeline, pixels=pixels, n_classes=n_classes)

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> InversionTraining:
        """The training of the words, before its first step. Raises: DataError."""
        network = self.network(images.pixels, images.n_classes)
        network.fill_rows(rng=seeding.generator(seed, "words"))
        latents_NCHW = network.pipeline.on(device).encode(images.images_NCHW)
        network.fill_sources(latents_NCHW.cpu(), images.labels_N.cpu(), rng=seeding.generator(seed, "sources"))
        network.to(device)
        return InversionTraining(self.config, network, latents_NCHW, images.labels_N, seed=seed)


class InversionNetwork(ImageNetwork):
    """From latent noise to images under the words of a class; only the words are parameters.

    Args:
        config: the settings.
        pipeline: frozen, shared by copies, no part of the state.
        pixels: height and width of the images.
        n_classes: each has ``tokens_per_class`` words.
    """

    replayable = False  # it reads its prompts anew at every call

    def __init__(
        self, config: TextualInversionConfig, pipeline: LatentPipeline, *, pixels: int, n_classes: int
    ) -> None:
        super().__init__()
        words, embedding = config.tokens_per_class, pipeline.own_words_VE.shape[1]
        self.pipeline = pipeline
        self.schedule = schedule_of(pipeline.scheduler, sampling_steps=config.sampling_steps, clips=False)
        self.rows_RE = nn.Parameter(torch.empty(n_classes * words, embedding))
        self.register_buffer("sources_KSM", torch.empty(n_classes, SOURCES, math.prod(pipeline.latent_shape)))
        self._texts = [
            PROMPT.format(words=" ".join(word_name(index * words + word) for word in range(words)))
            for index in range(n_classes)
        ]
        self._config = config
        self._pixels = pixels

    @torch.no_grad()
    def fill_rows(self, *, rng: torch.Generator) -> None:
        """Draw the words like the pipeline's own: normal, with their mean and deviation in each dimension."""
        own_VE = self.pipeline.own_words_VE
        drawn_RE = torch.randn(self.rows_RE.shape, generator=rng)
        self.rows_RE.copy_(own_VE.mean(dim=0) + own_VE.std(dim=0) * drawn_RE)

    @torch.no_grad()
    def fill_sources(self, latents_NCHW: Tensor, labels_N: Tensor, *, rng: torch.Generator) -> None:
        """Keep ``SOURCES`` latents of each class, drawn anew once all were; nothing where a class has none."""
        sources_KSM = self.get_buffer("sources_KSM").zero_()
        for index in range(len(sources_KSM)):
            of_class_M = (labels_N == index).nonzero()[:, 0]
            if len(of_class_M):
                positions_S = Deck(len(of_class_M), rng=rng).deal(SOURCES)
                sources_KSM[index] = latents_NCHW[of_class_M[positions_S]].flatten(1)

    def noise(self, count: int, *, rng: torch.Generator) -> Tensor:
        """Latent noise, and where among the sources to start from, U[0, 1): float32 (count, c h w + 1)."""
        size = self.get_buffer("sources_KSM").shape[-1]
        rows = [torch.cat([torch.randn(size, generator=rng), torch.rand(1, generator=rng)]) for _ in range(count)]
        return torch.stack(rows)

    def forward(self, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        """Images float32 (N, 1, P, P) in [-1, 1] of rows of ``noise`` and int64 labels (N,)."""
        pipeline = self.pipeline.on(self.rows_RE.device)
        none_1LE = pipeline.read([""], self.rows_RE)
        read_KLE = pipeline.read(self._texts, self.rows_RE)
        chunks = zip(torch.split(noise_NM, pipeline.batch), torch.split(labels_N, pipeline.batch), strict=True)
        return torch.cat([self._images(*chunk, read_KLE, none_1LE) for chunk in chunks]).clamp(-1, 1)

    def _images(self, noise_NM: Tensor, labels_N: Tensor, read_KLE: Tensor, none_1LE: Tensor) -> Tensor:
        read_NLE, none_NLE = read_KLE[labels_N], none_1LE.expand(len(labels_N), -1, -1)

        def predict(latents_NCHW: Tensor, timestep: int) -> Tensor:
            return self.predict(latents_NCHW, torch.full_like(labels_N, timestep), read_NLE, none_NLE)

        latents_NCHW = noise_NM[:, :-1].reshape(-1, *self.pipeline.latent_shape)
        skipped = skipped_steps(self._config.strength, self._config.sampling_steps)
        if skipped:
            source_N = (noise_NM[:, -1] * SOURCES).long().clamp(max=SOURCES - 1)
            alpha = self.schedule.alpha(self.schedule.timesteps[skipped])
            source_NCHW = self.get_buffer("sources_KSM")[labels_N, source_N].reshape(latents_NCHW.shape)
            latents_NCHW = noised(source_NCHW, latents_NCHW, noise_NM.new_full((len(labels_N),), alpha))
        latents_NCHW = ddim(predict, latents_NCHW, self.schedule, skipped=skipped)
        return self.pipeline.decode(latents_NCHW, self._pixels)

    def predict(self, latents_NCHW: Tensor, timesteps_N: Tensor, read_NLE: Tensor, none_NLE: Tensor) -> Tensor:
        """The guided prediction; with and without the words in one batch of twice the size."""
        if self._config.guidance == 1:
            return self.pipeline.predict(latents_NCHW, timesteps_N, read_NLE)
        both_NCHW = self.pipeline.predict(
            latents_NCHW.repeat(2, 1, 1, 1), timesteps_N.repeat(2), torch.cat([read_NLE, none_NLE])
        )
        conditional_NCHW, unconditional_NCHW = both_NCHW.chunk(2)
        return guided(unconditional_NCHW, conditional_NCHW, self._config.guidance)

    def reading(self, labels_N: Tensor) -> Tensor:
        """What the denoiser reads for images of these classes, (N, L, E)."""
        return self.pipeline.read(self._texts, self.rows_RE)[labels_N]


def skipped_steps(strength: float, sampling_steps: int) -> int:
    """How many of the noisiest sampling steps are left out; at least one step remains.

    Source: Meng et al. 2022 (SDEdit), section 3: ``strength`` is their t_0.
    """
    return min(round((1 - strength) * sampling_steps), sampling_steps - 1)


class InversionTraining:
    """The words learn to make the frozen pipeline take noise off their class's images; a ``NetworkTraining``."""

    def __init__(
        self,
        config: TextualInversionConfig,
        network: InversionNetwork,
        latents_NCHW: Tensor,
        labels_N: Tensor,
        *,
        seed: int,
    ) -> None:
        self._config = config
        self._network = network
        self._latents_NCHW = latents_NCHW
        self._labels_N = labels_N
        self._adam = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        self._words = nn.ParameterList([network.rows_RE])
        self._average = WeightAverage(self._words, decay=config.ema)
        self._deck = Deck(len(labels_N), rng=seeding.generator(seed, "batches"))
        self._rng = seeding.generator(seed, "noise")
        self.curves = Curves("loss")

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that changes from step to step."""
        return {
            "network": self._network,
            "adam": self._adam,
            "average": self._average,
            "deck": self._deck,
            "rng": self._rng,
        }

    def step(self) -> None:
        """One step of the words down the denoiser's error. Source: Gal et al. 2023, equation 2."""
        network, alphas_T = self._network, self._network.schedule.alphas_T
        positions_N = self._deck.deal(self._config.batch_size).to(self._labels_N.device)
        clean_NCHW, labels_N = self._latents_NCHW[positions_N], self._labels_N[positions_N]
        timesteps_N = torch.randint(len(alphas_T), (len(labels_N),), generator=self._rng)
        noise_NCHW = torch.randn(clean_NCHW.shape, generator=self._rng).to(clean_NCHW.device)
        alphas_N = alphas_T[timesteps_N].to(clean_NCHW.device)
        self._adam.zero_grad()
        with computing_in(self._config.precision, clean_NCHW.device):
            predicted_NCHW = network.pipeline.predict(
                noised(clean_NCHW, noise_NCHW, alphas_N), timesteps_N.to(clean_NCHW.device), network.reading(labels_N)
            ).float()
        wanted_NCHW = target(clean_NCHW, noise_NCHW, alphas_N, network.schedule.prediction)
        loss = (predicted_NCHW - wanted_NCHW).square().mean()
        torch.autograd.backward(loss)
        self._adam.step()
        self._average.update(self._words)
        self.curves.record(loss)

    @torch.no_grad()
    def sampler(self) -> ImageNetwork:
        """A copy with the words' average, over the same pipeline."""
        network = copy.deepcopy(self._network)
        network.rows_RE.copy_(self._average.network[0])
        return network
