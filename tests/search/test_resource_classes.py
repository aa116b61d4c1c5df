"""Small trials share a GPU, others have one for themselves, and there are no more classes than these two."""

from __future__ import annotations

from dataclasses import replace

from search.resource_classes import HEADROOM, ResourceClasses
from spaces.parameter import Value
from trainables.results import FoldResult, StageRecord, TrialResult

GIB = 2**30
CLASSIFIER = GIB // 2
CLASSES = ResourceClasses(share=0.25, whole=1.0, gpu_bytes=80 * GIB)


def measured(generator: str, peak_bytes: int) -> TrialResult:
    needs = {"generator": peak_bytes, "classifier": CLASSIFIER}
    stages = tuple(
        StageRecord(name=name, key="k", seconds=1.0, reused=True, peak_bytes=each) for name, each in needs.items()
    )
    fold = FoldResult(fold=0, scores={}, stages=stages, predictions=(), counts={}, seconds=1.0, peak_bytes=0)
    return TrialResult(
        id="t0000",
        config={"generator.name": generator},
        reference=None,
        state="completed",
        folds=(fold,),
        error=None,
        created=0.0,
        ended=1.0,
    )


def gpus(config: dict[str, Value], *trials: TrialResult, lacked_memory: bool = False) -> float:
    return CLASSES.gpus(config, trials, lacked_memory=lacked_memory)


def test_a_trial_shares_a_gpu_once_its_generator_was_measured_to_fit() -> None:
    config: dict[str, Value] = {"generator.name": "dcgan"}
    fits = int(20 * GIB / HEADROOM)
    assert gpus(config) == 1.0
    assert gpus(config, measured("egan", GIB)) == 1.0
    assert gpus(config, measured("dcgan", fits)) == 0.25
    assert gpus(config, measured("dcgan", fits + GIB)) == 1.0
    assert gpus(config, measured("dcgan", GIB), measured("dcgan", fits + GIB)) == 1.0
    assert gpus(config, measured("dcgan", 0)) == 1.0, "a generator that was reused says nothing of its memory"
    assert gpus({**config, "generator.width": 64}, measured("dcgan", GIB)) == 1.0


def test_a_trial_that_lacked_memory_gets_a_whole_gpu() -> None:
    assert gpus({"generator.name": "dcgan"}, measured("dcgan", GIB), lacked_memory=True) == 1.0


def test_a_share_that_the_user_fixed_holds_for_every_trial() -> None:
    fixed = replace(CLASSES, share=0.5, whole=0.5)
    assert fixed.gpus({}, [measured("dcgan", 70 * GIB)], lacked_memory=False) == 0.5


def test_nothing_fits_where_the_memory_of_the_gpus_is_not_known() -> None:
    unknown = replace(CLASSES, gpu_bytes=0)
    assert unknown.gpus({"generator.name": "dcgan"}, [measured("dcgan", GIB)], lacked_memory=False) == 1.0
