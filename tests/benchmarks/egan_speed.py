"""E-GAN's whole generation against the published algorithm as it stands, and against a step of a plain DCGAN."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from spaces.generators import EganConfig
from tests.benchmarks.egan_reference import PlainEgan
from trainables import seeding
from trainables.generators.adversary import BETAS, AdversarialTraining
from trainables.generators.dcgan import DcganTraining
from trainables.generators.egan import Egan, EganTraining
from trainables.generators.training import TrainingImages
from trainables.training.determinism import deterministic

SEED = 1
COMPARED = 4
"""First generations in which plain and shared select the same child, or not: rounding may turn later ones round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a generation does.

    Args:
        name: of the line in the table.
        discriminator_steps: before the mutations.
        evaluation_batch: on which children are judged.
    """

    name: str
    discriminator_steps: int
    evaluation_batch: int

    def config(self, batch: int, **options: Any) -> EganConfig:
        """E-GAN's settings for it."""
        return EganConfig(
            batch_size=batch,
            discriminator_steps=self.discriminator_steps,
            evaluation_batch=self.evaluation_batch,
            **options,
        )


def settings(batch: int) -> tuple[Setting, ...]:
    """This project's default, and one discriminator step with an evaluation of the batch's size."""
    default = EganConfig()
    return (
        Setting(
            name="default",
            discriminator_steps=default.discriminator_steps,
            evaluation_batch=default.evaluation_batch,
        ),
        Setting(name="one step, one batch", discriminator_steps=1, evaluation_batch=batch),
    )


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "exact": {},
    "reuse": {"reuse_gradient": True},
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "best": {"reuse_gradient": True, "precision": "bfloat16"},
}
"""The exact one computes what the plain one does; the options of the others change rounding, or which images D sees."""


def compare(setting: Setting, images: TrainingImages, *, batch: int, rounds: int, warm_up: int) -> Mapping[str, Any]:
    """The plain generation and all variants in turn.

    Returns:
        ``setting``; ``seconds`` of a generation by variant, "plain" among them; ``speedup`` over plain by variant, the
        median of the rounds; ``discriminator_images``, how many images went forward through the discriminator in a
        generation; ``same_child`` in the first generations, and ``weights_off``, the relative distance of the weights
        after them, of the exact one.
    """
    device = images.images_NCHW.device
    plain = PlainEgan(setting.config(batch), images, seed=SEED, device=device)
    trainings = {
        name: Egan(setting.config(batch, **options)).train_one(images, seed=SEED, device=device)
        for name, options in VARIANTS.items()
    }
    steps: dict[str, Callable[[], None]] = {"plain": plain.step}
    steps |= {name: _as_trained(each.step, device, **VARIANTS[name]) for name, each in trainings.items()}
    networks = {"plain": plain.discriminator} | {name: each._discriminator for name, each in trainings.items()}
    for name, step in steps.items():  # the first generation has no gradient to reuse
        _images_through(networks[name], step)
    counted = {name: _images_through(networks[name], step) for name, step in steps.items()}
    for _ in range(COMPARED - 2):
        steps["plain"]()
        steps["exact"]()
    agreement = _agreement(plain, trainings["exact"])
    taken = _alternating(steps, device, rounds=rounds, warm_up=warm_up)
    return {
        "setting": setting.name,
        "seconds": {name: statistics.median(each) for name, each in taken.items()},
        "speedup": {
            name: statistics.median(slow / fast for slow, fast in zip(taken["plain"], taken[name], strict=True))
            for name in VARIANTS
        },
        "discriminator_images": counted,
        **agreement,
    }


def over_dcgan(images: TrainingImages, *, batch: int, rounds: int, warm_up: int) -> Mapping[str, float]:
    """A generation (one discriminator step, children judged on a batch) over a DCGAN step of the same networks."""
    device = images.images_NCHW.device
    config = settings(batch)[1].config(batch)
    evolving = {
        name: Egan(replace(config, **VARIANTS[name])).train_one(images, seed=SEED, device=device)
        for name in ("exact", "best")
    }
    plain = _dcgan(config, images)
    steps: dict[str, Callable[[], None]] = {"dcgan": _as_trained(plain.step, device)}
    steps |= {name: _as_trained(each.step, device, **VARIANTS[name]) for name, each in evolving.items()}
    taken = _alternating(steps, device, rounds=rounds, warm_up=warm_up)
    return {
        "dcgan_seconds": statistics.median(taken["dcgan"]),
        **{
            name: statistics.median(slow / fast for slow, fast in zip(taken[name], taken["dcgan"], strict=True))
            for name in evolving
        },
    }


def determinism_costs(images: TrainingImages, *, rounds: int, warm_up: int) -> Mapping[str, float]:
    """Time of E-GAN's generation on a GPU over that with cuDNN's fastest kernels, whatever order they add in."""
    device = images.images_NCHW.device
    steps: dict[str, Callable[[], None]] = {}
    for precision in ("float32", "tf32", "bfloat16"):
        bound, free = (
            Egan(EganConfig(precision=precision)).train_one(images, seed=SEED, device=device).step for _ in range(2)
        )
        steps[precision] = _as_trained(bound, device, precision=precision)
        steps[f"{precision}, free"] = _as_cudnn_likes(free, tf32=precision == "tf32")
    taken = _alternating(steps, device, rounds=rounds, warm_up=warm_up)
    return {
        name: statistics.median(bound / free for bound, free in zip(taken[name], taken[f"{name}, free"], strict=True))
        for name in steps
        if "free" not in name
    }


def _as_cudnn_likes(step: Callable[[], None], *, tf32: bool) -> Callable[[], None]:
    def stepping() -> None:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=tf32):
            step()

    return stepping


def _dcgan(config: EganConfig, images: TrainingImages) -> AdversarialTraining:
    owner, device = Egan(config), images.images_NCHW.device
    return DcganTraining(
        config,
        owner.filled_network(images, rng=seeding.generator(SEED, "generator0"), device=device),
        owner.filled_discriminator(images, seed=SEED, device=device),
        images,
        seed=SEED,
        betas=BETAS,
        curves=("discriminator_loss", "generator_loss"),
    )


def _alternating(
    steps: Mapping[str, Callable[[], None]], device: torch.device, *, rounds: int, warm_up: int
) -> dict[str, list[float]]:
    """Seconds of each step, all in turn; several steps are timed together where one is short."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(warm_up):
        for step in steps.values():
            step()
    together = 10 if device.type == "cuda" else 1
    for _ in range(rounds):
        for name, step in steps.items():
            wait(device)
            start = time.perf_counter()
            for _ in range(together):
                step()
            wait(device)
            taken[name].append((time.perf_counter() - start) / together)
    return taken


def _as_trained(
    step: Callable[[], None], device: torch.device, *, precision: str = "float32", **_: Any
) -> Callable[[], None]:
    """A network's step under the settings under which a generator's training takes it."""

    def stepping() -> None:
        with deterministic(device, tf32=precision == "tf32"):
            step()

    return stepping


def wait(device: torch.device) -> None:
    """Until a GPU has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _images_through(network: nn.Module, step: Callable[[], None]) -> int:
    """Images that go forward through the network in a step that is computed as it comes."""
    counts: list[int] = []
    hook = network.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    try:
        step()
    finally:
        hook.remove()
    return sum(counts)


def _agreement(plain: PlainEgan, exact: EganTraining) -> Mapping[str, Any]:
    selected: Sequence[Any] = exact.curves.lists()["selected"]
    one_D, other_D = (
        torch.cat([each.detach().flatten() for each in network.parameters()])
        for network in (plain.network, exact.sampler())
    )
    distance: Tensor = (one_D - other_D).norm() / one_D.norm()
    return {
        "same_child": [int(each[0]) for each in selected] == plain.selected,
        "weights_off": float(distance),
    }
