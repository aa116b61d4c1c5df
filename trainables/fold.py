"""One fold of one trial: preprocess, generator, pool, mixer and classifier, scores, in that order.

Everything before the scores sees the training fold alone; each stage that trains checks that.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spaces.config import TrialConfig
from spaces.generators import training_part
from trainables import pool
from trainables.classifiers import registry as classifiers
from trainables.classifiers import training
from trainables.classifiers.trained import load_classifier
from trainables.data import affine
from trainables.data.cohort import Cohort
from trainables.data.image_files import load_image_set, save_image_set
from trainables.data.image_set import ImageSet
from trainables.data.preprocess import Scaling, fit_scaling, preprocess
from trainables.data.splits import FoldSplit
from trainables.errors import LeakError
from trainables.feature_map import OF_A_KIND, FeatureMap, feature_map
from trainables.files import read_json, write_json
from trainables.fold_keys import FoldKeys
from trainables.generators import registry as generators
from trainables.generators.acceptance import check_class
from trainables.generators.base import FittedGenerator, OnStep
from trainables.generators.fitting import CHECKPOINT_SECONDS, Trajectory, advance
from trainables.generators.previews import write_previews
from trainables.metrics import extractor, fidelity
from trainables.metrics.classification import scores
from trainables.metrics.patients import patient_scores
from trainables.mixers import registry as mixers
from trainables.mixers.base import Augment
from trainables.results import FoldResult, Prediction, StageRecord
from trainables.stage_checkpoints import TRAINING_FILE, save_state
from trainables.stages import Stage, StageKey, StageStore

CLASSIFIER_STATE = "state.safetensors"
HISTORY = "history.json"

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all); may raise StopRequested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a trial computes with and on, equal for all trials of a search.

    Args:
        cohort: the decoded images.
        store: where finished stages are found and put.
        seed: the search's seed.
        positive: index of the diseased class, for sensitivity and specificity of two classes.
        device: where networks compute.
        threads: CPU threads; the caller has told torch.
        report: progress of long stages.
        checkpoint_seconds: between two checkpoints of a training.
    """

    cohort: Cohort
    store: StageStore
    seed: int
    positive: int
    device: torch.device
    threads: int
    report: Report
    checkpoint_seconds: float = CHECKPOINT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldOutcome:
    """A finished fold and the file with the weights of its classifier, which the store may evict later.

    ``feature_map`` computes what figures show of the training images, of a trial's first fold; it changes nothing.
    """

    result: FoldResult
    weights: Path
    feature_map: Callable[[], FeatureMap] | None = None


def run_fold(config: TrialConfig, split: FoldSplit, environment: Environment) -> FoldOutcome:
    """Compute one fold.

    Where stages may be evicted meanwhile, the caller holds ``environment.store.in_use()``.

    Args:
        config: the trial.
        split: which images train and which test.
        environment: data, store, seed and device.

    Raises:
        LeakError: if a test patient's image reaches a stage that trains.
        DivergedError: if a training ends in non-finite losses or useless images.
    """
    return _Fold(config, split, environment).run()


class _Fold:
    """The stages of one fold in order, with the records they leave."""

    def __init__(self, config: TrialConfig, split: FoldSplit, environment: Environment) -> None:
        self._config = config
        self._split = split
        self._environment = environment
        self._keys = FoldKeys(
            config=config,
            split=split,
            cohort=environment.cohort,
            seed=environment.seed,
            threads=environment.threads,
        )
        self._records: list[StageRecord] = []
        self._loaded: FittedGenerator | None = None
        entries = [environment.cohort.entries[index] for index in (*split.test, *split.validation)]
        self._held_ids = {entry.id for entry in entries}
        self._held_patients = {entry.patient for entry in entries}

    def run(self) -> FoldOutcome:
        start = time.perf_counter()
        preprocessed = self._preprocess()
        real = load_image_set(preprocessed.folder)
        generator = self._generator(real) if self._config.synthetic is not None else None
        synthetic = self._synthetic(generator, real) if generator is not None else None
        learnt_from = tuple(record.key for record in self._records)
        found = self._fidelity(generator, real) if generator is not None else {}
        validation = self._held_out(preprocessed.folder, self._split.validation) if self._split.validation else None
        stage = self._classify(real, synthetic, validation, learnt_from)
        classifier = load_classifier(
            self._config.classifier,
            load_file(stage.folder / CLASSIFIER_STATE),
            len(real.classes),
            self._environment.device,
            history=read_json(stage.folder / HISTORY),
        )
        self._environment.store.touch_in_order_of_eviction(self._records)
        test = self._held_out(preprocessed.folder, self._split.test)
        probabilities_NK = classifier.probabilities(test.images_NCHW)
        result = FoldResult(
            fold=self._split.fold,
            scores=self._scores(test, probabilities_NK),
            stages=tuple(self._records),
            predictions=_predictions(test, probabilities_NK),
            counts={
                "real": len(real),
                "synthetic": len(synthetic) if synthetic else 0,
                "validation": len(self._split.validation),
                "test": len(test),
            },
            fidelity=found,
            seconds=time.perf_counter() - start,
            peak_bytes=max(peak_bytes(self._environment.device), *(each.peak_bytes for each in self._records)),
            name=self._split.name,
            locked=self._split.locked,
        )
        draw = partial(
            feature_map,
            classifier,
            real,
            synthetic,
            mixers.build(self._config.mixer),
            augment=self._augment,
            per_class=max(1, OF_A_KIND // len(real.classes)),
            seed=self._keys.stream("feature map"),
        )
        return FoldOutcome(
            result=result,
            weights=stage.folder / CLASSIFIER_STATE,
            feature_map=draw if self._split.fold == 0 else None,
        )

    @property
    def _augment(self) -> Augment:
        return affine.affine if self._config.affine else affine.identity

    def _guard(self, images: ImageSet, stage: str) -> None:
        leaked = [
            image
            for image, patient in zip(images.ids, images.patients, strict=True)
            if image in self._held_ids or patient in self._held_patients
        ]
        if leaked:
            raise LeakError(
                f"The stage '{stage}' of {self._split.name} was given {len(leaked)} images of test or validation "
                f"patients, '{leaked[0]}' the first; a stage that trains may see the training fold only."
            )

    def _obtain(self, key: StageKey, compute: Callable[[Path], float | None]) -> Stage:
        self._environment.report(key.stage, 0, 0)
        stage = self._environment.store.obtain(key, compute, device=str(self._environment.device))
        if stage.record.key not in (record.key for record in self._records):
            self._records.append(stage.record)
        return stage

    def _advance(self, begun: Trajectory, key: StageKey, *, on_step: OnStep = lambda done, total: None) -> float:
        """Train to the stage's position, from the furthest state that the store has of its trajectory.

        Returns: the seconds that computing that state had taken.
        """
        assert key.position is not None  # noqa: S101 - trainings have one
        checkpoints = self._environment.store.checkpoints(key)
        advance(
            begun,
            key.position,
            on_step=on_step,
            checkpoints=checkpoints,
            every=self._environment.checkpoint_seconds,
        )
        return checkpoints.inherited

    def _preprocess(self) -> Stage:
        cohort, train, config = self._environment.cohort, self._split.train, self._config.preprocess

        def compute(folder: Path) -> None:
            scaling = fit_scaling(cohort, train, config)
            images = preprocess(cohort, train, scaling, config)
            self._guard(images, "preprocess")
            save_image_set(folder, images)
            write_json(folder / "scaling.json", scaling.to_dict())

        return self._obtain(self._keys.preprocess, compute)

    def _synthetic(self, generator: Stage, real: ImageSet) -> ImageSet:
        """The trial's share of the pool."""
        assert self._config.synthetic is not None  # noqa: S101 - there is a generator
        counts = pool.shares(real.counts, self._config.synthetic)
        return pool.take(self._chunks(generator, real, counts), counts, real.classes)

    def _chunks(self, generator: Stage, real: ImageSet, counts: tuple[int, ...]) -> list[Path]:
        return [self._chunk(generator, real, label, start) for label, start in pool.chunks(counts)]

    def _generator(self, real: ImageSet) -> Stage:
        config, environment, key = self._keys.trained, self._environment, self._keys.generator

        def compute(folder: Path) -> float:
            self._guard(real, "generator")
            untrained = generators.build(training_part(config))
            begun = untrained.begin(real, seed=key.seed, device=environment.device)
            inherited = self._advance(
                begun, key, on_step=lambda done, total: environment.report("generator", done, total)
            )
            fitted, previews = begun.fitted(), begun.previews()
            save_file(fitted.state(), folder / "state.safetensors")
            write_json(folder / HISTORY, fitted.history)
            save_state(folder / TRAINING_FILE, begun.state())
            if previews is not None:
                write_previews(folder, previews, real.classes)
            return inherited

        return self._obtain(key, compute)

    def _fitted(self, generator: Stage, real: ImageSet) -> FittedGenerator:
        """The trained generator, read once for all chunks of the fold."""
        if self._loaded is None:
            self._loaded = generators.build(self._keys.trained).load(
                load_file(generator.folder / "state.safetensors"),
                read_json(generator.folder / HISTORY),
                n_classes=len(real.classes),
                pixels=real.pixels,
                device=self._environment.device,
            )
        return self._loaded

    def _chunk(self, generator: Stage, real: ImageSet, label: int, start: int) -> Path:
        key = self._keys.chunk(label, start)

        def compute(folder: Path) -> None:
            fitted = self._fitted(generator, real)
            images_NCHW = pool.write_chunk(folder, fitted, label, start, seed=key.seed)
            check_class(images_NCHW, real, label, when=f"in the pool, sampled with {key.config['sampling']},")

        return self._obtain(key, compute).folder

    def _extractor(self, real: ImageSet) -> Stage:
        environment, key = self._environment, self._keys.extractor

        def compute(folder: Path) -> None:
            self._guard(real, "extractor")
            trained = extractor.train_extractor(
                real,
                seed=key.seed,
                device=environment.device,
                on_step=lambda done, total: environment.report("extractor", done, total),
            )
            save_file(trained.state(), folder / "state.safetensors")

        return self._obtain(key, compute)

    def _fidelity(self, generator: Stage, real: ImageSet) -> Mapping[str, float | None]:
        """How faithful as many synthetic images as there are real ones are: the same for every share of the pool."""
        folders = self._chunks(generator, real, real.counts)
        features = self._extractor(real)
        key = self._keys.fidelity([self._keys.chunk(label, start) for label, start in pool.chunks(real.counts)])

        def compute(folder: Path) -> None:
            self._guard(real, "fidelity")
            weights = load_file(features.folder / "state.safetensors")
            trained = extractor.load_extractor(weights, len(real.classes), self._environment.device)
            synthetic = pool.take(folders, real.counts, real.classes)
            found = fidelity.fidelity(real, synthetic, trained, seed=key.seed)
            fidelity.write_fidelity(folder, found, real.classes)

        return fidelity.read_fidelity(self._obtain(key, compute).folder)

    def _classify(
        self, real: ImageSet, synthetic: ImageSet | None, validation: ImageSet | None, learnt_from: tuple[str, ...]
    ) -> Stage:
        config, environment = self._config, self._environment
        key = self._keys.classifier(real.counts, synthetic.counts if synthetic else (), learnt_from)

        def compute(folder: Path) -> float:
            self._guard(real, "classifier")
            begun = training.begin_classifier(
                config.classifier,
                mixers.build(config.mixer),
                real,
                synthetic,
                validation=validation,
                augment=self._augment,
                balanced=self._keys.balanced,
                seed=key.seed,
                device=environment.device,
                on_batch=lambda done, total: environment.report("classifier", done, total),
            )
            inherited = self._advance(begun, key)
            fitted = begun.fitted()
            if classifiers.goes_on(config.classifier):
                save_state(folder / TRAINING_FILE, begun.state())
            save_file(fitted.state(), folder / CLASSIFIER_STATE)
            write_json(folder / HISTORY, dict(fitted.history))
            return inherited

        return self._obtain(key, compute)

    def _held_out(self, folder: Path, indices: Sequence[int]) -> ImageSet:
        """Images that the training fold's scaling has not seen."""
        scaling = Scaling.from_dict(json.loads((folder / "scaling.json").read_text(encoding="utf-8")))
        return preprocess(self._environment.cohort, indices, scaling, self._config.preprocess)

    def _scores(self, test: ImageSet, probabilities_NK: Tensor) -> dict[str, float | None]:
        """Scores of images, and of patients where these are known."""
        given = test.labels_N.numpy(), probabilities_NK.numpy()
        positive = self._environment.positive
        found = scores(*given, test.classes, positive=positive)
        if self._environment.cohort.patients_known:
            found |= patient_scores(*given, test.patients, test.classes, positive=positive)
        return found


def _predictions(test: ImageSet, probabilities_NK: Tensor) -> tuple[Prediction, ...]:
    rows = zip(test.ids, test.patients, test.labels_N.tolist(), probabilities_NK.tolist(), strict=True)
    return tuple(
        Prediction(image=image, patient=patient, label=label, probabilities=tuple(row))
        for image, patient, label, row in rows
    )


def peak_bytes(device: torch.device) -> int:
    """Peak memory of this process so far: on the GPU where it computes there, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
