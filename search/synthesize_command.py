"""The subcommand ``synthesize``: images by the best policy's generator, marked as synthetic wherever that is possible.

A search that keeps patients' images out of tracking and reports (``--no-images``) does not forbid it: that option is
about what leaves the storage by itself, and here the user asks for files in a folder of their own. But a generator may
copy what it was trained on, so the share of copies among these very images is measured, printed and kept with them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from search.console import open_console
from search.outcome import policy, rank
from search.settings import SettingsError
from search.storage import check_writable, find_search
from search.synthetic_files import Writing, unwritable, write_folder
from search.versions import versions
from search.winner import Bench, bench, chosen_trial, config_of
from spaces.config import TrialConfig, as_dict
from spaces.errors import nearest
from trainables.data.image_files import load_image_set
from trainables.data.image_set import ImageSet
from trainables.data.resampling import Scaling
from trainables.errors import FinalTrialError, StopRequested
from trainables.files import read_json
from trainables.generators.acceptance import check_images
from trainables.generators.base import FittedGenerator
from trainables.ledger import Ledger, SearchRecord
from trainables.metrics.copies import Copies, find_copies
from trainables.pool import CHUNK, largest_remainder
from trainables.refit import STREAM, refit_stages
from trainables.results import TrialResult
from trainables.seeding import stream

WARNING = "Synthetic images: computed by a generative model. They show no patient. Not for clinical use."


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesizeWish:
    """What the user asks for.

    Args:
        storage: the folder of the searches.
        name: of the search; None: the latest.
        trial: whose generator; None: the best trial's.
        out: the folder to write, new or empty.
        count: images, of all classes together.
        of_class: of this class alone; None: of all, in the proportions of the training images.
        file_format: "mha" or "png".
        seed: of the images.
    """

    storage: Path
    name: str | None
    trial: str | None
    out: Path
    count: int
    of_class: str | None
    file_format: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Made:
    images: ImageSet
    trained_on: tuple[int, ...]
    scaling: Scaling
    copies: Copies
    stage: str


def synthesize(wish: SynthesizeWish) -> int:
    """Train the generator on all images of the search where that has not been done, and write images by it.

    Returns the exit code: 1 if its training diverged.

    Raises:
        InputError: there is no such search, trial or class; the trial has no generator; the folder is not empty.
    """
    console = open_console()
    search = find_search(wish.storage, wish.name)
    trial = chosen_trial(search, wish.trial)
    config = config_of(search, trial)
    if config.synthetic is None:
        raise _no_generator(search, trial)
    _check_class(wish.of_class, search.search())
    _check_folder(wish.out)
    check_writable(wish.storage)
    try:
        with bench(search, console, doing=f"synthesizing by {trial.id}") as found:
            try:
                made = _make(wish, search.search(), config, found)
            except StopRequested:
                console.print("Stopped; nothing was written. The same command goes on from where it was.")
                return found.stop.exit_code or 130
    except FinalTrialError as error:
        console.print(f"The generator of {trial.id} failed: {error}", style="red")
        return 1
    manifest = _manifest(wish, search, trial, config, made)
    writing = Writing(file_format=wish.file_format, scaling=made.scaling, marks=_marks(search, trial, config))
    write_folder(wish.out, made.images, writing, manifest)
    _report(wish, search.search(), made, console)
    return 0


def _no_generator(search: Ledger, trial: TrialResult) -> SettingsError:
    record = search.search()
    others = [each for each in rank(search.trials(), record) if "generator.name" in each.config]
    advice = (
        f"name the best one that has, --trial {others[0].id} ({policy(others[0].config, record.space)})"
        if others
        else "no complete trial of this search has one"
    )
    return SettingsError(
        f"{trial.id} of '{search.folder.name}' ({policy(trial.config, record.space)}) has no generator to make images; "
        f"{advice}."
    )


def _check_class(name: str | None, record: SearchRecord) -> None:
    if name is not None and name not in record.data.classes:
        raise SettingsError(f"--class '{name}' is no class of the search; {nearest(name, record.data.classes)}.")


def _check_folder(out: Path) -> None:
    """Raises: SettingsError if the images cannot be the only content of that folder, or it cannot be written."""
    try:
        place = out.resolve()
        if place.exists() and (not place.is_dir() or next(place.iterdir(), None) is not None):
            wrong = "is not empty" if place.is_dir() else "is a file"
            raise SettingsError(
                f"--out '{out}' {wrong}; name a new folder, so that synthetic images are not taken for others."
            )
        if not place.parent.is_dir():
            raise SettingsError(f"--out '{out}' lies in a folder that does not exist; create {place.parent}.")
        with tempfile.TemporaryDirectory(prefix=".genmix-", dir=place if place.exists() else place.parent):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise unwritable(out, error) from None


def _make(wish: SynthesizeWish, record: SearchRecord, config: TrialConfig, found: Bench) -> _Made:
    stages = refit_stages(config, record.protocol, found.environment)
    folder = stages.preprocessed().folder
    real = load_image_set(folder)
    generator = stages.generator(real)
    fitted, trained = stages.fitted(generator, real), stages.keys.trained
    check_images(fitted, real, steps=trained.steps, batch_size=trained.batch_size, seed=wish.seed)
    images = _sample(wish, fitted, real, found)
    extractor = stages.load_extractor(stages.extractor(real), real)
    return _Made(
        images=images,
        trained_on=real.counts,
        scaling=Scaling.from_dict(read_json(folder / "scaling.json")),
        copies=find_copies(real, images, extractor.features, device=extractor.device),
        stage=generator.record.key,
    )


def _sample(wish: SynthesizeWish, fitted: FittedGenerator, real: ImageSet, found: Bench) -> ImageSet:
    """Images of each class, in the proportions of the training images, or of one class."""
    counts = _counts(wish, real)
    pieces: list[Tensor] = []
    labels: list[int] = []
    ids: list[str] = []
    seed = stream(wish.seed, f"{STREAM}/synthesize")
    for label, total in enumerate(counts):
        for start in range(0, total, CHUNK):
            found.environment.report("images", len(ids) + start, sum(counts))
            pieces.append(fitted.sample(label, start, min(CHUNK, total - start), seed=seed))
        labels += [label] * total
        ids += [f"synthetic/{real.classes[label]}/{index:06d}" for index in range(total)]
    return ImageSet(
        images_NCHW=torch.cat(pieces),
        labels_N=torch.tensor(labels, dtype=torch.int64),
        ids=tuple(ids),
        patients=("",) * len(ids),
        classes=real.classes,
    )


def _counts(wish: SynthesizeWish, real: ImageSet) -> tuple[int, ...]:
    if wish.of_class is not None:
        return tuple(wish.count if name == wish.of_class else 0 for name in real.classes)
    return largest_remainder([wish.count * count / len(real) for count in real.counts], wish.count)


def _marks(search: Ledger, trial: TrialResult, config: TrialConfig) -> Mapping[str, str]:
    """What every file says of itself."""
    made_by = f"{config.generator.name} of {trial.id}, search {search.folder.name}"
    return {"Comment": WARNING, "Software": f"genmix-search: {made_by}"}


def _manifest(
    wish: SynthesizeWish, search: Ledger, trial: TrialResult, config: TrialConfig, made: _Made
) -> Mapping[str, Any]:
    record = search.search()
    classes = made.images.classes
    return {
        "format": 1,
        "synthetic": True,
        "warning": WARNING,
        "generator": config.generator.name,
        "settings": as_dict(config.generator),
        "config": dict(trial.config),
        "search": search.folder.name,
        "trial": trial.id,
        "budget": record.budget,
        "seeds": {"search": record.seed, "stream": STREAM, "images": wish.seed},
        "stage": made.stage,
        "data": {"digest": record.data.digest, "phantom": record.data.is_phantom},
        "trained_on": dict(zip(classes, made.trained_on, strict=True)),
        "images": dict(zip(classes, made.images.counts, strict=True)),
        "copies": {
            "rate": made.copies.rate,
            "rate_pixels": made.copies.rate_pixels,
            "rate_features": made.copies.rate_features,
            "meaning": "share of these images that lie as near to a training image as only 1 % of the training images "
            "lie to one of another patient; null where patients are not known or too few",
        },
        "pixels": made.images.pixels,
        "scaling": made.scaling.to_dict(),
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _report(wish: SynthesizeWish, record: SearchRecord, made: _Made, console: Console) -> None:
    counts = zip(made.images.classes, made.images.counts, strict=True)
    listed = ", ".join(f"{name} {count}" for name, count in counts if count)
    console.print(f"{len(made.images)} synthetic images ({listed}): {wish.out}")
    rate = made.copies.rate
    console.print(
        "How many copy a training image cannot be said: there is but one patient."
        if rate is None
        else f"{rate:.1%} of them count as copies of a training image; about 1 % of new patients' images would."
    )
    if not record.show_images and rate != 0.0:
        console.print(
            "This search keeps patients' images out of tracking and reports (--no-images): look at what was written "
            "before you pass it on.",
            style="yellow",
        )
    console.print(WARNING, style="yellow")
