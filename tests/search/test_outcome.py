"""Ranking, result.json and what every reader of the numbers is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from search.cli import main
from search.outcome import cautions, format_score, intervals, policy, rank, result_data, write_outcome
from spaces.presets import PRESETS
from trainables.ledger import DataRecord, Ledger, SearchRecord
from trainables.results import FoldResult, Prediction, StageRecord, Summary


@pytest.fixture
def record() -> SearchRecord:
    data = DataRecord(
        digest="d", source="labels.csv of x", classes=("a", "b"), counts=(3, 4), patients=5, patients_known=True,
        is_phantom=False, positive=1, bad_images=(),
    )  # fmt: skip
    return SearchRecord(
        name="s", space=PRESETS["genmix"], data=data, budget="standard", folds=2, metric="auroc", seed=1,
        sampler="tpe", scheduler="asha", trials=4, threads=1, tracking_uri="sqlite:///x", created=1.0, versions={},
    )  # fmt: skip


def fold(number: int, auroc: float | None, error: float = 0.1) -> FoldResult:
    return FoldResult(
        fold=number, scores={"auroc": auroc, "calibration_error": error},
        stages=(StageRecord(name="classifier", key="k", seconds=1.5, reused=False),),
        predictions=(), counts={"real": 2}, seconds=1.0, peak_bytes=9,
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path, record: SearchRecord) -> Ledger:
    """Trials: .6 completed, .8 completed, .9 pruned, undefined completed, failed."""
    ledger = Ledger(tmp_path / "s")
    ledger.folder.mkdir()
    ledger.write_search(record)
    outcomes = [([0.5, 0.7], "completed"), ([0.8, 0.8], "completed"), ([0.9], "pruned"), ([None, None], "completed")]
    for number, (scores, state) in enumerate(outcomes):
        trial_id = ledger.add_trial({"mixer.name": "real", "affine": bool(number)}, reference=None)
        for index, score in enumerate(scores):
            ledger.record_fold(trial_id, fold(index, score, error=0.1 * (number + 1)))
        ledger.end_trial(trial_id, state)  # type: ignore[arg-type]
    ledger.end_trial(ledger.add_trial({"mixer.name": "real"}, reference=None), "failed", error="boom")
    return ledger


def test_only_completed_trials_with_a_defined_score_are_ranked_in_the_scores_direction(ledger: Ledger) -> None:
    assert [trial.id for trial in rank(ledger.trials(), "auroc")] == ["t0001", "t0000"]
    assert [trial.id for trial in rank(ledger.trials(), "calibration_error")] == ["t0000", "t0001", "t0003"]


def test_result_json_holds_what_the_readme_says(ledger: Ledger, record: SearchRecord) -> None:
    result = json.loads(json.dumps(result_data(record, ledger.trials()), allow_nan=False))
    assert result["data"]["counts"] == {"a": 3, "b": 4}
    assert result["best"] == {
        "trial": "t0001",
        "config": {"mixer.name": "real", "affine": True},
        "scores": {
            "auroc": {"mean": 0.8, "std": 0.0},
            "calibration_error": {"mean": pytest.approx(0.2), "std": 0.0},
        },
        "intervals": {},
    }
    first, *_, failed = result["trials"]
    assert first["folds"][0]["stages"] == [{"name": "classifier", "key": "k", "seconds": 1.5, "reused": False}]
    assert (failed["state"], failed["error"], failed["scores"]) == ("failed", "boom", {})
    assert result["trials"][3]["scores"]["auroc"] == {"mean": None, "std": None}


def test_intervals_cover_the_pooled_predictions_and_do_not_depend_on_their_order(
    ledger: Ledger, record: SearchRecord
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for index in range(60):
        sick = float(np.clip(rng.normal(0.35 + 0.3 * (index % 2), 0.2), 0, 1))
        rows.append(
            Prediction(image=str(index), patient=f"p{index // 4}", label=index % 2, probabilities=(1 - sick, sick))
        )
    trial = replace(ledger.trial("t0001"), folds=(replace(fold(0, 0.5), predictions=tuple(rows)),))
    shuffled = replace(trial, folds=(replace(fold(0, 0.5), predictions=tuple(reversed(rows))),))
    found = intervals(trial, record)
    labels = [each.label for each in rows]
    assert found["auroc"].estimate == pytest.approx(roc_auc_score(labels, [each.probabilities[1] for each in rows]))
    assert found["auroc"].low < found["auroc"].estimate < found["auroc"].high
    assert found["balanced_accuracy"].low == pytest.approx(intervals(shuffled, record)["balanced_accuracy"].low)


def test_best_yaml_names_the_trial_and_its_configuration(ledger: Ledger) -> None:
    write_outcome(ledger)
    best = yaml.safe_load((ledger.folder / "best.yaml").read_text())
    assert best == {
        "search": "s", "trial": "t0001", "budget": "standard", "config": {"mixer.name": "real", "affine": True},
    }  # fmt: skip


def test_show_prints_the_leaderboard_from_the_ledger(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "s", "--storage", str(ledger.storage)]) == 0
    out = capsys.readouterr().out
    assert "t0001" in out
    assert "boom" in out
    assert main(["show", "S", "--storage", str(ledger.storage)]) == 2
    assert "Valid: s" in capsys.readouterr().err


def test_every_reader_is_told_what_the_numbers_may_not_be_taken_for(record: SearchRecord) -> None:
    assert len(cautions(record)) == 1
    data = replace(record.data, is_phantom=True, patients_known=False, bad_images=(("x", "y"),))
    said = " ".join(cautions(replace(record, budget="quick", data=data)))
    for words in ("phantom", "demonstration", "no claim of leak-free evaluation", "1 unreadable images"):
        assert words in said


def test_a_policy_reads_in_one_line() -> None:
    config = {
        "mixer.name": "genmix", "generator.name": "egan", "generator.gamma": 0.005, "mixer.genmix_alpha": 0.3,
        "synthetic.balance": False, "affine": True, "classifier.learning_rate": 0.001,
    }  # fmt: skip
    assert policy(config) == "genmix egan gamma=0.005 alpha=0.3 affine lr=0.001"


def test_an_undefined_score_reads_as_undefined() -> None:
    assert format_score(None) == format_score(Summary(mean=None, std=None)) == "undefined"
    assert format_score(Summary(mean=0.81, std=None)) == "0.810"
    assert format_score(Summary(mean=0.81, std=0.034)) == "0.810 ± 0.034"
