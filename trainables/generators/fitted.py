"""Trained networks: sampling that does not depend on batches, and their state."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainables.errors import FinalTrialError
from trainables.generators.base import History
from trainables.generators.networks.image_network import ImageNetwork
from trainables.seeding import generator
from trainables.training.determinism import deterministic
from trainables.training.graphs import Drawn, Graphs

CHUNK = 64
"""Images are always computed in whole chunks of this many, aligned to their indices: other batch sizes may be
computed by other kernels, with other roundings."""


def network_name(class_index: int | None) -> str:
    """Prefix of a network's tensors and curves: one network per class, or one for all (``None``)."""
    return "conditional" if class_index is None else f"class{class_index}"


class FittedNetworks:
    """One conditional network or one network per class, ready to make images.

    Args:
        networks: by ``network_name``, in evaluation mode.
        seen: for each class, whether the training fold had images of it.
        per_class: whether each class has a network of its own.
        history: what was recorded in training.
    """

    def __init__(
        self, *, networks: Mapping[str, ImageNetwork], seen: tuple[bool, ...], per_class: bool, history: History
    ) -> None:
        self._networks = networks
        self._samplers = {name: _Sampler(network) for name, network in networks.items()}
        self._seen = seen
        self._per_class = per_class
        self._history = history

    @property
    def history(self) -> History:
        """Losses per step and, where the generator evolves, selection and fitness per generation."""
        return self._history

    def sample(self, class_index: int, start: int, count: int, *, seed: int) -> Tensor:
        """Images ``start`` to ``start + count`` of one class.

        Args:
            class_index: the class, as in the training set's labels.
            start: index of the first image.
            count: how many.
            seed: the pool's seed; image i of class c depends on (weights, seed, c, i) only.

        Returns:
            float32 images (count, 1, P, P) in [-1, 1] on the CPU.

        Raises:
            FinalTrialError: the training fold had no image of this class.
        """
        if not 0 <= class_index < len(self._seen) or not self._seen[class_index]:
            seen = [index for index, known in enumerate(self._seen) if known]
            raise FinalTrialError(
                f"the generator has never seen the class asked for: class {class_index} had no training images, only "
                f"classes {seen} had. Ask for these, or give every training fold images of each class."
            )
        first, last = start // CHUNK, -(-(start + count) // CHUNK)
        chunks = [self._chunk(class_index, chunk, seed) for chunk in range(first, max(last, first + 1))]
        offset = start - first * CHUNK
        return torch.cat(chunks)[offset : offset + count].clone()

    def state(self) -> dict[str, Tensor]:
        """Everything that ``sample`` needs, as named contiguous CPU tensors."""
        tensors = {
            f"{name}.{key}": value.detach().cpu().contiguous().clone()
            for name, network in self._networks.items()
            for key, value in network.state_dict().items()
        }
        return {"seen_K": torch.tensor(self._seen), **tensors}

    def _chunk(self, class_index: int, chunk: int, seed: int) -> Tensor:
        sampler = self._samplers[network_name(class_index if self._per_class else None)]
        noise_NM = torch.cat(
            [
                sampler.network.noise(1, rng=generator(seed, f"class{class_index}/image{index}"))
                for index in range(chunk * CHUNK, (chunk + 1) * CHUNK)
            ]
        )
        return sampler.images(noise_NM, torch.full((CHUNK,), 0 if self._per_class else class_index))


class _Sampler:
    """A network that makes chunk after chunk, replayed where it is on a GPU and can be."""

    def __init__(self, network: ImageNetwork) -> None:
        self.network = network
        self._device = next(network.parameters()).device
        self._graphs = Graphs(self._device)

    @torch.no_grad()
    def images(self, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        """Images float32 (N, 1, P, P) on the CPU of noise and int64 labels there."""
        drawn = {"noise_NM": noise_NM, "labels_N": labels_N}
        with deterministic(self._device):
            if self.network.replayable:
                (images_NCHW,) = self._graphs.run(self._compute, drawn)
            else:
                (images_NCHW,) = self._compute({name: value.to(self._device) for name, value in drawn.items()})
        return images_NCHW.cpu().contiguous()

    def _compute(self, drawn: Drawn) -> tuple[Tensor, ...]:
        return (self.network(drawn["noise_NM"], drawn["labels_N"]).float(),)


def load_networks(
    make: Callable[[int, int], ImageNetwork],
    state: Mapping[str, Tensor],
    history: History,
    *,
    per_class: bool,
    n_classes: int,
    pixels: int,
    device: torch.device,
) -> FittedNetworks:
    """The fitted generator that was saved as ``state``.

    Args:
        make: a network of (pixels, number of classes).
        state: as from ``FittedNetworks.state``.
        history: as from ``FittedNetworks.history``.
        per_class: whether each class has a network of its own.
        n_classes: of the training set.
        pixels: of the training set.
        device: where to compute.

    Raises:
        RuntimeError: the state belongs to another configuration.
    """
    seen = tuple(bool(known) for known in state["seen_K"])
    names = [network_name(index) for index in range(n_classes) if seen[index]] if per_class else [network_name(None)]
    networks = {}
    for name in names:
        with torch.device("meta"):
            network = make(pixels, 1 if per_class else n_classes)
        network.to_empty(device=device)
        prefix = f"{name}."
        network.load_state_dict(
            {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        )
        networks[name] = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return FittedNetworks(networks=networks, seen=seen, per_class=per_class, history=history)
