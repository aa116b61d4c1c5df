"""What the trainings of all networks share: one conditional network or one per class, previews, checks, checkpoints.

A generator that trains one network at a time is a ``NetworkGenerator``: it says which network makes its images and how
that one is trained (``NetworkTraining``); everything else is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from spaces.generators import TrainedConfig
from trainables.data.affine import affine
from trainables.data.image_set import ImageSet
from trainables.errors import DataError
from trainables.generators.acceptance import check_images, check_preview
from trainables.generators.base import History
from trainables.generators.curves import JUDGED_FROM, Curves
from trainables.generators.fitted import FittedNetworks, load_networks, network_name
from trainables.generators.networks.image_network import ImageNetwork
from trainables.generators.previews import PREVIEWED, Previews, is_due, to_uint8
from trainables.generators.settling import settle
from trainables.seeding import generator, stream
from trainables.training.determinism import deterministic
from trainables.training.parts import Part, pack, under, unpack

LOOKED_AT = 8
"""Images of each class that are looked at in mid-training."""
_SETTLING_BATCHES = 4

Config = TypeVar("Config", bound=TrainedConfig)


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

    @property
    def pixels(self) -> int:
        """Height and width."""
        return int(self.images_NCHW.shape[-1])

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

    def state(self) -> dict[str, Tensor]:
        """What is left to deal, and the random state of the next shuffle."""
        return {"left_M": self._left_M, "rng": self._rng.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self._left_M = state["left_M"].clone()
        self._rng.set_state(state["rng"])


class NetworkTraining(Protocol):
    """The training of one network."""

    @property
    def curves(self) -> Curves:
        """Recorded at every step."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything else that changes from step to step, by name."""

    def step(self) -> None:
        """One more step. Raises: DivergedError."""

    def sampler(self) -> ImageNetwork:
        """A copy of the network that makes the images, averaged over training where an average is kept."""


class NetworkGenerator(ABC, Generic[Config]):
    """A generator that trains one conditional network, or one for each class with random streams of its own."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def network(self, pixels: int, n_classes: int) -> ImageNetwork:
        """The network that makes the images, its weights not filled; called where tensors have no storage."""

    @abstractmethod
    def train_one(self, images: TrainingImages, *, seed: int, device: torch.device) -> NetworkTraining:
        """The training of one network, before its first step."""

    @property
    def per_class(self) -> bool:
        """Whether each class has a network of its own."""
        return bool(getattr(self.config, "per_class", False))

    def begin(self, train: ImageSet, *, seed: int, device: torch.device) -> NetworksTraining:
        """Begin to learn from the training fold. Raises: DataError."""
        return NetworksTraining(self, train, seed=seed, device=device)

    def load(
        self, state: Mapping[str, Tensor], history: History, *, n_classes: int, pixels: int, device: torch.device
    ) -> FittedNetworks:
        """The fitted generator whose ``state()`` and ``history`` these are."""
        return load_networks(
            self.network,
            state,
            history,
            per_class=self.per_class,
            n_classes=n_classes,
            pixels=pixels,
            device=device,
        )


class NetworksTraining:
    """The training of all networks of a generator: a step is one step of each; a ``Training``.

    Its curves are prefixed ``classC/`` where there is a network per class.
    """

    def __init__(self, owner: NetworkGenerator[Config], train: ImageSet, *, seed: int, device: torch.device) -> None:
        if not len(train):
            raise DataError("the training fold has no images; expected at least one. Check labels and splits.")
        self._train = train
        self._seed = seed
        self._device = device
        self._per_class = owner.per_class
        self._tf32 = owner.config.precision == "tf32"
        self._batch_size = owner.config.batch_size
        self._sampled_by_trials = bool(owner.config.SAMPLING)
        self._done = 0
        with deterministic(self._device):
            self._images = _images_by_network(
                train, copies=owner.config.affine_copies, per_class=owner.per_class, seed=seed, device=device
            )
            self._trainings = {
                name: owner.train_one(images, seed=stream(seed, name), device=device)
                for name, images in self._images.items()
            }
        self._looks: list[int] = []
        self._seen: list[Tensor] = []
        self._alike: frozenset[int] = frozenset()

    @property
    def done(self) -> int:
        """Steps done."""
        return self._done

    def step(self) -> None:
        """One step of every network. Raises: DivergedError if it leads nowhere."""
        self._look_at_the_beginning()
        with deterministic(self._device, tf32=self._tf32):
            for training in self._trainings.values():
                training.step()
        self._done += 1
        if is_due(self._done):
            self._look()

    def state(self) -> dict[str, Tensor]:
        """Everything that ``restore`` needs."""
        self._look_at_the_beginning()
        state = {
            "done": torch.tensor(self._done),
            "looks": torch.tensor(self._looks),
            "seen": torch.stack(self._seen),
            "alike": torch.tensor(sorted(self._alike), dtype=torch.int64),
        }
        for name, training in self._trainings.items():
            own = {**pack(training.parts), **pack({"curves": training.curves})}
            state |= {f"{name}/{key}": value for key, value in own.items()}
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where ``state`` was taken."""
        self._done = int(state["done"])
        self._looks = state["looks"].tolist()
        self._seen = list(state["seen"])
        self._alike = frozenset(state["alike"].tolist())
        for name, training in self._trainings.items():
            unpack({**training.parts, "curves": training.curves}, under(name, state))

    def previews(self) -> Previews:
        """Images of each class on fixed noise, at the steps looked at and now."""
        self._look_at_the_beginning()
        looks, seen = list(self._looks), list(self._seen)
        if looks[-1] != self._done:
            looks.append(self._done)
            seen.append(self._preview(self._present()))
        return Previews(steps=tuple(looks), images_TKMHW=torch.stack(seen))

    def fitted(self, *, checked: bool = True) -> FittedNetworks:
        """The generator as it is now. Raises: DivergedError."""
        with deterministic(self._device):
            networks = {name: self._settled(name) for name in self._trainings}
            fitted = FittedNetworks(
                networks=networks,
                seen=tuple(count > 0 for count in self._train.counts),
                per_class=self._per_class,
                history=self._history(),
            )
            if checked and not self._sampled_by_trials:
                check_images(
                    fitted,
                    self._train,
                    steps=self._done,
                    batch_size=self._batch_size,
                    seed=stream(self._seed, "check"),
                )
        return fitted

    def _history(self) -> History:
        return {
            f"{name}/{key}" if self._per_class else key: curve
            for name, training in self._trainings.items()
            for key, curve in training.curves.lists().items()
        }

    def _settled(self, name: str, batches: int | None = None) -> ImageNetwork:
        """A copy of the network as it is now, ready to make images."""
        network = self._trainings[name].sampler()
        settle(network, self._images[name].labels_N, batches=batches, rng=generator(stream(self._seed, name), "settle"))
        return network

    def _look_at_the_beginning(self) -> None:
        """Not before it is needed: a training that is restored has had its first look."""
        if not self._looks:
            self._look()

    def _look(self) -> None:
        """Keep a preview, and end a training whose images have been all alike at two looks in a row.

        What trials sample with settings of their own is judged in their pools alone.
        """
        by_class = self._present()
        self._looks.append(self._done)
        self._seen.append(self._preview(by_class))
        if self._done >= JUDGED_FROM and not self._sampled_by_trials:
            self._alike = check_preview(by_class, self._train, steps=self._done, were_alike=self._alike)

    @torch.no_grad()
    def _present(self) -> dict[int, Tensor]:
        """A few images of each class that has training images, on fixed noise."""
        by_class = {}
        with deterministic(self._device):
            networks = {name: self._settled(name, _SETTLING_BATCHES) for name in self._trainings}
            for index, count in enumerate(self._train.counts):
                if not count:
                    continue
                network = networks[network_name(index if self._per_class else None)]
                noise_NM = network.noise(LOOKED_AT, rng=generator(self._seed, f"preview/class{index}"))
                device = next(network.parameters()).device
                labels_N = torch.full((LOOKED_AT,), 0 if self._per_class else index, device=device)
                by_class[index] = network(noise_NM.to(device), labels_N).float().cpu().contiguous()
        return by_class

    def _preview(self, by_class: Mapping[int, Tensor]) -> Tensor:
        """uint8 (K, M, P, P); black where a class has no images."""
        pixels = self._train.pixels
        empty_MHW = torch.zeros(PREVIEWED, pixels, pixels, dtype=torch.uint8)
        return torch.stack(
            [
                to_uint8(by_class[index][:PREVIEWED]) if index in by_class else empty_MHW
                for index in range(len(self._train.classes))
            ]
        )


def affine_set(images_NCHW: Tensor, *, copies: int, rng: torch.Generator) -> Tensor:
    """The originals, then ``copies`` transformed copies of each, set after set.

    Args:
        images_NCHW: float32 in [-1, 1].
        copies: m; 0 returns the originals.
        rng: of the transformations.

    Returns:
        float32 ((1 + m) N, C, H, W) in [-1, 1].

    Source: DAE GAN, section 4.1; methods, order of things in a fold, step 2.
    """
    return torch.cat([images_NCHW, *(affine(images_NCHW, rng) for _ in range(copies))])


def _images_by_network(
    train: ImageSet, *, copies: int, per_class: bool, seed: int, device: torch.device
) -> Mapping[str, TrainingImages]:
    """What each network learns from, by the network's name."""
    images_NCHW = affine_set(train.images_NCHW, copies=copies, rng=generator(seed, "affine"))
    labels_N = train.labels_N.repeat(1 + copies)
    whole = TrainingImages(
        images_NCHW=images_NCHW.to(device), labels_N=labels_N.to(device), n_classes=len(train.classes)
    )
    if not per_class:
        return {network_name(None): whole}
    return {network_name(index): _of_class(whole, index) for index, count in enumerate(train.counts) if count}


def _of_class(images: TrainingImages, index: int) -> TrainingImages:
    chosen_N = images.labels_N == index
    return TrainingImages(
        images_NCHW=images.images_NCHW[chosen_N], labels_N=torch.zeros_like(images.labels_N[chosen_N]), n_classes=1
    )
