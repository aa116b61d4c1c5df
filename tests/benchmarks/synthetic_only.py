"""How much of a data set's classes a generator conveys: train on synthetic images only, test on real ones.

Run:
    python -m tests.benchmarks.synthetic_only --data FOLDER --generator egan --steps 500,1000,2000

One patient-grouped fold is set aside for testing. A generator learns from the others, a small CNN learns from as
many generated images as there were real ones, and is tested on the real fold. The interval is a bootstrap over test
patients. The row "real" is the same CNN trained on the real images. A generator is above chance where the interval's
lower end is above 1 / number of classes: the `standard` budget is the smallest at which all generators are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from spaces.config import ClassifierConfig, PreprocessConfig, RealConfig
from spaces.generators import GENERATORS
from trainables.classifiers.training import train_classifier
from trainables.data.affine import identity
from trainables.data.cohort import Cohort, read_cohort
from trainables.data.image_set import ImageSet
from trainables.data.preprocess import fit_scaling, preprocess
from trainables.data.splits import make_folds
from trainables.generators.base import FittedGenerator
from trainables.generators.registry import build
from trainables.metrics.intervals import bootstrap_by_patient
from trainables.mixers.real import Real

CPU = torch.device("cpu")


def first_fold(cohort: Cohort, *, pixels: int, folds: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images of one fold, scaled by the training images."""
    split = make_folds(cohort, folds=folds, seed=seed)[0]
    config = PreprocessConfig(pixels=pixels)
    scaling = fit_scaling(cohort, split.train, config)
    return preprocess(cohort, split.train, scaling, config), preprocess(cohort, split.test, scaling, config)


def pool(fitted: FittedGenerator, like: ImageSet, *, seed: int) -> ImageSet:
    """As many synthetic images of each class as ``like`` has."""
    images = [fitted.sample(index, 0, count, seed=seed) for index, count in enumerate(like.counts) if count]
    names = tuple(f"class{index}/image{image}" for index, count in enumerate(like.counts) for image in range(count))
    return ImageSet(
        images_NCHW=torch.cat(images),
        labels_N=torch.repeat_interleave(torch.arange(len(like.classes)), torch.tensor(like.counts)),
        ids=names,
        patients=("",) * len(names),
        classes=like.classes,
    )


def score(train: ImageSet, test: ImageSet, *, epochs: int, seed: int) -> dict[str, float]:
    """Balanced accuracy and AUROC on the test images, with intervals, of a small CNN trained on ``train``."""
    classifier = train_classifier(
        ClassifierConfig(name="small_cnn", epochs=epochs),
        Real(RealConfig()),
        train,
        None,
        augment=identity,
        balanced=False,
        seed=seed,
        device=CPU,
        on_step=lambda done, total: None,
    )
    probabilities_NK = classifier.probabilities(test.images_NCHW)
    intervals = bootstrap_by_patient(test.labels_N, probabilities_NK, test.patients, positive=0, seed=seed)
    accuracy, auroc = intervals["balanced_accuracy"], intervals["auroc"]
    if accuracy is None or auroc is None:
        raise SystemExit("the test fold has too few patients for an interval; use fewer --folds")
    return {
        "balanced_accuracy": accuracy.estimate,
        "low": accuracy.low,
        "high": accuracy.high,
        "auroc": auroc.estimate,
        "auroc_low": auroc.low,
        "auroc_high": auroc.high,
    }


def measure(train: ImageSet, test: ImageSet, *, name: str, settings: dict[str, Any], epochs: int, seed: int) -> Any:
    """One row: train the generator, then the classifier on its images alone."""
    config = GENERATORS[name](**settings)
    start, cpu_start = time.perf_counter(), time.process_time()
    fitted = build(config).fit(train, seed=seed, device=CPU, on_step=lambda done, total: None)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    found = score(pool(fitted, train, seed=seed), test, epochs=epochs, seed=seed)
    return {"generator": name, **settings, "seconds": seconds, "cpu_seconds": cpu_seconds, **found}


def show(row: dict[str, Any], chance: float) -> None:
    """Print one row."""
    verdict = "above chance" if row["low"] > chance else "not above chance"
    print(
        f"{row['generator']:>8} {row.get('steps', ''):>6} steps {row['cpu_seconds']:7.1f} s of CPU   balanced accuracy "
        f"{row['balanced_accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}] {verdict} ({chance:.2f})   "
        f"AUROC {row['auroc']:.3f} [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}]",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--labels", help="another table than labels.csv")
    parser.add_argument("--generator", action="append", choices=[name for name in GENERATORS if name != "none"])
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--steps", default="500,1000,2000", help="comma-separated lengths")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="other generator settings")
    parser.add_argument("--epochs", type=int, default=40, help="of the classifier")
    parser.add_argument("--images", type=int, help="train on this many images only, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        cohort = read_cohort(options.data, options.labels, cache=Path(cache))
        train, test = first_fold(cohort, pixels=options.pixels, folds=options.folds, seed=options.seed)
    if options.images:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(options.seed))
        train = train.subset(order[: options.images])
    chance = 1 / len(train.classes)
    print(f"{len(train)} training images {train.counts}, {len(test)} test images {test.counts}", flush=True)
    rows = [{"generator": "real", "cpu_seconds": 0.0, **score(train, test, epochs=options.epochs, seed=options.seed)}]
    show(rows[0], chance)
    extra = {name: json.loads(value) for name, value in (each.split("=", 1) for each in options.set)}
    for name in options.generator or ["dcgan", "egan"]:
        known = {field.name for field in dataclasses.fields(GENERATORS[name])}
        for steps in map(int, options.steps.split(",")):
            settings = {"steps": steps, **{key: value for key, value in extra.items() if key in known}}
            row = measure(train, test, name=name, settings=settings, epochs=options.epochs, seed=options.seed)
            rows.append(row)
            show(row, chance)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
