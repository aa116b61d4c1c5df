"""E-GAN's own claim on toys: evolution covers more modes of 8 and 25 Gaussians than any single mutation.

Run:
    python -m tests.benchmarks.toys [--small] [--json FILE]

Small fully connected networks, one discriminator step per generation, gamma 2 (the published value for toys). A mode
is covered where at least a tenth of its fair share of 10,000 samples lies within three of its standard deviations.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from trainables.generators.adam import Moments, adam_step, no_moments
from trainables.generators.evolution import (
    MUTATIONS,
    discriminator_loss,
    fitness,
    fittest,
    mutation_gradients,
    real_gradients,
)
from trainables.seeding import generator

LATENT, HIDDEN, BATCH, EVALUATION = 2, 128, 64, 256
RATE, BETAS, GAMMA = 1e-3, (0.5, 0.999), 2.0
SAMPLES = 10_000
TOYS = {
    "8 Gaussians": (torch.view_as_real(2 * torch.exp(2j * torch.pi * torch.arange(8) / 8)), 0.02),
    "25 Gaussians": (2.0 * torch.cartesian_prod(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0)), 0.05),
}
METHODS = {"e-gan": tuple(range(len(MUTATIONS)))} | {name: (index,) for index, name in enumerate(MUTATIONS)}

Weights = tuple[Tensor, ...]


def weights(sizes: Sequence[int], rng: torch.Generator) -> Weights:
    """Matrices and biases of a fully connected network (He et al. 2015)."""
    made: list[Tensor] = []
    for fan_in, fan_out in pairwise(sizes):
        made += [torch.randn(fan_out, fan_in, generator=rng) * (2 / fan_in) ** 0.5, torch.zeros(fan_out)]
    return tuple(made)


def forward(network: Weights, values_NF: Tensor) -> Tensor:
    """Fully connected layers with ReLU between them."""
    for layer in range(0, len(network) - 2, 2):
        values_NF = torch.relu(functional.linear(values_NF, network[layer], network[layer + 1]))
    return functional.linear(values_NF, network[-2], network[-1])


def logits(network: Weights, samples_N2: Tensor) -> Tensor:
    """The discriminator's logits (N,)."""
    return forward(network, samples_N2 / 2)[:, 0]


def leaves(network: Weights) -> Weights:
    """The same weights, ready for gradients."""
    return tuple(each.detach().requires_grad_() for each in network)


def draw(toy: str, count: int, rng: torch.Generator) -> Tensor:
    """Samples (N, 2) of a toy distribution."""
    centres_K2, std = TOYS[toy]
    chosen_N = torch.randint(len(centres_K2), (count,), generator=rng)
    return centres_K2[chosen_N] + std * torch.randn(count, 2, generator=rng)


def covered(toy: str, samples_N2: Tensor) -> int:
    """Number of modes that the samples cover."""
    centres_K2, std = TOYS[toy]
    nearest_N, mode_N = torch.cdist(samples_N2, centres_K2).min(dim=1)
    hits_K = torch.bincount(mode_N[nearest_N <= 3 * std], minlength=len(centres_K2))
    return int((hits_K >= 0.1 * len(samples_N2) / len(centres_K2)).sum())


def train(toy: str, allowed: Sequence[int], *, steps: int, seed: int) -> Weights:
    """A generator trained with the allowed mutations; the fittest child survives where there are several."""
    rng = generator(seed, "toy")
    child: tuple[Weights, Moments]
    discriminator = weights((2, HIDDEN, HIDDEN, 1), rng)
    memory = no_moments(discriminator)
    parent = weights((LATENT, HIDDEN, HIDDEN, 2), rng)
    child = parent, no_moments(parent)
    for _ in range(steps):
        judge = leaves(discriminator)
        with torch.no_grad():
            fake_N2 = forward(child[0], torch.randn(BATCH, LATENT, generator=rng))
        loss = discriminator_loss(logits(judge, draw(toy, BATCH, rng)), logits(judge, fake_N2))
        gradients = torch.autograd.grad(loss, judge)
        discriminator, memory = adam_step(judge, gradients, memory, learning_rate=RATE, betas=BETAS)
        discriminator = tuple(each.detach() for each in discriminator)
        child = _evolve(child, discriminator, allowed, draw(toy, EVALUATION, rng), rng)
    return child[0]


def _evolve(
    parent: tuple[Weights, Moments],
    discriminator: Weights,
    allowed: Sequence[int],
    real_N2: Tensor,
    rng: torch.Generator,
) -> tuple[Weights, Moments]:
    """The fittest child of one parent."""
    start = leaves(parent[0])
    samples_N2 = forward(start, torch.randn(BATCH, LATENT, generator=rng))
    gradients, _ = mutation_gradients(samples_N2, start, lambda samples: logits(discriminator, samples))
    children = [adam_step(parent[0], gradients[each], parent[1], learning_rate=RATE, betas=BETAS) for each in allowed]
    latents_NL = torch.randn(EVALUATION, LATENT, generator=rng)
    if len(children) == 1:
        return children[0]
    judge = leaves(discriminator)
    shared = real_gradients(logits(judge, real_N2), judge)
    scores = []
    for network, _ in children:
        quality, diversity = fitness(logits(judge, forward(network, latents_NL)), judge, shared)
        scores.append(float(quality + GAMMA * diversity))
    return children[fittest(scores, 1)[0]]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="2,000 generations instead of 10,000")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    steps = 2_000 if options.small else 10_000
    rows = []
    print(f"modes covered after {steps} generations, mean over {options.seeds} seeds (each seed)")
    for toy, (centres_K2, _) in TOYS.items():
        for method, allowed in METHODS.items():
            start = time.process_time()
            found = []
            for seed in range(options.seeds):
                trained = train(toy, allowed, steps=steps, seed=seed)
                latents_NL = torch.randn(SAMPLES, LATENT, generator=generator(seed, "test"))
                found.append(covered(toy, forward(trained, latents_NL)))
            seconds = (time.process_time() - start) / options.seeds
            rows.append({"toy": toy, "method": method, "covered": found, "of": len(centres_K2), "seconds": seconds})
            print(
                f"{toy:>13}  {method:>13}  {sum(found) / len(found):5.1f} of {len(centres_K2):2}  {found}", flush=True
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
