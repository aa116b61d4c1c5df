"""The ledger: what is written stays, what is read is whole."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from spaces.presets import PRESETS
from spaces.protocol import Protocol
from trainables.files import temporary_for, write_json
from trainables.leases import _process_start, own_process
from trainables.ledger import DataRecord, Ledger, SearchRecord
from trainables.metrics.interval import Interval
from trainables.pooled_intervals import score_intervals
from trainables.results import FoldResult, Prediction, StageRecord, summarise


def fold(number: int, **scores: float | None) -> FoldResult:
    return FoldResult(
        fold=number,
        scores=scores,
        stages=(StageRecord(name="classifier", key="k", seconds=1.5, reused=False),),
        predictions=(Prediction(image="a.png", patient="p", label=1, probabilities=(0.1, 1 / 3)),),
        counts={"real": 2, "synthetic": 0, "test": 1},
        seconds=2.5,
        peak_bytes=1,
    )


def made_up_record() -> SearchRecord:
    return SearchRecord(
        name="s",
        space=PRESETS["genmix"],
        data=DataRecord(
            digest="d", source="labels.csv", classes=("a", "b"), counts=(3, 4), patients=5, patients_known=True,
            is_phantom=False, positive=1, bad_images=(("x.png", "truncated"),),
        ),
        budget="quick", folds=3, metric="auroc", seed=1, sampler="tpe", scheduler="asha", trials=4, threads=1,
        tracking_uri="sqlite:///x", created=1.0, versions={"torch": "2"},
        protocol=Protocol(folds=3),
    )  # fmt: skip


def test_a_search_record_survives_its_file(tmp_path: Path) -> None:
    record, ledger = made_up_record(), Ledger(tmp_path)
    ledger.write_search(record)
    assert ledger.search() == record
    limited = replace(record, max_copy_rate=0.05)
    ledger.write_search(limited)
    assert ledger.search() == limited


def test_records_from_before_fidelity_and_a_copy_limit_are_read(tmp_path: Path) -> None:
    stored = fold(0, auroc=0.5).to_dict()
    del stored["fidelity"]
    assert FoldResult.from_dict(stored) == fold(0, auroc=0.5)
    measured = replace(fold(0, auroc=0.5), fidelity={"kid": 0.1, "copy_rate": None})
    assert FoldResult.from_dict(json.loads(json.dumps(measured.to_dict()))) == measured
    data = made_up_record().to_dict()
    del data["max_copy_rate"]
    assert SearchRecord.from_dict(data) == made_up_record()


@pytest.mark.parametrize(
    ("rates", "limit", "feasible"),
    [
        ([], 0.0, True),
        ([None, None], 0.0, True),
        ([0.0, 0.1], 0.05, True),
        ([0.0, 0.11], 0.05, False),
        ([None, 0.11], 0.05, False),
        ([1.0], None, True),
    ],
)
def test_a_trial_is_feasible_up_to_a_mean_copy_rate(
    tmp_path: Path, rates: list[float | None], limit: float | None, feasible: bool
) -> None:
    ledger = Ledger(tmp_path)
    trial_id = ledger.add_trial({}, reference=None)
    ledger.record_fold(trial_id, fold(9, auroc=0.5))
    for number, rate in enumerate(rates):
        ledger.record_fold(trial_id, replace(fold(number, auroc=0.5), fidelity={"copy_rate": rate}))
    assert ledger.trial(trial_id).feasible(limit) == feasible


def test_a_trial_is_read_back_as_it_was_recorded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_search(made_up_record())
    trial_id = ledger.add_trial({"affine": True}, reference="affine")
    ledger.record_fold(trial_id, fold(1, auroc=0.1 + 0.2))
    ledger.record_fold(trial_id, fold(0, auroc=None))
    trial = Ledger(tmp_path).trial(trial_id, predictions=True)
    assert (trial.state, trial.reference, trial.config) == ("unfinished", "affine", {"affine": True})
    assert trial.folds == (fold(0, auroc=None), fold(1, auroc=0.1 + 0.2))
    ledger.end_trial(trial_id, "failed", error="boom")
    assert (ledger.trial(trial_id).state, ledger.trial(trial_id).error) == ("failed", "boom")


def test_a_recorded_fold_and_end_are_never_written_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_search(made_up_record())
    trial_id = ledger.add_trial({}, reference=None)
    ledger.record_fold(trial_id, fold(0, auroc=0.5))
    ledger.record_fold(trial_id, fold(0, auroc=0.9))
    ledger.end_trial(trial_id, "pruned")
    ledger.end_trial(trial_id, "completed")
    trial = Ledger(tmp_path).trial(trial_id)
    assert trial.folds[0].scores["auroc"] == 0.5
    assert trial.state == "pruned"


def test_predictions_are_read_where_they_are_asked_for_and_never_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_search(made_up_record())
    trial_id = ledger.add_trial({}, reference=None)
    ledger.record_fold(trial_id, fold(0, auroc=0.5))
    ledger.end_trial(trial_id, "completed")
    assert fold(0, auroc=0.5).predictions
    assert [each.predictions for each in ledger.trial(trial_id).folds] == [()]
    assert ledger.trial(trial_id, predictions=True).folds == (fold(0, auroc=0.5),)
    assert [each.predictions for each in ledger.trials()[0].folds] == [()]


class Forgetful(dict[object, object]):
    """What is kept, where another thread drops each entry as soon as this one has put it in or looked for it."""

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __contains__(self, key: object) -> bool:
        return self.pop(key, None) is not None

    def get(self, key: object, default: object = None) -> object:
        return self.pop(key, default)


def test_a_fold_is_read_though_another_thread_drops_it_meanwhile(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    trial_id = ledger.add_trial({}, reference=None)
    ledger.record_fold(trial_id, fold(0, auroc=0.5))
    ledger._finished = Forgetful()  # type: ignore[assignment]
    assert ledger.trial(trial_id).folds[0].scores == {"auroc": 0.5}
    ledger._finished = Forgetful({(trial_id, 0): fold(0, auroc=0.5)})  # type: ignore[assignment]
    assert ledger.trial(trial_id).folds[0].scores == {"auroc": 0.5}


def test_that_a_trial_lacked_memory_is_recorded_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    trial_id = ledger.add_trial({}, reference=None)
    assert not ledger.ran_out_of_memory(trial_id)
    assert ledger.record_out_of_memory(trial_id, "40 GiB")
    assert not ledger.record_out_of_memory(trial_id, "80 GiB")
    assert Ledger(tmp_path).ran_out_of_memory(trial_id)
    assert ledger.trial(trial_id).state == "unfinished"


def test_ids_count_on_in_the_order_of_proposals(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert [ledger.add_trial({}, reference=None) for _ in range(3)] == ["t0000", "t0001", "t0002"]
    assert Ledger(tmp_path).trial_ids() == ["t0000", "t0001", "t0002"]
    with pytest.raises(ValueError, match="not a trial id"):
        ledger.trial_folder("../../etc")


def test_a_score_undefined_in_a_fold_is_left_out_of_the_mean_and_never_zero() -> None:
    summaries = summarise([fold(0, auroc=0.5, f1=None), fold(1, auroc=None, f1=None), fold(2, auroc=0.7, f1=None)])
    assert summaries["auroc"].mean == pytest.approx(0.6)
    assert summaries["auroc"].std == pytest.approx(math.sqrt(0.02))
    assert (summaries["f1"].mean, summaries["f1"].std) == (None, None)
    assert summarise([fold(0, auroc=0.5)])["auroc"].std is None


def test_a_file_is_whole_or_old_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_the_intervals_of_a_completed_trial_are_on_record_and_taken_from_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_search(made_up_record())
    trial_id = ledger.add_trial({"mixer.name": "real"}, reference=None)
    ledger.record_fold(trial_id, fold(0, auroc=0.5))
    interval = Interval(estimate=0.7, low=0.6, high=0.8, resamples=1000)
    ledger.end_trial(trial_id, "completed", intervals={"auroc": interval})
    trial = Ledger(tmp_path).trial(trial_id)
    assert trial.intervals == {"auroc": interval}
    assert score_intervals(trial, ledger.search()) == {"auroc": interval}


def test_a_completed_trial_is_unfinished_once_its_search_has_more_folds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_search(replace(made_up_record(), folds=1))
    completed, pruned = (ledger.add_trial({}, reference=None) for _ in range(2))
    ledger.record_fold(completed, fold(0, auroc=0.5))
    for trial_id, state in ((completed, "completed"), (pruned, "pruned")):
        ledger.end_trial(trial_id, state)
    ledger.write_search(replace(made_up_record(), folds=2))
    assert (ledger.trial(completed).state, ledger.trial(completed).ended) == ("unfinished", None)
    assert ledger.trial(pruned).state == "pruned"
    ledger.record_fold(completed, fold(1, auroc=0.7))
    ledger.end_trial(
        completed, "completed", intervals={"auroc": Interval(estimate=0.6, low=0.1, high=0.9, resamples=10)}
    )
    ended = Ledger(tmp_path).trial(completed)
    assert (ended.state, len(ended.folds), set(ended.intervals)) == ("completed", 2, {"auroc"})
    ledger.end_trial(completed, "failed")
    assert Ledger(tmp_path).trial(completed).state == "completed"


def test_running_trials_learn_that_they_are_asked_to_stop(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path), Ledger(tmp_path)
    assert not other.asked_to_stop()
    ledger.let_trials_run()
    assert not other.asked_to_stop()
    ledger.ask_to_stop()
    assert other.asked_to_stop()
    ledger.let_trials_run()
    assert not other.asked_to_stop()


def test_what_a_killed_driver_left_half_written_is_swept_away(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    whole, begun, ours = (ledger.add_trial({"affine": True}, reference=None) for _ in range(3))
    gone = subprocess.Popen(["sleep", "60"])
    process = f"{gone.pid}.{_process_start(gone.pid)}.{own_process().split('.', 2)[2]}"
    gone.kill()
    gone.wait()
    (ledger.trial_folder(begun) / "trial.json").unlink()
    for folder in (tmp_path, ledger.trial_folder(whole), ledger.trial_folder(begun)):
        (folder / f".x.json.{'0' * 32}.{process}.tmp").write_text("{")
    kept = temporary_for(ledger.trial_folder(ours) / "fold_0.json")
    kept.write_text("{")
    ledger.sweep()
    assert sorted(path.name for path in tmp_path.rglob("*.tmp")) == [kept.name]
    assert not ledger.trial_folder(begun).exists()
    assert Ledger(tmp_path).trial_ids() == [whole, ours]
