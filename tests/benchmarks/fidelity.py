"""How faithful each generator's images are after a training of given cost, and what a classifier learns from them.

Run:
    python -m tests.benchmarks.fidelity --data FOLDER

One patient-grouped fold is set aside for testing. Each generator learns from the other folds, with the settings of a
budget, for so many minutes of CPU time on one thread; or, with --steps, for so many steps. Then:

- KID (in the features of the training fold's own extractor) of as many generated images as there are training images,
  beside the KID of the untrained generator; coverage and copy rate, beside those of the real test fold.
- balanced accuracy on the test fold of a small CNN that has seen generated images only, with a 95 % interval by
  bootstrap over test patients, beside that of the same CNN trained on the real images.

A generator passes where its KID has fallen to a third of the untrained one's and its interval lies above
chance. Textual inversion needs a pretrained pipeline: --set textual_inversion.pretrained=FOLDER.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spaces.budget import BUDGETS, budget_named
from spaces.config import ClassifierConfig, PreprocessConfig, RealConfig
from spaces.errors import ConfigError
from spaces.generators import GENERATORS, TrainedConfig
from trainables.classifiers.training import train_classifier
from trainables.data.affine import identity
from trainables.data.cohort import Cohort
from trainables.data.image_set import ImageSet
from trainables.data.preprocess import fit_scaling, preprocess
from trainables.data.reading import read_cohort
from trainables.data.splits import make_folds
from trainables.errors import DivergedError
from trainables.generators.acceptance import check_noise
from trainables.generators.base import FittedGenerator, Training
from trainables.generators.registry import build
from trainables.metrics.extractor import Extractor, train_extractor
from trainables.metrics.fidelity import fidelity
from trainables.metrics.intervals import bootstrap_by_patient
from trainables.mixers.real import Real

CPU = torch.device("cpu")
COLUMNS = ("generator", "steps", "CPU seconds", "KID", "untrained", "coverage", "copy rate", "balanced accuracy")
FALLEN_TO = 1 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one process computes: one row, or one of the two reference rows."""

    data: Path
    labels: str | None
    pixels: int
    folds: int
    seed: int
    epochs: int
    name: str
    settings: dict[str, Any]
    seconds: float | None
    sheet: Path | None


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
    """Balanced accuracy on the test images, with its interval, of a small CNN trained on ``train``."""
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
    interval = bootstrap_by_patient(test.labels_N, probabilities_NK, test.patients, positive=0, seed=seed)[
        "balanced_accuracy"
    ]
    if interval is None:
        raise SystemExit("the test fold has too few patients for an interval; use fewer --folds")
    return {"balanced_accuracy": interval.estimate, "low": interval.low, "high": interval.high}


def faithful(train: ImageSet, others: ImageSet, extractor: Extractor, *, seed: int) -> dict[str, Any]:
    """KID with its deviation, coverage and copy rate of other images beside the training images."""
    values = fidelity(train, others, extractor, seed=seed).values
    return {name: values[name] for name in ("kid", "kid_std", "coverage", "density", "copy_rate")}


def train_for(training: Training, *, steps: int, seconds: float | None) -> float:
    """Train for so many seconds of CPU time, or steps. Returns the seconds it took."""
    start = time.process_time()
    while (training.done < steps) if seconds is None else (time.process_time() - start < seconds):
        training.step()
    return time.process_time() - start


def row(task: Task) -> dict[str, Any]:
    """Compute one row of the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        cohort = read_cohort(task.data, task.labels, cache=Path(cache))
        train, test = first_fold(cohort, pixels=task.pixels, folds=task.folds, seed=task.seed)
    extractor = train_extractor(train, seed=task.seed, device=CPU, on_step=lambda done, total: None)
    found: dict[str, Any] = {"generator": task.name, "seed": task.seed, "chance": 1 / len(train.classes)}
    if task.name == "real training images":
        return {**found, **score(train, test, epochs=task.epochs, seed=task.seed)}
    if task.name == "real held-out images":
        return {**found, **faithful(train, test, extractor, seed=task.seed)}
    config = GENERATORS[task.name](**task.settings)
    assert isinstance(config, TrainedConfig)
    training = build(config).begin(train, seed=task.seed, device=CPU)
    untrained = faithful(train, pool(training.fitted(checked=False), train, seed=task.seed), extractor, seed=task.seed)
    found |= {"settings": task.settings, "untrained_kid": untrained["kid"]}
    try:
        found["cpu_seconds"] = train_for(training, steps=config.steps, seconds=task.seconds)
        start = time.process_time()
        made = pool(training.fitted(), train, seed=task.seed)
        check_noise(made.images_NCHW, train, steps=training.done, batch_size=config.batch_size)
        found |= {"steps": training.done, "sampling_seconds": time.process_time() - start}
    except DivergedError as error:
        return {**found, "steps": training.done, "failed": str(error)}
    found |= faithful(train, made, extractor, seed=task.seed)
    if task.sheet is not None:
        draw(train, made, task.sheet / f"{task.name}_{task.pixels}px_seed{task.seed}.png")
    return {**found, **score(made, test, epochs=task.epochs, seed=task.seed)}


def draw(train: ImageSet, made: ImageSet, path: Path) -> None:
    """Real images of each class above generated ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.05 * 4 * len(train.classes)))
    rows = [(name, images) for name in train.classes for images in (train, made, made, made)]
    grids = figure.subplots(len(rows), 12)
    for index, (name, images) in enumerate(rows):
        chosen = images.images_NCHW[images.labels_N == train.classes.index(name), 0][12 * (index % 4) :]
        for axes, image_HW in zip(grids[index], chosen, strict=False):
            axes.imshow(image_HW, cmap="gray", vmin=-1, vmax=1)
            axes.set_axis_off()
        grids[index][0].set_title(f"{name} {'real' if images is train else 'made'}", fontsize=8, loc="left")
    figure.savefig(path, dpi=70)


def cells(found: dict[str, Any]) -> list[str]:
    """A row as text."""

    def number(name: str, digits: int = 3) -> str:
        value = found.get(name)
        return "" if value is None else f"{value:.{digits}f}"

    if "failed" in found:
        return [found["generator"], str(found["steps"]), "", number("untrained_kid"), "", "", "", found["failed"]]
    kid = f"{number('kid')} ± {number('kid_std')}" if "kid" in found else ""
    accuracy = f"{number('balanced_accuracy')} [{number('low')}, {number('high')}]" if "low" in found else ""
    steps = f"{found['steps']:,}" if "steps" in found else ""
    return [
        found["generator"],
        steps,
        number("cpu_seconds", 0),
        kid,
        number("untrained_kid"),
        number("coverage"),
        number("copy_rate"),
        accuracy,
    ]


def passed(found: dict[str, Any]) -> bool:
    """Whether a generator's KID has fallen far enough and its classifier is above chance."""
    learnt = "failed" not in found and found["kid"] <= FALLEN_TO * found["untrained_kid"]
    return bool(learnt and found["low"] > found["chance"])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    tasks = list(_tasks(options))
    header = [COLUMNS, tuple("---" for _ in COLUMNS)]
    print("\n".join("| " + " | ".join(line) + " |" for line in header), flush=True)
    context = multiprocessing.get_context("spawn")
    rows = []
    with ProcessPoolExecutor(options.jobs, mp_context=context) as executor:
        for found in executor.map(row, tasks):
            rows.append(found)
            print("| " + " | ".join(cells(found)) + " |", flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    short = [found["generator"] for found in rows if "untrained_kid" in found and not passed(found)]
    print(
        f"\nBelow a third of the untrained KID, and above chance: {'all but ' + ', '.join(short) if short else 'all'}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--labels", help="another table than labels.csv")
    parser.add_argument("--generator", action="append", choices=[name for name in GENERATORS if name != "none"])
    parser.add_argument("--budget", choices=list(BUDGETS), default="standard", help="whose settings (standard)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--cpu-minutes", type=float, default=10.0, help="of each training (10)")
    length.add_argument("--steps", action="store_true", help="train for the budget's steps instead")
    parser.add_argument("--set", action="append", default=[], metavar="GENERATOR.NAME=JSON", help="other settings")
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40, help="of the classifier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="rows computed at once, each on one thread")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheets", type=Path, help="folder for a picture of each generator's images")
    return parser


def _tasks(options: argparse.Namespace) -> Iterator[Task]:
    common = {name: getattr(options, name) for name in ("data", "labels", "pixels", "folds", "seed", "epochs")}
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    chosen = options.generator or [name for name in GENERATORS if name != "none"]
    for name in ("real training images", "real held-out images", *chosen):
        known = {field.name for field in dataclasses.fields(GENERATORS[name])} if name in GENERATORS else set()
        presets = budget_named(options.budget).generators.get(name, {})
        settings = {key: value for key, value in presets.items() if key in known}
        for text in options.set:
            path, _, value = text.partition("=")
            generator, _, field = path.partition(".")
            if generator == name:
                try:
                    settings[field] = json.loads(value)
                except ValueError:
                    settings[field] = value
        if name in GENERATORS:
            try:
                GENERATORS[name](**settings)
            except ConfigError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
        seconds = None if options.steps else 60 * options.cpu_minutes
        yield Task(**common, name=name, settings=settings, seconds=seconds, sheet=options.sheets)


if __name__ == "__main__":
    main()
