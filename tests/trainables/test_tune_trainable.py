"""What a trial's process does with its folds: in which order, with which stages, and when memory runs out."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from spaces.config import trial_config
from spaces.parameter import Value
from spaces.presets import PRESETS
from spaces.protocol import Protocol
from tests.trainables.conftest import TINY, write_images
from trainables import tune_trainable
from trainables.data.reading import read_cohort
from trainables.errors import RetryableTrialError, lacks_memory
from trainables.fold_keys import FoldKeys
from trainables.leases import Lease
from trainables.ledger import SHARED, DataRecord, Ledger, SearchRecord
from trainables.stages import StageStore
from trainables.tune_trainable import FoldTrainable

TRIAL: dict[str, Value] = {
    **{name: value for name, value in TINY.items() if name != "generator.sampling_steps"},
    "mixer.name": "genmix",
    "generator.name": "dcgan",
}


@pytest.fixture
def threads() -> Iterator[None]:
    """Leave the number of threads as it was: a trial's process sets its own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ledger(tmp_path: Path, threads: None) -> Ledger:
    """A search of two folds on a tiny data set, with one trial."""
    storage = tmp_path / "searches"
    cohort = read_cohort(write_images(tmp_path / "data"), cache=storage / SHARED / "images")
    data = DataRecord(
        digest=cohort.digest,
        source="data",
        classes=cohort.classes,
        counts=cohort.counts,
        patients=cohort.n_patients,
        patients_known=True,
        is_phantom=False,
        positive=0,
        bad_images=(),
    )
    record = SearchRecord(
        name="s",
        space=PRESETS["genmix"],
        data=data,
        budget="quick",
        folds=2,
        metric="auroc",
        seed=0,
        sampler="random",
        scheduler="fifo",
        trials=1,
        threads=1,
        tracking_uri="sqlite:///none.db",
        created=0.0,
        versions={},
        protocol=Protocol(folds=2),
    )
    (storage / "s").mkdir(parents=True)
    found = Ledger(storage / "s")
    found.write_search(record)
    found.add_trial(TRIAL, reference=None)
    return found


def trainable(ledger: Ledger, **changes: object) -> FoldTrainable:
    settings = {"search": str(ledger.folder), "trial": "t0000", "gpus": 0.0, "checkpoint_seconds": 60.0}
    return FoldTrainable({**settings, "folds_in_order": False, **changes})


def generator_lease(ledger: Ledger, fold: int) -> Lease:
    """That of the trial's generator in one fold."""
    session = trainable(ledger)._session
    config = trial_config(TRIAL, session.budget)
    split = session.splits[fold]
    keys = FoldKeys(config=config, split=split, cohort=session.cohort, seed=0, threads=1)
    return StageStore(session.stages("t0000"))._lease(keys.generator)


def test_a_trial_takes_first_the_fold_whose_generator_nobody_is_training(ledger: Ledger) -> None:
    assert generator_lease(ledger, 0).try_acquire()
    process = trainable(ledger)
    process.step()
    assert [each.fold for each in ledger.trial("t0000").folds] == [1]
    generator_lease(ledger, 0)._path.unlink()
    assert process.step()["done"]
    assert [each.fold for each in ledger.trial("t0000").folds] == [0, 1]
    assert ledger.trial("t0000").state == "completed"


def test_folds_come_in_order_where_the_scheduler_counts_on_it(ledger: Ledger) -> None:
    process = trainable(ledger, folds_in_order=True)
    lease = generator_lease(ledger, 0)
    assert lease.try_acquire()
    session = process._session
    config = trial_config(TRIAL, session.budget)
    assert session.next_fold(config, (), trial_id="t0000", in_order=True).fold == 0
    assert session.next_fold(config, (), trial_id="t0000", in_order=False).fold == 1
    lease.release()


def test_a_trial_without_sharing_scores_the_same_and_leaves_no_stage(ledger: Ledger) -> None:
    process = trainable(ledger)
    while not process.step()["done"]:
        pass
    shared = ledger.trial("t0000", predictions=True)
    alone = Ledger(ledger.storage / "alone")
    alone.folder.mkdir()
    alone.write_search(replace(ledger.search(), sharing=False))
    alone.add_trial(TRIAL, reference=None)
    process = trainable(alone)
    while not process.step()["done"]:
        assert (alone.trial_folder("t0000") / "stages").is_dir()
    trial = alone.trial("t0000", predictions=True)
    assert [each.scores for each in trial.folds] == [each.scores for each in shared.folds]
    assert [each.predictions for each in trial.folds] == [each.predictions for each in shared.folds]
    assert not any(stage.reused for each in trial.folds for stage in each.stages if stage.name != "pool")
    assert not (alone.trial_folder("t0000") / "stages").exists()
    assert sorted(path.name for path in (alone.trial_folder("t0000") / "weights").iterdir()) == [
        "fold_0.safetensors",
        "fold_1.safetensors",
    ]


def test_a_trial_keeps_its_weights_when_the_stages_are_removed(ledger: Ledger) -> None:
    trainable(ledger).step()
    shutil.rmtree(ledger.storage / SHARED / "stages" / "classifier")
    weights = next((ledger.trial_folder("t0000") / "weights").iterdir())
    assert weights.stat().st_size > 1000


def raised_over(first: Exception, second: Exception) -> Exception:
    second.__context__ = first
    return second


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            True,
        ),
        (OSError(12, "Cannot allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (raised_over(torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("capture was invalidated")), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_lack_of_memory_is_known_by_all_its_names(error: Exception, lacks: bool) -> None:
    assert lacks_memory(error) == lacks


def test_a_trial_that_has_ended_computes_nothing_when_it_comes_again(ledger: Ledger) -> None:
    trainable(ledger).step()
    ledger.end_trial("t0000", "pruned")
    assert trainable(ledger).step() == {"trial": "t0000", "done": True}
    assert len(ledger.trial("t0000").folds) == 1


def test_the_first_lack_of_memory_leaves_a_trial_to_another_attempt_and_the_second_ends_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*given: object) -> Iterator[object]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB")
        yield

    monkeypatch.setattr(tune_trainable, "run_trial", lacking)
    first = trainable(ledger).step()
    assert first == {"trial": "t0000", "out_of_memory": True, "done": True}
    assert ledger.trial("t0000").state == "unfinished"
    second = trainable(ledger).step()
    assert second == {"trial": "t0000", "done": True}
    failed = ledger.trial("t0000")
    assert failed.state == "failed"
    assert "second time" in (failed.error or "")
    assert "generator.batch_size" in (failed.error or "")


def test_a_trial_that_is_asked_to_stop_saves_what_it_trains_and_stays_unfinished(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_in_mid_training(self: Ledger, trial_id: str, *, stage: str, done: int, **more: object) -> None:
        if stage == "generator" and done == 1:
            ledger.ask_to_stop()

    monkeypatch.setattr("trainables.session._REPORT_EVERY", 0.0)
    monkeypatch.setattr(Ledger, "write_progress", ask_in_mid_training)
    ledger.let_trials_run()
    assert trainable(ledger).step() == {"trial": "t0000", "stopped": True, "done": True}
    assert ledger.trial("t0000").state == "unfinished"
    checkpoints = list((ledger.storage / SHARED / "stages" / "checkpoints").glob("generator-*.safetensors"))
    assert len(checkpoints) == 1
    assert not list((ledger.storage / SHARED / "stages" / "leases").iterdir())
    monkeypatch.undo()
    ledger.let_trials_run()
    report = trainable(ledger).step()
    assert (report["folds_done"], len(ledger.trial("t0000").folds)) == (1, 1)


def raising(error: Exception) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_a_full_storage_leaves_the_trial_unfinished(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(tune_trainable, "run_trial", raising(error))
    report = trainable(ledger).step()
    assert report == {"trial": "t0000", "storage_full": f"{type(error).__name__}: {error}", "done": True}
    assert ledger.trial("t0000").state == "unfinished"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        SafetensorError('Error while serializing: I/O error: Stale file handle (os error 116) at path "/s/state"'),
        SafetensorError("Error while deserializing: Input/output error (os error 5)"),
        RuntimeError("unable to open file </s/state.safetensors> in read-only mode: Input/output error (5)"),
        RuntimeError("unable to mmap 100 bytes from file </s/state.safetensors>: No such device (19)"),
        RuntimeError("unable to stat the file </s/state.safetensors>: Stale file handle (116)"),
    ],
)
def test_a_storage_that_fails_for_a_while_does_not_end_the_trial(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(tune_trainable, "run_trial", raising(error))
    with pytest.raises(RetryableTrialError, match=type(error).__name__):
        trainable(ledger).step()
    assert ledger.trial("t0000").state == "unfinished"


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while deserializing header: incomplete metadata, file not fully covered"),
        SafetensorError("Error while deserializing header: header too small"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_a_file_that_is_damaged_ends_the_trial(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(tune_trainable, "run_trial", raising(error))
    assert trainable(ledger).step() == {"trial": "t0000", "done": True}
    assert ledger.trial("t0000").state == "failed"
