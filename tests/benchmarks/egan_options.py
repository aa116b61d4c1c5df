"""What E-GAN's faster options do to its images: KID, coverage and copy rate beside those of the plain float32 training.

Run:
    python -m tests.benchmarks.egan_options --data FOLDER [--seeds N] [--budget NAME] [--json FILE]

Every variant of ``egan_speed`` is trained with the same seeds on the first of five patient-grouped folds, with the
settings of a budget, and makes as many images as there are training images. Behind each option stands the paired
difference of its KID to the exact training's, with its standard error; "within noise" is said where that is below two
of these errors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from spaces.budget import BUDGETS, budget_named
from spaces.generators import EganConfig
from tests.benchmarks.egan_speed import VARIANTS
from tests.benchmarks.fidelity import faithful, first_fold, pool
from trainables.data.image_set import ImageSet
from trainables.data.reading import read_cohort
from trainables.generators.egan import Egan
from trainables.metrics.extractor import Extractor, train_extractor

CPU = torch.device("cpu")
NOISE = 2.0
"""Standard errors of a paired difference that are noise."""


def quality(
    train: ImageSet, extractor: Extractor, settings: dict[str, Any], *, seed: int, device: torch.device
) -> dict[str, Any]:
    """One training and what its pool is like."""
    config = EganConfig(**settings)
    start = time.perf_counter()
    training = Egan(config).begin(train, seed=seed, device=device)
    for _ in range(config.steps):
        training.step()
    made = pool(training.fitted(), train, seed=seed)
    return {"seconds": time.perf_counter() - start, **faithful(train, made, extractor, seed=seed)}


def verdict(found: Sequence[float], exact: Sequence[float]) -> str:
    """The paired difference in words."""
    differences = [one - other for one, other in zip(found, exact, strict=True)]
    error = stdev(differences) / len(differences) ** 0.5
    within = "within noise" if abs(mean(differences)) <= NOISE * error else "NOT within noise"
    return f"KID {mean(differences):+.4f} (standard error {error:.4f}) to exact: {within}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--budget", choices=sorted(BUDGETS), default="quick")
    parser.add_argument("--variant", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error(f"--seeds {options.seeds} has no standard error; give at least 2")
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as cache:
        cohort = read_cohort(options.data, options.labels, cache=Path(cache))
        train, _ = first_fold(cohort, pixels=32, folds=5, seed=0)
    extractor = train_extractor(train, seed=0, device=CPU, on_step=lambda done, total: None)
    settings = dict(budget_named(options.budget).generators["egan"])
    rows: list[dict[str, Any]] = []
    exact: list[float] = []
    print("variant   seeds  KID             coverage  copy rate  s a training")
    for name in ["exact", *(each for each in options.variant if each != "exact")]:
        found = [
            quality(train, extractor, {**settings, **VARIANTS[name]}, seed=seed, device=device)
            for seed in range(options.seeds)
        ]
        kids = [each["kid"] for each in found]
        exact = exact or kids
        print(
            f"{name:9} {len(found):5}  {mean(kids):.4f} ± {stdev(kids):.4f}  "
            + "  ".join(f"{mean(each[key] for each in found):8.3f}" for key in ("coverage", "copy_rate"))
            + f"  {mean(each['seconds'] for each in found):8.1f}"
            + ("" if name == "exact" else f"  {verdict(kids, exact)}"),
            flush=True,
        )
        rows += [{"variant": name, "seed": seed, **each} for seed, each in enumerate(found)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
