"""How fast the generators train and sample on this hardware, and what E-GAN's shared work saves.

Run:
    python tests/benchmarks/generators.py [--small] [--json FILE] [--device DEVICE] [--threads N] [--precision NAME]
                                          [--generator NAME ...]

First comes E-GAN's whole generation against the published algorithm (``egan_reference``: three forward and backward
passes, copies of all states, every child's fitness with a real pass of its own), in turn in one run with equal
networks, batches and noise (on a GPU the generation is also replayed as a CUDA graph, which the published one is not);
against a step of a plain DCGAN of the same networks; and the classifiers' loop against a bare one
(``classifier_loop``).

Then a table has a line per generator, size and batch size: real images a second in training (a batch for each
generator step), seconds of 1,000 generator steps, images a second in sampling, peak memory, and the floating-point
operations of a step as a share of what this device reaches in a large matrix product of the same precision. Where it
is interrupted, ``--json`` has the lines so far, and the exit code is 130.

Peak memory on a GPU is that of PyTorch's tensors; on a CPU it is how far the process grew, each line in a process of
its own. A generator whose library is not installed is left out and named. ``--small`` has 32 pixels and batches of 32
only. Where there is a GPU it is measured unless ``--device cpu`` is given; what was not measured is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from spaces.generators import GENERATORS, PRECISIONS, TrainedConfig
from tests.benchmarks import classifier_loop, egan_speed
from trainables.fold import peak_bytes
from trainables.generators.fitted import FittedNetworks
from trainables.generators.registry import build
from trainables.generators.stylegan import R1_EVERY
from trainables.generators.training import NetworkGenerator, TrainingImages
from trainables.training.determinism import deterministic

SEED = 1
IMAGES = 256
MEASURED = ("dcgan", "acgan", "wgan_gp", "egan", "dae_gan", "stylegan", "diffusion")
"""Textual inversion is as fast as the pipeline that it is given."""
LIBRARIES = {"diffusion": "diffusers"}
COLUMNS = (
    "generator",
    "pixels",
    "batch",
    "images_per_second",
    "seconds_per_1000_steps",
    "sampled_per_second",
    "peak_bytes",
    "share_of_ceiling",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a line measures.

    Args:
        ceiling: floating-point operations a second of a large matrix product.
        seconds: that the steps measured take at least.
    """

    generator: str
    pixels: int
    batch: int
    precision: str
    device: str
    threads: int
    ceiling: float
    seconds: float


def training_images(pixels: int, device: torch.device) -> TrainingImages:
    """Smooth noise in two classes."""
    rng = torch.Generator().manual_seed(SEED)
    coarse = torch.rand(IMAGES, 1, 8, 8, generator=rng) * 2 - 1
    images_NCHW = torch.nn.functional.interpolate(coarse, size=(pixels, pixels), mode="bilinear")
    return TrainingImages(
        images_NCHW=images_NCHW.to(device), labels_N=(torch.arange(IMAGES) % 2).to(device), n_classes=2
    )


def measure(case: Case) -> Mapping[str, Any]:
    """One line of the table."""
    device = torch.device(case.device)
    torch.set_num_threads(case.threads)
    images = training_images(case.pixels, device)
    before = _held(device)
    config = GENERATORS[case.generator](batch_size=case.batch, precision=case.precision)  # type: ignore[call-arg]
    owner: NetworkGenerator[TrainedConfig] = build(config)  # type: ignore[assignment]
    training = owner.train_one(images, seed=SEED, device=device)
    period = R1_EVERY if case.generator == "stylegan" else 1
    with deterministic(device, tf32=case.precision == "tf32"):
        operations = _operations(training.step, period)
        # Every kind of step is recorded in its fourth run on a GPU.
        for _ in range(4 * period + 4 if device.type == "cuda" else 1):
            training.step()
        seconds = _seconds(training.step, device, at_least=case.seconds, multiple=period)
        fitted = FittedNetworks(
            networks={"conditional": training.sampler().eval()}, seen=(True, True), per_class=False, history={}
        )
        count = 256 if device.type == "cuda" else 64
        fitted.sample(0, 0, count, seed=SEED)
        sampling = _seconds(lambda: fitted.sample(0, 0, count, seed=SEED), device, at_least=case.seconds / 2) / count
    return {
        "generator": case.generator,
        "device": case.device if device.type == "cpu" else torch.cuda.get_device_name(device),
        "precision": case.precision,
        "pixels": case.pixels,
        "batch": case.batch,
        "images_per_second": case.batch / seconds,
        "seconds_per_1000_steps": 1000 * seconds,
        "sampled_per_second": 1 / sampling,
        "peak_bytes": peak_bytes(device) - before,
        "operations_per_step": operations,
        "share_of_ceiling": operations / seconds / case.ceiling,
    }


def _operations(step: Callable[[], None], period: int) -> float:
    """Floating-point operations of a step, the mean of a period, whose first step alone differs from the others."""
    counts = []
    for _ in range(2):
        with _Counting() as counting:
            step()
        counts.append(counting.operations)
    first, other = counts
    return other + (first - other) / period


class _Counting(TorchDispatchMode):
    """Counts the floating-point operations of convolutions and matrix products, by PyTorch's formulas.

    PyTorch's own ``FlopCounterMode`` also asks which module they belong to, which it cannot where a gradient is
    differentiated again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.operations += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _seconds(work: Callable[[], object], device: torch.device, *, at_least: float, multiple: int = 1) -> float:
    """Wall time of one call: the mean over as many whole periods, twice as many at each try, as take so long."""
    calls = multiple
    while True:
        egan_speed.wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            work()
        egan_speed.wait(device)
        elapsed = time.perf_counter() - start
        if elapsed >= at_least:
            return elapsed / calls
        calls *= 2


def _held(device: torch.device) -> int:
    """Bytes held now, on a GPU by tensors; its peak is counted from here."""
    if device.type == "cpu":
        return peak_bytes(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def ceiling(device: torch.device, precision: str) -> float:
    """Floating-point operations a second in a large matrix product, the best of ten."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    rng = torch.Generator().manual_seed(SEED)
    one, other = (torch.randn(size, size, generator=rng).to(device, dtype) for _ in range(2))
    taken = []
    for _ in range(11):
        egan_speed.wait(device)
        start = time.perf_counter()
        one @ other
        egan_speed.wait(device)
        taken.append(time.perf_counter() - start)
    torch.set_float32_matmul_precision("highest")
    return 2 * size**3 / min(taken[1:])


def lines(cases: Sequence[Case]) -> Iterator[Mapping[str, Any]]:
    """The lines one after the other; on a CPU, each in a process of its own."""
    for case in cases:
        if case.device == "cpu":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                yield pool.apply(measure, (case,))
        else:
            yield measure(case)
            torch.cuda.empty_cache()


def wanted(options: argparse.Namespace, ceilings: Mapping[str, float]) -> list[Case]:
    """All lines that can be measured here."""
    cases = []
    for name in options.generator or MEASURED:
        library = LIBRARIES.get(name)
        if library is not None and importlib.util.find_spec(library) is None:
            print(f"{name} is left out: it needs {library}, which is not installed", file=sys.stderr)
            continue
        if options.precision not in GENERATORS[name].precisions():  # type: ignore[union-attr]
            print(f"{name} is left out: it has no {options.precision}", file=sys.stderr)
            continue
        for pixels in (32,) if options.small else (32, 64, 80):
            for batch in (32,) if options.small else (32, 64):
                cases.append(
                    Case(
                        generator=name,
                        pixels=pixels,
                        batch=batch,
                        precision=options.precision,
                        device=options.device,
                        threads=options.threads,
                        ceiling=ceilings[options.precision],
                        seconds=0.3 if options.small or options.device == "cuda" else 2.0,
                    )
                )
    return cases


def evolution(device: torch.device, small: bool) -> Mapping[str, Any]:
    """E-GAN against the published algorithm and against DCGAN, at 64 pixels and batches of 32, and what is printed."""
    images, batch = training_images(64, device), 32
    on_gpu = device.type == "cuda"
    rounds, warm_up = (5, 6) if on_gpu else ((3, 1) if small else (9, 1))
    compared = [
        egan_speed.compare(setting, images, batch=batch, rounds=rounds, warm_up=warm_up)
        for setting in egan_speed.settings(batch)
    ]
    return {
        "comparisons": compared,
        "over_dcgan": egan_speed.over_dcgan(images, batch=batch, rounds=rounds, warm_up=warm_up),
        "determinism_costs": egan_speed.determinism_costs(images, rounds=rounds, warm_up=warm_up) if on_gpu else None,
    }


def _print_row(row: Mapping[str, Any]) -> None:
    print(
        f"{row['generator']:10} {row['pixels']:6} {row['batch']:5} {row['images_per_second']:12,.0f} "
        f"{row['seconds_per_1000_steps']:12.2f} {row['sampled_per_second']:12,.0f} {row['peak_bytes'] / 2**20:9,.0f} "
        f"{row['share_of_ceiling']:9.1%}",
        flush=True,
    )


def _print_evolution(found: Mapping[str, Any]) -> None:
    for each in found["comparisons"]:
        print(
            f"E-GAN, {each['setting']}: plain {1000 * each['seconds']['plain']:.1f} ms, "
            f"{each['discriminator_images']['plain']} images through D; same child in the first "
            f"{egan_speed.COMPARED} generations: {each['same_child']}, weights off by {each['weights_off']:.1e}"
        )
        for name, speedup in each["speedup"].items():
            print(
                f"  {name:9} {1000 * each['seconds'][name]:8.1f} ms  {speedup:5.2f} times faster  "
                f"{each['discriminator_images'][name]} images through D",
                flush=True,
            )
    over = found["over_dcgan"]
    print(
        f"E-GAN's generation (one D step, one batch) over a DCGAN step of the same networks "
        f"({1000 * over['dcgan_seconds']:.1f} ms): exact {over['exact']:.2f}, best {over['best']:.2f}",
        flush=True,
    )
    costs = found["determinism_costs"] or {}
    print(
        "equal bytes in every run cost, over kernels that cuDNN may choose by trying: "
        + (", ".join(f"{name} {ratio:.2f} times" for name, ratio in costs.items()) or "not measured without a GPU"),
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="32 pixels and batches of 32 only")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--generator", nargs="+", choices=MEASURED)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if not torch.cuda.is_available():
        print("CUDA: not measured, there is no GPU here")
    ceilings = {precision: ceiling(device, precision) for precision in PRECISIONS}
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    print(f"{name}; matrix products: {', '.join(f'{each} {rate:.3g} FLOP/s' for each, rate in ceilings.items())}")
    found = evolution(device, options.small)
    _print_evolution(found)
    loop = classifier_loop.over_bare(device, options.small)
    print(f"classifier loop over the bare one, worst case: {loop:.2f}", flush=True)
    print("generator  pixels batch  images/s    s/1000 steps  sampled/s    peak MiB  of ceiling")
    rows, interrupted = [], False
    try:
        for row in lines(wanted(options, ceilings)):
            rows.append(row)
            _print_row(row)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: the table is not complete", file=sys.stderr)
    if options.json:
        result = {
            "rows": rows,
            "egan_speedup_exact": found["comparisons"][0]["speedup"]["exact"],
            "egan_speedup_best": found["comparisons"][0]["speedup"]["best"],
            "egan_over_dcgan": found["over_dcgan"]["exact"],
            "classifier_over_bare": loop,
            "ceilings": ceilings,
            **found,
            "classifier_rows": classifier_loop.rows(device, options.small),
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if interrupted:
        sys.exit(130)


if __name__ == "__main__":
    main()
