"""One fold of one trial: preprocess, generator, pool, mixer and classifier, scores, in that order.

Everything before the scores sees the training fold alone.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from spaces.config import TrialConfig
from trainables.data.image_set import ImageSet
from trainables.data.splits import FoldSplit
from trainables.environment import Environment as Environment
from trainables.feature_map import OF_A_KIND, FeatureMap, feature_map
from trainables.fold_stages import FoldStages
from trainables.metrics.classification import scores
from trainables.metrics.patients import patient_scores
from trainables.mixers import registry as mixers
from trainables.results import FoldResult, Prediction


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
    start = time.perf_counter()
    stages = FoldStages(config, split, environment)
    trained = stages.train()
    test = stages.held_out(trained.scaling, split.test)
    probabilities_NK = trained.classifier.probabilities(test.images_NCHW)
    result = FoldResult(
        fold=split.fold,
        scores=_scores(test, probabilities_NK, environment),
        stages=tuple(stages.records),
        predictions=_predictions(test, probabilities_NK),
        counts={
            "real": len(trained.real),
            "synthetic": len(trained.synthetic) if trained.synthetic else 0,
            "validation": len(split.validation),
            "test": len(test),
        },
        fidelity=trained.fidelity,
        seconds=time.perf_counter() - start - stages.seconds_of_reused,
        peak_bytes=max(peak_bytes(environment.device), *(each.peak_bytes for each in stages.records)),
        name=split.name,
        locked=split.locked,
    )
    draw = partial(
        feature_map,
        trained.classifier,
        trained.real,
        trained.synthetic,
        mixers.build(config.mixer),
        augment=stages.augment,
        per_class=max(1, OF_A_KIND // len(trained.real.classes)),
        seed=stages.keys.stream("feature map"),
    )
    return FoldOutcome(result=result, weights=trained.weights, feature_map=draw if split.fold == 0 else None)


def _scores(test: ImageSet, probabilities_NK: Tensor, environment: Environment) -> dict[str, float | None]:
    """Scores of images, and of patients where these are known."""
    given = test.labels_N.numpy(), probabilities_NK.numpy()
    found = scores(*given, test.classes, positive=environment.positive)
    if environment.cohort.patients_known:
        found |= patient_scores(*given, test.patients, test.classes, positive=environment.positive)
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
    return _resident_peak()


def _resident_peak(status: Path = Path("/proc/self/status")) -> int:
    """The most that this process has held; what the process that started it held, ``getrusage`` counts as well.

    Args:
        status: where Linux says it; systems without that, or without the line, leave ``getrusage``.
    """
    _, found, rest = status.read_text("ascii").partition("VmHWM:") if status.exists() else ("", "", "")
    if found:
        return 1024 * int(rest.split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
