"""The keys of a fold's stages, known before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from spaces.config import TrialConfig, as_dict
from spaces.generators import TrainedConfig
from spaces.parameter import Value
from trainables import pool
from trainables.classifiers import registry as classifiers
from trainables.classifiers import training
from trainables.data.cohort import Cohort
from trainables.data.preprocess import PREPROCESS_VERSION
from trainables.data.splits import FoldSplit
from trainables.generators import registry as generators
from trainables.metrics import extractor, fidelity
from trainables.mixers import registry as mixers
from trainables.seeding import stream
from trainables.stages import StageKey


@dataclass(frozen=True, kw_only=True)
class FoldKeys:
    """Names the stages of one fold of one trial.

    Args:
        config: the trial.
        split: which images train and which test.
        cohort: the decoded images.
        seed: the search's seed.
        threads: CPU threads that stages are computed with.
    """

    config: TrialConfig
    split: FoldSplit
    cohort: Cohort
    seed: int
    threads: int

    def stream(self, stage: str) -> int:
        """The stage's seed: the same for every configuration, so that trials are compared under common draws."""
        return stream(self.seed, f"{self.split.stream}/{stage}")

    @property
    def trained(self) -> TrainedConfig:
        """The generator's configuration. Raises: TypeError where the trial has none."""
        if not isinstance(self.config.generator, TrainedConfig):
            raise TypeError("the trial has no generator to train; ask for its stages only where it has one.")
        return self.config.generator

    @property
    def balanced(self) -> bool:
        """Whether the synthetic images balance the classes."""
        return self.config.synthetic is not None and self.config.synthetic.balance

    def before_the_classifier(self) -> tuple[StageKey, ...]:
        """The stages that trials share and wait for: the longest part of a fold."""
        if self.config.synthetic is None:
            return (self.preprocess,)
        return (self.preprocess, self.generator, self.extractor)

    @cached_property
    def preprocess(self) -> StageKey:
        """The training fold's images, scaled and resized."""
        return StageKey(
            stage="preprocess",
            version=PREPROCESS_VERSION,
            config=as_dict(self.config.preprocess),
            inputs=(self.cohort.content_digest(self.split.train),),
            seed=0,
            threads=self.threads,
        )

    @cached_property
    def generator(self) -> StageKey:
        """The trained generator, a position on its trajectory."""
        return StageKey(
            stage="generator",
            version=generators.STAGE_VERSIONS[self.trained.name],
            config=generators.training_slice(self.trained),
            inputs=(self.preprocess.digest,),
            seed=self.stream("generator"),
            threads=self.threads,
            position=self.trained.steps,
        )

    @property
    def sampling(self) -> dict[str, Value]:
        """The settings that the trial samples its pool with, beside those of the training."""
        return {name: getattr(self.trained, name) for name in self.trained.SAMPLING}

    def chunk(self, label: int, start: int) -> StageKey:
        """One chunk of the pool: images of one class from a number on."""
        return StageKey(
            stage="pool",
            version=pool.STAGE_VERSION,
            config={"class_index": label, "start": start, "count": pool.CHUNK, "sampling": self.sampling},
            inputs=(self.generator.digest,),
            seed=self.stream("pool"),
            threads=self.threads,
        )

    @cached_property
    def extractor(self) -> StageKey:
        """The network whose features fidelity is measured in."""
        return StageKey(
            stage="extractor",
            version=extractor.STAGE_VERSION,
            config={"recipe": extractor.RECIPE_DIGEST},
            inputs=(self.preprocess.digest,),
            seed=self.stream("extractor"),
            threads=self.threads,
        )

    def fidelity(self, chunks: Sequence[StageKey]) -> StageKey:
        """How faithful the images of these chunks are."""
        return StageKey(
            stage="fidelity",
            version=fidelity.STAGE_VERSION,
            config={},
            inputs=(self.extractor.digest, self.generator.digest, *(chunk.digest for chunk in chunks)),
            seed=self.stream("fidelity"),
            threads=self.threads,
        )

    def classifier(
        self, real_counts: Sequence[int], synthetic_counts: Sequence[int], learnt_from: Sequence[str]
    ) -> StageKey:
        """The trained classifier, a position on its trajectory.

        Args:
            real_counts: real training images of each class.
            synthetic_counts: the trial's share of the pool, by class; empty where there is none.
            learnt_from: keys of the stages whose images it sees.
        """
        config = self.config
        return StageKey(
            stage="classifier",
            version=training.CLASSIFIER_STAGE_VERSION,
            config={
                "classifier": classifiers.trajectory_slice(config.classifier),
                "mixer": {**as_dict(config.mixer), "version": mixers.MIXER_VERSION},
                "affine": config.affine,
                "counts": [list(real_counts), list(synthetic_counts)],
                "balance": self.balanced,
            },
            inputs=(*learnt_from, *self._validated_by()),
            seed=self.stream("classifier"),
            threads=self.threads,
            position=classifiers.position(config.classifier),
        )

    def classifier_of(self, real_counts: Sequence[int], synthetic_counts: Sequence[int]) -> StageKey:
        """The trained classifier, known before anything is computed. See ``classifier``."""
        learnt_from = [self.preprocess]
        if synthetic_counts:
            chunks = [self.chunk(label, start) for label, start in pool.chunks(synthetic_counts)]
            learnt_from += [self.generator, *chunks]
        return self.classifier(real_counts, synthetic_counts, [key.digest for key in learnt_from])

    def _validated_by(self) -> tuple[str, ...]:
        """What early stopping reads, by content; nothing where it is off."""
        if not (self.config.classifier.patience and self.split.validation):
            return ()
        return (self.cohort.content_digest(self.split.validation),)
