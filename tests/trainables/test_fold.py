"""A fold never learns from its test patients, and gives the same bytes again."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users' name for it
import torch
from safetensors import safe_open

from spaces.config import TrialConfig
from spaces.generators import GENERATORS, NoGeneratorConfig
from trainables.data.cohort import Cohort
from trainables.data.image_files import load_image_set
from trainables.data.reading import read_cohort
from trainables.data.splits import FoldSplit, make_folds
from trainables.errors import DivergedError, LeakError
from trainables.fold import Environment, _resident_peak, peak_bytes, run_fold
from trainables.fold_stages import FoldStages
from trainables.generators import acceptance
from trainables.generators.fitted import FittedNetworks
from trainables.leases import Lease
from trainables.results import FoldResult
from trainables.stage_files import CHECKPOINTS, lease_path
from trainables.stages import StageStore
from trainables.trial import run_trial

Build = Callable[..., TrialConfig]


def genmix(tiny_trial: Build, **changes: object) -> TrialConfig:
    return tiny_trial(**{"mixer__name": "genmix", "generator__name": "dcgan", **changes})


def timeless(result: FoldResult) -> FoldResult:
    stages = tuple(replace(stage, seconds=0.0) for stage in result.stages)
    return replace(result, stages=stages, seconds=0.0, peak_bytes=0)


def stage_bytes(store: Path) -> dict[str, bytes]:
    """Every file of every stage but the records, which hold times."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != "stage.json"
    }


def test_a_fold_in_two_empty_stores_gives_the_same_bytes(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    results = []
    for name in ("one", "two"):
        here = replace(environment, store=StageStore(tmp_path / name))
        results.append(timeless(run_fold(genmix(tiny_trial), split, here).result))
    assert results[0] == results[1]
    assert stage_bytes(tmp_path / "one") == stage_bytes(tmp_path / "two")


def test_two_trials_with_one_generator_train_it_once_and_score_as_if_alone(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[1]
    run_fold(genmix(tiny_trial, mixer__genmix_alpha=1.0), split, environment)
    shared = run_fold(genmix(tiny_trial), split, environment).result
    alone = run_fold(genmix(tiny_trial), split, replace(environment, store=StageStore(tmp_path / "empty"))).result
    reused = {stage.name: stage.reused for stage in shared.stages}
    shared_stages = ("preprocess", "generator", "pool", "extractor", "fidelity")
    assert reused == {**dict.fromkeys(shared_stages, True), "classifier": False}
    assert shared.fidelity == alone.fidelity
    assert shared.scores == alone.scores
    assert shared.predictions == alone.predictions


def test_a_fold_does_not_count_the_time_while_another_process_computes_its_stage(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[1]
    stage = FoldStages(tiny_trial(), split, environment).preprocessed()
    being_computed = stage.folder.rename(tmp_path / "preprocess")
    lease = Lease(lease_path(tmp_path / "stages", stage.record.name, stage.record.key))
    assert lease.try_acquire()
    waits: list[str] = []

    def wait(name: str) -> None:
        waits.append(name)
        if len(waits) == 6:
            being_computed.rename(stage.folder)
            lease.release()

    start = time.perf_counter()
    waiting = replace(environment, store=StageStore(tmp_path / "stages", on_wait=wait))
    result = run_fold(tiny_trial(), split, waiting).result
    passed = time.perf_counter() - start
    assert waits == ["preprocess"] * 6
    assert 0 < result.seconds < passed - 0.5


def shuffled_test_images(folder: Path, cohort: Cohort, split: FoldSplit) -> None:
    """Give the test fold's files each other's pixels."""
    paths = [folder / cohort.entries[index].id for index in split.test]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)


@pytest.mark.parametrize("name", [name for name in GENERATORS if name != NoGeneratorConfig.name])
def test_shuffling_the_test_folds_images_changes_no_byte_of_any_stage(
    environment: Environment, image_folder: Path, tiny_trial: Build, tmp_path: Path, name: str
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    config = genmix(tiny_trial, generator__name=name)
    one = run_fold(config, split, replace(environment, store=StageStore(tmp_path / "one")))
    shuffled_test_images(image_folder, environment.cohort, split)
    cohort = read_cohort(image_folder, cache=tmp_path / "images")
    assert cohort.digest != environment.cohort.digest
    assert make_folds(cohort, folds=3, seed=0)[0] == split
    store = StageStore(tmp_path / "two")
    two = run_fold(config, split, replace(environment, cohort=cohort, store=store))
    assert stage_bytes(tmp_path / "one") == stage_bytes(tmp_path / "two")
    assert [stage.key for stage in one.result.stages] == [stage.key for stage in two.result.stages]
    assert one.weights.read_bytes() == two.weights.read_bytes()
    assert one.result.predictions != two.result.predictions


def test_changing_one_training_image_changes_every_stage(
    environment: Environment, image_folder: Path, tiny_trial: Build, tmp_path: Path
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    one = run_fold(genmix(tiny_trial), split, environment).result
    path = image_folder / environment.cohort.entries[split.train[0]].id
    pixels = np.random.default_rng(9).integers(0, 255, (32, 32)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
    cohort = read_cohort(image_folder, cache=tmp_path / "images")
    two = run_fold(genmix(tiny_trial), split, replace(environment, cohort=cohort)).result
    assert not {stage.key for stage in one.stages} & {stage.key for stage in two.stages}


def test_an_image_of_a_test_patient_among_the_training_images_raises(
    environment: Environment, tiny_trial: Build
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    leaky = replace(split, train=(*split.train, split.test[0]), test=split.test[1:])
    patients = [environment.cohort.entries[index].patient for index in leaky.test]
    assert environment.cohort.entries[split.test[0]].patient in patients
    with pytest.raises(LeakError, match="'preprocess' of fold 1 was given 1 images of test or val"):
        run_fold(tiny_trial(), leaky, environment)


@pytest.mark.parametrize("stage", ["generator", "extractor", "classifier"])
def test_every_stage_that_trains_refuses_a_test_patients_image_by_itself(
    environment: Environment, tiny_trial: Build, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    whole = replace(split, train=(*split.train, *split.test), test=())
    leaked = load_image_set(FoldStages(tiny_trial(), whole, environment).preprocessed().folder)
    fold = FoldStages(genmix(tiny_trial), split, environment)
    with pytest.raises(LeakError, match=f"'{stage}' of fold 1"):
        if stage == "generator":
            fold.generator(leaked)
        elif stage == "extractor":
            fold.extractor(leaked)
        else:
            fold.classifier(leaked, None, None, ())


def test_a_trial_leaves_out_the_folds_that_are_finished(environment: Environment, tiny_trial: Build) -> None:
    splits = make_folds(environment.cohort, folds=3, seed=0)
    outcomes = list(run_trial(tiny_trial(), splits, environment, finished={1}))
    assert [outcome.result.fold for outcome in outcomes] == [0, 2]


def test_predictions_cover_each_test_image_once_with_its_true_label(
    environment: Environment, tiny_trial: Build
) -> None:
    cohort = environment.cohort
    splits = make_folds(cohort, folds=3, seed=0)
    predictions = [each for split in splits for each in run_fold(tiny_trial(), split, environment).result.predictions]
    assert sorted(each.image for each in predictions) == sorted(entry.id for entry in cohort.entries)
    labels = {entry.id: entry.label for entry in cohort.entries}
    assert all(each.label == labels[each.image] for each in predictions)
    assert all(sum(each.probabilities) == pytest.approx(1) for each in predictions)


def test_fidelity_is_that_of_the_generator_whatever_share_of_the_pool_a_trial_takes(
    environment: Environment, tiny_trial: Build
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    few = run_fold(genmix(tiny_trial, synthetic__ratio=0.25), split, environment).result
    many = run_fold(genmix(tiny_trial, synthetic__ratio=2.0, synthetic__balance=True), split, environment).result
    assert few.fidelity == many.fidelity
    assert {"kid", "coverage", "copy_rate", "density_dark"} <= set(few.fidelity)
    assert run_fold(tiny_trial(), split, environment).result.fidelity == {}


def test_trials_that_differ_in_how_images_are_drawn_share_the_training(
    environment: Environment, tiny_trial: Build
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    keys = []
    for guidance in (1.0, 3.0):
        config = genmix(tiny_trial, generator__name="diffusion", generator__guidance=guidance)
        result = run_fold(config, split, environment).result
        keys.append({stage.name: stage.key for stage in result.stages})
    assert keys[0]["generator"] == keys[1]["generator"]
    assert keys[0]["pool"] != keys[1]["pool"]


def test_a_pool_of_noise_fails_the_trial_whose_own_sampling_made_it(
    environment: Environment, tiny_trial: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    monkeypatch.setattr(acceptance, "JUDGED_AFTER", 8)
    run_fold(genmix(tiny_trial, generator__name="diffusion", generator__guidance=1.0), split, environment)

    def nearly_white(self: FittedNetworks, class_index: int, start: int, count: int, *, seed: int) -> torch.Tensor:
        return 1 - 0.3 * torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(start))

    monkeypatch.setattr(FittedNetworks, "sample", nearly_white)
    other = genmix(tiny_trial, generator__name="diffusion", generator__guidance=3.0)
    with pytest.raises(DivergedError, match=r"sampled with \{'sampling_steps': 2, 'guidance': 3.0\}, its mean image"):
        run_fold(other, split, environment)


def test_a_longer_training_goes_on_from_the_end_of_a_shorter_one(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    reported: list[int] = []
    here = replace(environment, report=lambda stage, done, total: reported.append(done) if total == 5 else None)
    run_fold(genmix(tiny_trial, generator__steps=3), split, here)
    run_fold(genmix(tiny_trial, generator__steps=5), split, here)
    assert [done for done in reported if done] == [4, 5]
    run_fold(genmix(tiny_trial, generator__steps=5), split, replace(here, store=StageStore(tmp_path / "alone")))
    longer = {name: content for name, content in stage_bytes(tmp_path / "stages").items() if "-5/" in name}
    alone = {name: content for name, content in stage_bytes(tmp_path / "alone").items() if "-5/" in name}
    assert longer == alone


def test_a_killed_generator_goes_on_from_its_checkpoint_to_the_same_bytes(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    reported: list[int] = []

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "generator" and done:
            reported.append(done)
            if len(reported) == 3:
                raise KeyboardInterrupt

    here = replace(environment, report=interrupt, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_fold(genmix(tiny_trial, generator__steps=6), split, here)
    run_fold(genmix(tiny_trial, generator__steps=6), split, here)
    assert reported == [1, 2, 3, 4, 5, 6]
    run_fold(genmix(tiny_trial, generator__steps=6), split, replace(environment, store=StageStore(tmp_path / "alone")))
    assert stage_bytes(tmp_path / "stages") == stage_bytes(tmp_path / "alone")


def _train(folder: Path, cache: Path, store: Path, config: TrialConfig) -> None:
    """Compute a fold in a process of its own, with a checkpoint after every step."""
    torch.set_num_threads(1)
    cohort = read_cohort(folder, cache=cache)
    environment = Environment(
        cohort=cohort,
        store=StageStore(store),
        seed=3,
        positive=0,
        device=torch.device("cpu"),
        threads=1,
        report=lambda stage, done, total: None,
        checkpoint_seconds=0.0,
    )
    run_fold(config, make_folds(cohort, folds=3, seed=0)[0], environment)


def test_a_process_killed_in_mid_training_loses_nothing_but_time(
    environment: Environment, image_folder: Path, tiny_trial: Build, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    config = genmix(tiny_trial, generator__name="egan", generator__steps=40)
    arguments = (image_folder, tmp_path / "images", tmp_path / "stages", config)
    process = multiprocessing.get_context("spawn").Process(target=_train, args=arguments)
    process.start()
    deadline = time.monotonic() + 120
    while not list((tmp_path / "stages" / CHECKPOINTS).glob("generator-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join(60)
    (checkpoint,) = (tmp_path / "stages" / CHECKPOINTS).glob("generator-*")
    with safe_open(checkpoint, framework="pt") as file:
        done = int(file.metadata()["done"])
    reported: list[int] = []
    here = replace(
        environment, threads=1, report=lambda stage, done, total: reported.append(done) if total == 40 else None
    )
    split = make_folds(environment.cohort, folds=3, seed=0)[0]
    try:
        torch.set_num_threads(1)
        run_fold(config, split, here)
        assert reported == list(range(done + 1, 41))
        run_fold(config, split, replace(here, store=StageStore(tmp_path / "alone")))
    finally:
        torch.set_num_threads(threads)
    assert stage_bytes(tmp_path / "stages" / "generator") == stage_bytes(tmp_path / "alone" / "generator")


def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    held = np.ones(10**8)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        started = pool.apply(peak_bytes, (torch.device("cpu"),))
    assert 0 < started < held.nbytes < peak_bytes(torch.device("cpu"))


@pytest.mark.parametrize("says", [None, "Name:\tpython\nVmRSS:\t1 kB\n"])
def test_a_system_that_does_not_say_its_peak_is_asked_otherwise(says: str | None, tmp_path: Path) -> None:
    status = tmp_path / "status"
    if says is not None:
        status.write_text(says)
    assert _resident_peak(status) > 10**7
