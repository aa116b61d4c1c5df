"""How much slower the classifiers' training loop is than a bare one: at most 1.15 times.

Run:
    python tests/benchmarks/classifier_loop.py [--small] [--json FILE] [--device DEVICE]

The bare loop is what anybody would write for batches that lie on the device already: forward, loss, backward, optimiser
step; it draws, mixes, checks and records nothing and never waits for the device. Network, layout in memory, initial
weights, batch size, optimiser, precision and settings of cuDNN are those of the training loop, which composes its
epochs (affine augmentation, mixing), follows its schedule and reads its losses besides. The two take turns, an epoch
each, in one process; the ratio is the median over the rounds. ``composing`` is the share of the loop's time that
composing an epoch takes, measured alone. ``bare`` and ``loop`` are images per second.

The limit is for the mixers that interpolate or leave alone. AugMix (small_cnn only) makes two more 8-bit versions of
every image, each of three chains of operations: that is work on pixels, which no loop saves; its rows show how much.

``--small`` has 32 pixels and batches of 32 only. A classifier whose library is not installed (resnet50 needs MONAI) is
left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

import torch
from torch import Tensor

from spaces.config import AugmixConfig, ClassifierConfig, GenMixConfig, MixerConfig, RealConfig
from trainables.classifiers.losses import jensen_shannon, soft_cross_entropy
from trainables.classifiers.optimisation import optimizer
from trainables.classifiers.registry import build
from trainables.classifiers.training import ClassifierTraining, begin_classifier
from trainables.data.affine import affine
from trainables.data.image_set import ImageSet
from trainables.mixers import registry as mixers
from trainables.mixers.base import Batch
from trainables.seeding import generator
from trainables.training.determinism import deterministic

LIMIT = 1.15
SEED = 0
MIXERS: tuple[MixerConfig, ...] = (RealConfig(), GenMixConfig())
"""The papers' baseline, and the interpolating mixer with the most to do per real image."""
COLUMNS = ("classifier", "mixer", "pixels", "batch", "bare", "loop", "over_bare", "composing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is timed, and for how long.

    Args:
        batches: of an epoch.
        rounds: epochs of each loop that count.
    """

    classifier: str
    mixer: MixerConfig
    pixels: int
    batch: int
    batches: int
    rounds: int


def rows(device: torch.device, small: bool) -> list[Mapping[str, Any]]:
    """A row per classifier, mixer, size and batch size.

    Returns:
        Rows with ``classifier``, ``mixer``, ``device``, ``pixels``, ``batch``, images per second of the bare loop
        (``bare``) and of the training (``loop``), ``over_bare`` and ``composing``; measured once per process.
    """
    return list(_measured(device, small))


def over_bare(device: torch.device, small: bool) -> float:
    """The training loop's time over the bare loop's, in the worst of the rows that the limit is for."""
    limited = [config.name for config in MIXERS]
    return max(float(row["over_bare"]) for row in rows(device, small) if row["mixer"] in limited)


@cache
def _measured(device: torch.device, small: bool) -> tuple[Mapping[str, Any], ...]:
    return tuple(measure(case, device) for case in cases(device, small))


def cases(device: torch.device, small: bool) -> Iterator[Case]:
    """The cases that can be measured here; a large network's epochs are short where there is no GPU."""
    sizes = (32,) if small else (32, 64)
    for name in ("small_cnn", "resnet50"):
        if name == "resnet50" and importlib.util.find_spec("monai") is None:
            print("resnet50 is left out: it needs MONAI, which is not installed", file=sys.stderr)
            continue
        short = name == "resnet50" and device.type == "cpu"
        chosen = (*MIXERS, AugmixConfig()) if name == "small_cnn" else MIXERS
        for mixer, pixels, batch in itertools.product(chosen, sizes, (32,) if small else (32, 64)):
            yield Case(
                classifier=name,
                mixer=mixer,
                pixels=pixels,
                batch=batch,
                batches=4 if short else 20,
                rounds=3 if short else 7,
            )


def measure(case: Case, device: torch.device) -> Mapping[str, Any]:
    """The bare loop and the training in turn."""
    config = ClassifierConfig(name=case.classifier, batch_size=case.batch, epochs=10_000)
    sets = [images(case, origin, device) for origin in ("real", "synthetic")]
    batches = compose(case, *sets)
    seconds_to_compose, _ = timed(lambda: compose(case, *sets), device)
    training = begin(config, case, *sets, device=device)
    bare = bare_loop(config, batches, device)
    taken: dict[str, list[float]] = {"bare": [], "loop": []}
    for turn in range(case.rounds + 1):
        for name, epoch in (("bare", bare), ("loop", training.step)):
            seconds, _ = timed(epoch, device)
            if turn:  # the first warms up
                taken[name].append(seconds)
    shown = case.batch * case.batches
    return {
        "classifier": case.classifier,
        "mixer": case.mixer.name,
        "device": str(device),
        "pixels": case.pixels,
        "batch": case.batch,
        "bare": shown / statistics.median(taken["bare"]),
        "loop": shown / statistics.median(taken["loop"]),
        "over_bare": statistics.median(ours / theirs for theirs, ours in zip(*taken.values(), strict=True)),
        "composing": seconds_to_compose / statistics.median(taken["loop"]),
    }


def images(case: Case, origin: str, device: torch.device) -> ImageSet:
    """Noise in two classes: as many images as an epoch needs."""
    count = case.batch * case.batches
    noise_N1PP = torch.rand(count, 1, case.pixels, case.pixels, generator=generator(SEED, origin)) * 2 - 1
    return ImageSet(
        images_NCHW=noise_N1PP.to(device),
        labels_N=(torch.arange(count) % 2).to(device),
        ids=tuple(f"{origin}/{index}" for index in range(count)),
        patients=("p",) * count,
        classes=("a", "b"),
    )


def compose(case: Case, real: ImageSet, synthetic: ImageSet) -> Sequence[Batch]:
    """The batches of one epoch."""
    mixer = mixers.build(case.mixer)
    return list(mixer.epoch(real, synthetic, batch_size=case.batch, augment=affine, rng=generator(SEED)))


def begin(
    config: ClassifierConfig, case: Case, real: ImageSet, synthetic: ImageSet, *, device: torch.device
) -> ClassifierTraining:
    """The training as a fold begins it."""
    return begin_classifier(
        config,
        mixers.build(case.mixer),
        real,
        synthetic,
        validation=None,
        augment=affine,
        balanced=False,
        seed=SEED,
        device=device,
        on_batch=lambda done, steps: None,
    )


def bare_loop(config: ClassifierConfig, batches: Sequence[Batch], device: torch.device) -> Callable[[], None]:
    """An epoch of the plain loop over batches that lie on the device, with all views in one tensor."""
    network = build(config, n_classes=2, rng=generator(SEED, "weights")).to(device).train()
    optimiser = optimizer(config, network.parameters())
    loaded = [(torch.cat((batch.images_NCHW, *batch.views)), batch) for batch in batches]
    weights_K = torch.ones(2, device=device)
    mixed_precision = config.amp and device.type == "cuda"

    def learn(images_MCHW: Tensor, batch: Batch) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed_precision):
            logits_MK = network(images_MCHW)
        logits_VNK = logits_MK.float().unflatten(0, (1 + len(batch.views), -1))
        loss = soft_cross_entropy(logits_VNK[0], batch.targets_NK, weights_K)
        if batch.views:
            loss = loss + batch.consistency * jensen_shannon(logits_VNK)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    def epoch() -> None:
        with deterministic(device):
            for images_MCHW, batch in loaded:
                learn(images_MCHW, batch)

    return epoch


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds until the work is done on the device too, where nothing else is left to do, and what it returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def table(measured: Sequence[Mapping[str, Any]]) -> str:
    """The rows for people."""
    lines = ["".join(f"{column:>12}" for column in COLUMNS)]
    for row in measured:
        cells = (f"{row[column]:.3f}" if isinstance(row[column], float) else row[column] for column in COLUMNS)
        lines.append("".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="32 pixels and batches of 32 only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:N")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    measured, worst = rows(device, given.small), over_bare(device, given.small)
    print(table(measured))
    print(f"over bare, at worst: {worst:.3f}; expected at most {LIMIT}")
    if given.json:
        given.json.write_text(json.dumps({"rows": measured, "classifier_over_bare": worst}, indent=1) + "\n")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
