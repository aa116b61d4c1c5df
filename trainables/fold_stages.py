"""The training side of a fold: preprocess, generator, pool, mixer and classifier, each found in the store or computed.

All of it sees the training fold alone; each stage that trains checks that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from spaces.config import TrialConfig
from spaces.generators import training_part
from trainables import pool
from trainables.classifiers import registry as classifiers
from trainables.classifiers import training
from trainables.classifiers.trained import TrainedClassifier, load_classifier
from trainables.data import affine
from trainables.data.image_files import load_image_set, save_image_set
from trainables.data.image_set import ImageSet
from trainables.data.preprocess import fit_scaling, preprocess
from trainables.data.resampling import Scaling
from trainables.data.splits import FoldSplit
from trainables.environment import Environment
from trainables.errors import LeakError
from trainables.files import read_json, write_json
from trainables.fold_keys import FoldKeys
from trainables.generators import registry as generators
from trainables.generators.acceptance import check_class, check_noise
from trainables.generators.base import FittedGenerator
from trainables.generators.previews import write_previews
from trainables.metrics import extractor, fidelity
from trainables.metrics.extractor import Extractor
from trainables.mixers import registry as mixers
from trainables.mixers.base import Augment
from trainables.results import StageRecord
from trainables.stage_checkpoints import TRAINING_FILE, save_state
from trainables.stages import Stage, StageKey
from trainables.training.loop import OnStep, Trajectory, advance

CLASSIFIER_STATE = "state.safetensors"
HISTORY = "history.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What the training side of a fold ends in.

    Args:
        classifier: the trained classifier.
        weights: the file with its weights, which the store may evict later.
        key: of its stage.
        real: the real training images.
        synthetic: the trial's share of the pool; None where it has none.
        scaling: what preprocessing learnt from the real training images.
        fidelity: how good the synthetic images are; empty where there are none.
    """

    classifier: TrainedClassifier
    weights: Path
    key: str
    real: ImageSet
    synthetic: ImageSet | None
    scaling: Scaling
    fidelity: Mapping[str, float | None]


class FoldStages:
    """The stages of one fold in order, with the records they leave.

    Where stages may be evicted meanwhile, the caller holds ``environment.store.in_use()``.

    Args:
        config: the trial.
        split: which images train; no stage is given one of a test or validation patient.
        environment: data, store, seed and device.
    """

    def __init__(self, config: TrialConfig, split: FoldSplit, environment: Environment) -> None:
        self._config = config
        self._split = split
        self._environment = environment
        self.keys = FoldKeys(
            config=config,
            split=split,
            cohort=environment.cohort,
            seed=environment.seed,
            threads=environment.threads,
        )
        self.records: list[StageRecord] = []
        self.seconds_of_reused = 0.0
        """How long what was reused took to get: others computed it, and it may have been waited for."""
        self._loaded: FittedGenerator | None = None
        entries = [environment.cohort.entries[index] for index in (*split.test, *split.validation)]
        self._held_ids = {entry.id for entry in entries}
        self._held_patients = {entry.patient for entry in entries}

    def train(self) -> Trained:
        """Compute every stage that the store lacks.

        Raises:
            LeakError: if a test patient's image reaches a stage that trains.
            DivergedError: if a training ends in non-finite losses or useless images.
            EmptyPoolError: if the trial's share of the pool is no image, before a generator is trained for it.
        """
        folder = self.preprocessed().folder
        real, scaling = load_image_set(folder), Scaling.from_dict(read_json(folder / "scaling.json"))
        counts = pool.shares(real.counts, self._config.synthetic) if self._config.synthetic is not None else ()
        generator = self.generator(real) if counts else None
        synthetic = pool.take(self._chunks(generator, real, counts), counts, real.classes) if generator else None
        learnt_from = tuple(record.key for record in self.records)
        found = self._fidelity(generator, real) if generator is not None else {}
        validation = self.held_out(scaling, self._split.validation) if self._split.validation else None
        stage = self.classifier(real, synthetic, validation, learnt_from)
        classifier = load_classifier(
            self._config.classifier,
            load_file(stage.folder / CLASSIFIER_STATE),
            len(real.classes),
            self._environment.device,
            history=read_json(stage.folder / HISTORY),
        )
        self._environment.store.touch_in_order_of_eviction(self.records)
        return Trained(
            classifier=classifier,
            weights=stage.folder / CLASSIFIER_STATE,
            key=stage.record.key,
            real=real,
            synthetic=synthetic,
            scaling=scaling,
            fidelity=found,
        )

    @property
    def augment(self) -> Augment:
        """What every source image goes through before mixing."""
        return affine.affine if self._config.affine else affine.identity

    def held_out(self, scaling: Scaling, indices: Sequence[int]) -> ImageSet:
        """Images that the training fold's scaling has not seen."""
        return preprocess(self._environment.cohort, indices, scaling, self._config.preprocess)

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
        start = time.perf_counter()
        stage = self._environment.store.obtain(key, compute, device=str(self._environment.device))
        if stage.record.reused:
            self.seconds_of_reused += time.perf_counter() - start
        if stage.record.key not in (record.key for record in self.records):
            self.records.append(stage.record)
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

    def preprocessed(self) -> Stage:
        """The real training images, and what preprocessing learnt from them."""
        cohort, train, config = self._environment.cohort, self._split.train, self._config.preprocess

        def compute(folder: Path) -> None:
            scaling = fit_scaling(cohort, train, config)
            images = preprocess(cohort, train, scaling, config)
            self._guard(images, "preprocess")
            save_image_set(folder, images)
            write_json(folder / "scaling.json", scaling.to_dict())

        return self._obtain(self.keys.preprocess, compute)

    def _chunks(self, generator: Stage, real: ImageSet, counts: tuple[int, ...]) -> list[Path]:
        return [self._chunk(generator, real, label, start) for label, start in pool.chunks(counts)]

    def generator(self, real: ImageSet) -> Stage:
        """The trained generator. Raises: TypeError where the trial has none."""
        config, environment, key = self.keys.trained, self._environment, self.keys.generator

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

    def fitted(self, generator: Stage, real: ImageSet) -> FittedGenerator:
        """The trained generator, read once for all chunks of the fold."""
        if self._loaded is None:
            self._loaded = generators.build(self.keys.trained).load(
                load_file(generator.folder / "state.safetensors"),
                read_json(generator.folder / HISTORY),
                n_classes=len(real.classes),
                pixels=real.pixels,
                device=self._environment.device,
            )
        return self._loaded

    def _chunk(self, generator: Stage, real: ImageSet, label: int, start: int) -> Path:
        key = self.keys.chunk(label, start)

        def compute(folder: Path) -> None:
            fitted = self.fitted(generator, real)
            images_NCHW = pool.write_chunk(folder, fitted, label, start, seed=key.seed)
            check_class(images_NCHW, real, label, when="in the pool", sampling=self.keys.sampling)

        return self._obtain(key, compute).folder

    def extractor(self, real: ImageSet) -> Stage:
        """The network whose features fidelity is measured in."""
        environment, key = self._environment, self.keys.extractor

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

    def load_extractor(self, stage: Stage, real: ImageSet) -> Extractor:
        """The network of a stage that ``extractor`` gave."""
        weights = load_file(stage.folder / "state.safetensors")
        return extractor.load_extractor(weights, len(real.classes), self._environment.device)

    def _fidelity(self, generator: Stage, real: ImageSet) -> Mapping[str, float | None]:
        """How faithful as many synthetic images as there are real ones are: the same for every share of the pool."""
        folders = self._chunks(generator, real, real.counts)
        features = self.extractor(real)
        key = self.keys.fidelity([self.keys.chunk(label, start) for label, start in pool.chunks(real.counts)])

        def compute(folder: Path) -> None:
            self._guard(real, "fidelity")
            synthetic = pool.take(folders, real.counts, real.classes)
            trained = self.keys.trained
            check_noise(
                synthetic.images_NCHW,
                real,
                steps=trained.steps,
                batch_size=trained.batch_size,
                sampling=self.keys.sampling,
            )
            found = fidelity.fidelity(real, synthetic, self.load_extractor(features, real), seed=key.seed)
            fidelity.write_fidelity(folder, found, real.classes)

        return fidelity.read_fidelity(self._obtain(key, compute).folder)

    def classifier(
        self, real: ImageSet, synthetic: ImageSet | None, validation: ImageSet | None, learnt_from: tuple[str, ...]
    ) -> Stage:
        """The trained classifier.

        Args:
            real: the real training images.
            synthetic: the trial's share of the pool, or None.
            validation: what early stopping reads, or None.
            learnt_from: keys of the stages whose images it sees.
        """
        config, environment = self._config, self._environment
        key = self.keys.classifier(real.counts, synthetic.counts if synthetic else (), learnt_from)

        def compute(folder: Path) -> float:
            self._guard(real, "classifier")
            begun = training.begin_classifier(
                config.classifier,
                mixers.build(config.mixer),
                real,
                synthetic,
                validation=validation,
                augment=self.augment,
                balanced=self.keys.balanced,
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
