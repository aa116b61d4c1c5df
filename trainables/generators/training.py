"""What the trainings of all adversarial generators share: batches, curves, one network or one per class, checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from spaces.generators import DcganConfig, EganConfig
from trainables.data.image_set import ImageSet
from trainables.errors import DataError, DivergedError
from trainables.generators.acceptance import check_contest, check_images
from trainables.generators.base import History, OnStep
from trainables.generators.fitted import FittedGan, network_name
from trainables.generators.networks.dcgan import DcganGenerator
from trainables.seeding import generator, stream

CHECKED_EVERY = 25
SETTLING_BATCHES = 16
SETTLING_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingImages:
    """What one network learns from, on the device it is trained on.

    Args:
        images_NCHW: float32 in [-1, 1].
        labels_N: int64 in [0, n_classes).
        n_classes: 1 where the network is unconditional.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    n_classes: int

    def __len__(self) -> int:
        return len(self.labels_N)

    def at(self, positions_M: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at CPU int64 positions."""
        positions_M = positions_M.to(self.labels_N.device)
        return self.images_NCHW[positions_M], self.labels_N[positions_M]


class Deck:
    """Endless shuffled positions: every image is dealt once before any is dealt again."""

    def __init__(self, count: int, *, rng: torch.Generator) -> None:
        self._count = count
        self._rng = rng
        self._left_M = torch.empty(0, dtype=torch.int64)

    def deal(self, size: int) -> Tensor:
        """The next ``size`` positions, int64 in [0, count)."""
        while len(self._left_M) < size:
            shuffled_N = torch.randperm(self._count, generator=self._rng)
            self._left_M = torch.cat([self._left_M, shuffled_N])
        dealt_M, self._left_M = self._left_M[:size], self._left_M[size:]
        return dealt_M


class Curves:
    """Records numbers at every step, and looks every few steps whether all of them are finite."""

    def __init__(self, *names: str) -> None:
        self._pending: dict[str, list[Tensor]] = {name: [] for name in names}
        self._lists: dict[str, list[float] | list[list[float]]] = {name: [] for name in names}
        self._steps = 0

    def record(self, *values: Tensor) -> None:
        """Append one scalar or vector per name.

        Raises: DivergedError if a value is not finite, at the latest ``CHECKED_EVERY`` records later.
        """
        for pending, value in zip(self._pending.values(), values, strict=True):
            pending.append(value.detach())
        self._steps += 1
        if self._steps % CHECKED_EVERY == 0:
            self._flush()

    def lists(self) -> History:
        """All that was recorded, by name. Raises: DivergedError."""
        self._flush()
        return self._lists

    def _flush(self) -> None:
        for name, pending in self._pending.items():
            if not pending:
                continue
            values = torch.stack(pending).double()
            pending.clear()
            if not bool(values.isfinite().all()):
                worst = values[~values.isfinite()][0].item()
                raise DivergedError(
                    f"the training diverged: {name} was {worst} within the {len(values)} steps before step "
                    f"{self._steps}; expected finite numbers. Lower generator.learning_rate."
                )
            self._lists[name] += values.tolist()


class Train(Protocol):
    """The training of one network."""

    def __call__(
        self, images: TrainingImages, *, seed: int, device: torch.device, on_step: Callable[[int], None]
    ) -> tuple[DcganGenerator, History]:
        """The trained network and its curves; ``on_step`` is called with the number of steps done."""


def fit_gan(
    train_one: Train,
    config: DcganConfig | EganConfig,
    train: ImageSet,
    *,
    seed: int,
    device: torch.device,
    on_step: OnStep,
) -> FittedGan:
    """Train one conditional network, or one network per class with random streams of its own.

    Args:
        train_one: trains a single network.
        config: says which of the two, and the networks' sizes.
        train: the training fold.
        seed: every random draw descends from it.
        device: where to compute.
        on_step: called with steps done and steps in all, over all networks.

    Returns:
        The fitted generator; its curves are prefixed ``classC/`` where there is a network per class.

    Raises:
        DataError: the fold has no images.
        DivergedError: non-finite losses, images that are all alike, or noise.
        StopRequested: passed on from ``on_step``.
    """
    parts = _parts(train, per_class=config.per_class)
    if not parts:
        raise DataError("the training fold has no images; expected at least one. Check labels and splits.")
    networks: dict[str, DcganGenerator] = {}
    history: dict[str, Sequence[float] | Sequence[Sequence[float]]] = {}
    steps = config.steps * len(parts)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for order, (name, part) in enumerate(parts.items()):
            part_seed = stream(seed, name)
            on_device = TrainingImages(
                images_NCHW=part.images_NCHW.to(device), labels_N=part.labels_N.to(device), n_classes=part.n_classes
            )
            report = _offset(on_step, done=order * config.steps, total=steps)
            network, curves = train_one(on_device, seed=part_seed, device=device, on_step=report)
            check_contest(curves)
            settle_batch_norm(network, on_device, rng=generator(part_seed, "settle"))
            networks[name] = network
            history |= {f"{name}/{key}" if config.per_class else key: curve for key, curve in curves.items()}
        fitted = FittedGan(
            networks=networks,
            seen=tuple(count > 0 for count in train.counts),
            per_class=config.per_class,
            history=history,
        )
        check_images(fitted, train, steps=config.steps, seed=stream(seed, "check"))
    return fitted


def _offset(on_step: OnStep, *, done: int, total: int) -> Callable[[int], None]:
    """Report the steps of one network as steps of all."""
    return lambda step: on_step(done + step, total)


def _parts(train: ImageSet, *, per_class: bool) -> Mapping[str, TrainingImages]:
    """The images of each network, by the network's name."""
    if not per_class:
        images = TrainingImages(images_NCHW=train.images_NCHW, labels_N=train.labels_N, n_classes=len(train.classes))
        return {network_name(None): images} if len(train) else {}
    parts = {}
    for index, count in enumerate(train.counts):
        chosen_N = train.labels_N == index
        if count:
            parts[network_name(index)] = TrainingImages(
                images_NCHW=train.images_NCHW[chosen_N], labels_N=torch.zeros(count, dtype=torch.int64), n_classes=1
            )
    return parts


@torch.no_grad()
def settle_batch_norm(network: DcganGenerator, images: TrainingImages, *, rng: torch.Generator) -> None:
    """Estimate the batch normalisation statistics of the final weights anew, and switch to evaluation.

    The running averages of a short training lag behind its weights, and images would come out flat.

    Args:
        network: the trained generator; its buffers are replaced.
        images: supply the labels, in the proportions of the training.
        rng: of labels and latents.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    deck = Deck(len(images), rng=rng)
    network.train()
    for _ in range(SETTLING_BATCHES):
        _, labels_N = images.at(deck.deal(SETTLING_BATCH))
        latents_NL = torch.randn(SETTLING_BATCH, network.latent_size, generator=rng)
        network(latents_NL.to(labels_N.device), labels_N)
    network.eval()
