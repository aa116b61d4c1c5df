"""Evolutionary GAN (Wang et al. 2019): three losses compete for every generator step, conditional or one per class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from spaces.generators import EganConfig
from trainables import seeding
from trainables.generators.adversary import BETAS, AdversarialGenerator, Augmentation, adversary, frozen
from trainables.generators.curves import Curves
from trainables.generators.evolution import (
    MUTATIONS,
    Judgement,
    adversarial_judgement,
    discriminator_loss,
    fittest,
    mutation_gradients,
    real_part,
)
from trainables.generators.networks.dcgan import DcganDiscriminator
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.networks.spectral import follow
from trainables.generators.population import Population, Rows, images_of
from trainables.generators.precision import computing_in
from trainables.generators.training import Deck, TrainingImages
from trainables.training.adam import adam
from trainables.training.graphs import Drawn, Graphs
from trainables.training.parts import Part, named, under

STAGE_VERSION = 4
"""4: spectral norm follows a discriminator whose only step is handed on."""

Judge: TypeAlias = Callable[[Tensor], Judgement]
"""How good a child's images are."""


class Egan(AdversarialGenerator[EganConfig]):
    """Discriminator steps, then every survivor mutates three ways and the fittest children survive."""

    def discriminator(self, pixels: int, n_classes: int) -> nn.Module:
        """The discriminator; no layer of it may let one image's logit depend on another image."""
        return DcganDiscriminator(pixels=pixels, width=self.config.width, n_classes=n_classes, batch_norm=False)

    def filled_discriminator(self, images: TrainingImages, *, seed: int, device: torch.device) -> nn.Module:
        """The discriminator before its first step."""
        return adversary(
            lambda: self.discriminator(images.pixels, images.n_classes),
            self.config,
            keep_scale=True,
            seed=seed,
            device=device,
        )

    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> EganTraining:
        """The training of one population, before its first generation."""
        return EganTraining(self, images, seed=seed, device=device)


class EganTraining:
    """A population against one discriminator; a ``NetworkTraining``.

    Its curves have one entry per generation: ``discriminator_loss``; ``selected``, per survivor the index of its
    mutation in the order of ``evolution.MUTATIONS``, fittest first; and per parent ``loss/NAME``, ``quality/NAME``
    (F_q) and ``diversity/NAME`` (F_d) of the child of each mutation.
    """

    def __init__(self, owner: Egan, images: TrainingImages, *, seed: int, device: torch.device) -> None:
        config = owner.config
        self._config = config
        self._images = images
        networks = [
            owner.filled_network(images, rng=seeding.generator(seed, f"generator{index}"), device=device)
            for index in range(config.survivors)
        ]
        self._network = networks[0]
        self.population = Population(
            networks, children_each=len(MUTATIONS), rate=config.learning_rate, betas=BETAS, ema=config.ema
        )
        self._discriminator = owner.filled_discriminator(images, seed=seed, device=device)
        self._weights = tuple(self._discriminator.parameters())
        self._adam = adam(self._weights, rate=config.learning_rate, betas=BETAS)
        self._augment = Augmentation(
            config.augmentation, pixels=images.pixels, rng=seeding.generator(seed, "augmentation")
        )
        self._deck = Deck(len(images), rng=seeding.generator(seed, "batches"))
        self._noise_rng = seeding.generator(seed, "latents")
        self._evaluation_rng = seeding.generator(seed, "evaluation")
        self._graphs = Graphs(device)
        self._handed_on = HandedOn(self._weights) if config.reuse_gradient else None
        measured = [f"{quantity}/{name}" for quantity in ("loss", "quality", "diversity") for name in MUTATIONS]
        self.curves = Curves("discriminator_loss", "selected", *measured)

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that changes from generation to generation."""
        parts: dict[str, Part] = {
            "population": self.population,
            "discriminator": self._discriminator,
            "adam": self._adam,
            "augmentation": self._augment.rng,
            "deck": self._deck,
            "noise": self._noise_rng,
            "evaluation": self._evaluation_rng,
        }
        return parts if self._handed_on is None else {**parts, "handed_on": self._handed_on}

    def step(self) -> None:
        """Train the discriminator, mutate every survivor, keep the fittest children."""
        chosen_S, discriminator_loss, measured_3SM = self._graphs.run(self._generation, self._draw())
        self.population.follow(chosen_S)
        if self._handed_on is not None:
            self._handed_on.given = True
        by_name = measured_3SM.transpose(1, 2).flatten(0, 1)
        self.curves.record(discriminator_loss, chosen_S % len(MUTATIONS), *by_name)

    def sampler(self) -> ImageNetwork:
        """A copy of the fittest of the last generation."""
        network = copy.deepcopy(self._network)
        self.population.embody(network)
        return network

    def _draw(self) -> Drawn:
        """All that is random in the next generation."""
        drawn: dict[str, Tensor] = {}
        for index in self._discriminator_steps:
            drawn |= named(f"discriminator{index}", self._draw_discriminator())
        for index in range(self._config.survivors):
            drawn |= named(f"mutation{index}", self._draw_mutation())
        return drawn | named("evaluation", self._draw_evaluation())

    @property
    def _discriminator_steps(self) -> range:
        """Those that need images of their own: all, or all but the first where that takes a gradient it was given."""
        given = self._handed_on is not None and self._handed_on.given
        return range(int(given), self._config.discriminator_steps)

    def _draw_discriminator(self) -> Drawn:
        size = self._config.batch_size
        return {
            "positions_N": self._deck.deal(size),
            "noise_NM": self._network.noise(size, rng=self._noise_rng),
            **self._draw_contest(size),
        }

    def _draw_contest(self, size: int) -> Drawn:
        """What real and generated images go through before the discriminator learns from them."""
        return named("real", self._augment.draw(size)) | named("fake", self._augment.draw(size))

    def _draw_mutation(self) -> Drawn:
        size = self._config.batch_size
        return {
            "positions_N": torch.randint(len(self._images), (size,), generator=self._noise_rng),
            "noise_NM": self._network.noise(size, rng=self._noise_rng),
            **self._augment.draw(size),
        }

    def _draw_evaluation(self) -> Drawn:
        positions_M = torch.randperm(len(self._images), generator=self._evaluation_rng)[: self._config.evaluation_batch]
        return {
            "positions_N": positions_M,
            "noise_NM": self._network.noise(len(positions_M), rng=self._evaluation_rng),
            **self._augment.draw(len(positions_M)),
        }

    def _generation(self, drawn: Drawn) -> tuple[Tensor, ...]:
        """One generation.

        Returns:
            The chosen children (S,), the mean discriminator loss, and loss, quality and diversity (3, S, M) of the
            children by parent and mutation.
        """
        steps = range(self._config.discriminator_steps)
        discriminator_losses = [self._train_discriminator(under(f"discriminator{index}", drawn)) for index in steps]
        with frozen(self._discriminator):
            losses = [self._mutate(index, under(f"mutation{index}", drawn)) for index in range(self._config.survivors)]
            self.population.breed()
            judgements = self._evaluate(under("evaluation", drawn))
        quality_C, diversity_C = (
            torch.stack([getattr(each, name) for each in judgements]) for name in ("quality", "diversity")
        )
        chosen_S = fittest(quality_C + self._config.gamma * diversity_C, self._config.survivors)
        self.population.select(chosen_S)
        if self._handed_on is not None:
            self._handed_on.keep(judgements, chosen_S[0])
        measured_3SM = torch.stack([torch.cat(losses), quality_C, diversity_C]).view(3, -1, len(MUTATIONS))
        return chosen_S, torch.stack(discriminator_losses).mean(), measured_3SM

    def _train_discriminator(self, drawn: Drawn) -> Tensor:
        """One step, on real images and on fresh generated ones, split evenly over the survivors, or as it was given."""
        if self._handed_on is not None and not drawn:
            for weight, gradient in zip(self._weights, self._handed_on.gradients, strict=True):
                weight.grad = gradient
            self._adam.step()
            follow(self._discriminator)
            return self._handed_on.loss.clone()
        real_NCHW, labels_N = self._images.at(drawn["positions_N"])
        count = self._config.survivors
        shares = zip(
            self.population.survivors.parameters.views,
            self.population.survivors.buffers.views,
            drawn["noise_NM"].tensor_split(count),
            labels_N.tensor_split(count),
            strict=True,
        )
        with torch.no_grad():
            fake_NCHW = torch.cat([self._images_of(*share) for share in shares if len(share[-1])])
        loss = self._discriminator_loss(real_NCHW, fake_NCHW, labels_N, drawn)
        self._adam.zero_grad()
        # unlike autograd.grad, this lays gradients out like their weights, as a fused optimiser needs them
        torch.autograd.backward(loss, inputs=list(self._weights))
        self._adam.step()
        return loss.detach()

    def _discriminator_loss(self, real_NCHW: Tensor, fake_NCHW: Tensor, labels_N: Tensor, drawn: Drawn) -> Tensor:
        """What the discriminator learns to make small."""
        return discriminator_loss(
            self._logits(self._augment.apply(real_NCHW, under("real", drawn)), labels_N),
            self._logits(self._augment.apply(fake_NCHW, under("fake", drawn)), labels_N),
        )

    def _mutate(self, survivor: int, drawn: Drawn) -> Tensor:
        """Leave the gradients of its children in the population; returns the losses (M,); all share noise and draws."""
        leaves = self.population.leaves[survivor]
        _, labels_N = self._images.at(drawn["positions_N"])
        samples_NCHW = self._images_of(
            leaves, self.population.survivors.buffers.views[survivor], drawn["noise_NM"], labels_N
        )
        gradients, logits_N = mutation_gradients(
            samples_NCHW,
            leaves,
            lambda images_NCHW: self._logits(self._augment.apply(images_NCHW, drawn), labels_N),
        )
        own = self.population.gradients.views[len(MUTATIONS) * survivor :]
        for places, found in zip(own, gradients, strict=False):
            torch._foreach_copy_(list(places), list(found))
        return torch.stack([loss(logits_N) for loss in MUTATIONS.values()])

    def _evaluate(self, drawn: Drawn) -> list[Judgement]:
        """How good each child is, on one real and one noise batch for all of them."""
        real_NCHW, labels_N = self._images.at(drawn["positions_N"])
        judge = self._judge(real_NCHW, labels_N, drawn)
        children = self.population.children
        found = []
        for parameters, buffers in zip(children.parameters.views, children.buffers.views, strict=True):
            with torch.no_grad():
                fake_NCHW = self._images_of(parameters, buffers, drawn["noise_NM"], labels_N)
            found.append(judge(fake_NCHW))
        return found

    def _judge(self, real_NCHW: Tensor, labels_N: Tensor, drawn: Drawn) -> Judge:
        """How children are judged beside a batch of real images, of the same labels as theirs."""
        shared = real_part(self._logits(self._augment.apply(real_NCHW, drawn), labels_N), self._weights)

        def judge(fake_NCHW: Tensor) -> Judgement:
            fake_logits_N = self._logits(self._augment.apply(fake_NCHW, drawn), labels_N)
            return adversarial_judgement(fake_logits_N, self._weights, shared)

        return judge

    def _images_of(
        self, parameters: Sequence[Tensor], buffers: Sequence[Tensor], noise_NM: Tensor, labels_N: Tensor
    ) -> Tensor:
        with computing_in(self._config.precision, noise_NM.device):
            return images_of(self._network, parameters, buffers, noise_NM, labels_N).float()

    def _logits(self, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        with computing_in(self._config.precision, images_NCHW.device):
            logits_N: Tensor = self._discriminator(images_NCHW, labels_N)
        return logits_N.float()


class HandedOn:
    """What the discriminator's next step takes over from the evaluation of the fittest child: gradient and loss.

    Args:
        weights: of the discriminator.
    """

    def __init__(self, weights: tuple[Tensor, ...]) -> None:
        self.given = False
        """Whether there was an evaluation yet."""
        self.loss = torch.zeros((), device=weights[0].device)
        self._rows = Rows([each.detach() for each in weights], 1)

    @property
    def gradients(self) -> tuple[Tensor, ...]:
        """One per weight."""
        return self._rows.views[0]

    def keep(self, judgements: Sequence[Judgement], chosen: Tensor) -> None:
        """Take over from the judgement of position ``chosen``."""
        for place, candidates in zip(
            self.gradients, zip(*(each.gradients for each in judgements), strict=True), strict=True
        ):
            place.copy_(torch.stack(candidates).index_select(0, chosen[None])[0])
        self.loss.copy_(torch.stack([each.loss for each in judgements]).index_select(0, chosen[None])[0])

    def state(self) -> dict[str, Tensor]:
        """All that it holds."""
        return {"given": torch.tensor(self.given), "loss": self.loss, "gradients": self._rows.block_ID}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self.given = bool(state["given"])
        self.loss.copy_(state["loss"])
        self._rows.block_ID.copy_(state["gradients"])
