"""Ranking, result.json and what every reader of the numbers is told."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from rich.console import Console
from sklearn.metrics import roc_auc_score

from search.cli import main
from search.leaving import Leaving
from search.outcome import cautions, format_score, policy, print_outcome, rank, result_data, write_outcome
from search.tuning import _Watch
from spaces.generators import GENERATORS
from spaces.presets import PRESETS
from spaces.protocol import Protocol
from spaces.space import Assignment
from trainables.ledger import DataRecord, Ledger, SearchRecord
from trainables.metrics.interval import Interval
from trainables.pooled_intervals import score_intervals
from trainables.results import FoldResult, Prediction, StageRecord, Summary
from trainables.session import OWN_STAGES
from trainables.tune_trainable import WEIGHTS


@pytest.fixture
def record() -> SearchRecord:
    data = DataRecord(
        digest="d", source="labels.csv of x", classes=("a", "b"), counts=(3, 4), patients=5, patients_known=True,
        is_phantom=False, positive=1, bad_images=(),
    )  # fmt: skip
    return SearchRecord(
        name="s", space=PRESETS["genmix"], data=data, budget="standard", folds=2, metric="auroc", seed=1,
        sampler="tpe", scheduler="asha", trials=4, threads=1, tracking_uri="sqlite:///x", created=1.0, versions={},
        protocol=Protocol(folds=2),
    )  # fmt: skip


def fold(
    number: int, auroc: float | None, error: float = 0.1, fidelity: Mapping[str, float | None] | None = None
) -> FoldResult:
    return FoldResult(
        fold=number, scores={"auroc": auroc, "calibration_error": error},
        stages=(StageRecord(name="classifier", key="k", seconds=1.5, reused=False),),
        predictions=(), counts={"real": 2}, seconds=1.0, peak_bytes=9,
        fidelity=fidelity or {},
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


def test_only_completed_trials_with_a_defined_score_are_ranked_in_the_scores_direction(
    ledger: Ledger, record: SearchRecord
) -> None:
    assert [trial.id for trial in rank(ledger.trials(), record)] == ["t0001", "t0000"]
    by_error = replace(record, metric="calibration_error")
    assert [trial.id for trial in rank(ledger.trials(), by_error)] == ["t0000", "t0001", "t0003"]


@pytest.fixture
def copying(tmp_path: Path, record: SearchRecord) -> Ledger:
    """A limit of .05; completed trials: .6 real, .8 copying .04, .9 copying .06, .7 of unknown rate; .9 pruned, .5."""
    ledger = Ledger(tmp_path / "s")
    ledger.folder.mkdir()
    ledger.write_search(replace(record, max_copy_rate=0.05))
    real = {"mixer.name": "real"}
    genmix = {"mixer.name": "genmix", "generator.name": "egan", "generator.gamma": 0.0123456}
    trials: list[tuple[Assignment, float, tuple[float | None, ...]]] = [
        (real, 0.6, ()), (genmix, 0.8, (0.0, 0.08)), (genmix, 0.9, (0.0, 0.12)), (genmix, 0.7, (None, None)),
        (genmix, 0.9, (0.5,)),
    ]  # fmt: skip
    for config, score, rates in trials:
        trial_id = ledger.add_trial(config, reference=None)
        for number, rate in enumerate(rates or (0, 0)):
            measured = {"kid": 0.0123, "copy_rate": rate} if rates else {}
            ledger.record_fold(trial_id, fold(number, score, fidelity=measured))
        ledger.end_trial(trial_id, "pruned" if len(rates) == 1 else "completed")
    return ledger


def test_a_trial_that_copies_too_much_is_never_the_best(copying: Ledger) -> None:
    record = copying.search()
    assert [trial.id for trial in rank(copying.trials(), record)] == ["t0001", "t0003", "t0000"]
    assert rank(copying.trials(), replace(record, max_copy_rate=None))[0].id == "t0002"
    write_outcome(copying)
    assert yaml.safe_load((copying.folder / "best.yaml").read_text())["trial"] == "t0001"
    result = json.loads((copying.folder / "result.json").read_text())
    assert [trial["feasible"] for trial in result["trials"]] == [True, True, False, True, False]
    assert (result["max_copy_rate"], result["best"]["trial"]) == (0.05, "t0001")


def test_result_json_holds_the_fidelity_of_folds_and_trials(copying: Ledger) -> None:
    result = result_data(copying.search(), copying.trials())
    real, synthetic, _, unknown, _ = result["trials"]
    assert (real["fidelity"], real["folds"][0]["fidelity"]) == ({}, {})
    assert synthetic["folds"][1]["fidelity"] == {"kid": 0.0123, "copy_rate": 0.08}
    assert synthetic["fidelity"]["copy_rate"] == {"mean": 0.04, "std": pytest.approx(0.08 / 2**0.5)}
    assert unknown["fidelity"]["copy_rate"] == {"mean": None, "std": None}
    assert result["best"]["fidelity"] == synthetic["fidelity"]


def test_only_the_leaders_weights_are_kept_and_a_copying_trial_leads_nothing(copying: Ledger) -> None:
    for trial in copying.trials():
        (copying.trial_folder(trial.id) / WEIGHTS).mkdir()
    watch = watching(copying)
    assert kept_weights(copying) == ["t0001"]
    for score in (0.5, 0.99):
        trial_id = copying.add_trial({}, reference=None)
        (copying.trial_folder(trial_id) / WEIGHTS).mkdir()
        for number in range(copying.search().folds):
            copying.record_fold(trial_id, fold(number, score))
        assert trial_id in kept_weights(copying), "a trial that runs keeps its own"
        copying.end_trial(trial_id, "completed")
        watch.on_trial_complete(0, [], SimpleNamespace(trial_id="x", config={"trial": trial_id}))
    assert kept_weights(copying) == [trial_id]


def test_without_sharing_a_trial_that_has_ended_leaves_no_stages(copying: Ledger) -> None:
    copying.write_search(replace(copying.search(), sharing=False))
    going = copying.add_trial({}, reference=None)
    for trial_id in ("t0000", going):
        (copying.trial_folder(trial_id) / OWN_STAGES).mkdir()
    watching(copying)
    assert [path.parent.name for path in copying.folder.glob(f"trials/*/{OWN_STAGES}")] == [going]


def watching(ledger: Ledger) -> _Watch:
    leaving = Leaving(ledger, say=lambda text: None)
    return _Watch(ledger, ledger.search(), stage_limit=None, on_change=lambda: None, leaving=leaving)


def kept_weights(ledger: Ledger) -> list[str]:
    return sorted(path.parent.name for path in ledger.folder.glob(f"trials/*/{WEIGHTS}"))


def test_the_leaderboard_shows_kid_and_copy_rate_where_a_trial_has_them_within_160_columns(
    copying: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    print_outcome(Console(width=160), copying)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:20])) <= 160
    assert "kid" in out
    assert re.search(r"1 +│ t0001 .* 0\.012 +│ +0\.040", out)
    assert re.search(r"infeasible +│ t0002", out)
    assert re.search(r"infeasible +│ t0004", out)
    assert "2 of 5 trials are infeasible: their copy rate is above 0.05 (--max-copy-rate)" in out


def test_a_leaderboard_without_synthetic_images_has_no_such_columns(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    print_outcome(Console(width=160), ledger)
    out = capsys.readouterr().out
    assert "kid" not in out
    assert "copy rate" not in out
    assert "infeasible" not in out


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
        "fidelity": {},
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
    found = score_intervals(trial, record)
    labels = [each.label for each in rows]
    assert found["auroc"].estimate == pytest.approx(roc_auc_score(labels, [each.probabilities[1] for each in rows]))
    assert found["auroc"].low < found["auroc"].estimate < found["auroc"].high
    assert found["balanced_accuracy"].low == pytest.approx(score_intervals(shuffled, record)["balanced_accuracy"].low)


def test_best_yaml_names_the_trial_and_its_configuration(ledger: Ledger) -> None:
    write_outcome(ledger)
    best = yaml.safe_load((ledger.folder / "best.yaml").read_text())
    assert {name: best[name] for name in ("search", "trial", "config")} == {
        "search": "s", "trial": "t0001", "config": {"mixer.name": "real", "affine": True},
    }  # fmt: skip
    assert (best["options"]["budget"], best["options"]["cpus_per_trial"]) == ("standard", ledger.search().threads)


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
    for words in ("phantom", "demonstration", "no claim of leak-free evaluation", "1 unreadable image;"):
        assert words in said


def test_a_policy_reads_in_one_line() -> None:
    config = {
        "mixer.name": "genmix", "generator.name": "egan", "generator.gamma": 0.005, "mixer.genmix_alpha": 0.3,
        "synthetic.balance": False, "affine": True, "classifier.learning_rate": 0.001,
    }  # fmt: skip
    assert policy(config) == "genmix egan gamma=0.005 alpha=0.3 affine lr=0.001"


@pytest.mark.parametrize("generator", [name for name in GENERATORS if name != "none"])
def test_the_policy_of_every_generator_is_short_and_names_what_differs(generator: str) -> None:
    space = PRESETS["genmix"].fix("generator.name", generator)[0].narrowed()
    for seed in range(30):
        config = {**space.sample(random.Random(seed)), "affine": True}
        words = policy(config).split()
        assert len(policy(config)) <= 140
        assert len(words) == len(set(words)), words


def test_a_policy_says_which_parts_are_off_and_which_model_was_started_from() -> None:
    config = {"mixer.name": "blend", "generator.name": "dae_gan", "generator.residual": True,
              "generator.attention": False, "generator.mixture": "off", "generator.affine_copies": 0}  # fmt: skip
    assert policy(config) == "blend dae_gan residual mixture=off copies=0"
    started = {"mixer.name": "blend", "generator.name": "diffusion", "generator.pretrained": "/some/where/tiny"}
    assert policy(started) == "blend diffusion tiny"
    assert policy({**started, "generator.pretrained": "none"}) == "blend diffusion"


def test_an_undefined_score_reads_as_undefined() -> None:
    assert format_score(None) == format_score(Summary(mean=None, std=None)) == "undefined"
    assert format_score(Summary(mean=0.81, std=None)) == "0.810"
    assert format_score(Summary(mean=0.81, std=0.034)) == "0.810 ± 0.034"


def test_a_completed_trials_interval_stands_beside_its_score(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    trial_id = ledger.add_trial({"mixer.name": "real", "affine": False}, reference=None)
    ledger.record_fold(trial_id, fold(0, 0.7))
    found = {"auroc": Interval(estimate=0.7, low=0.612, high=0.788, resamples=1000)}
    ledger.end_trial(trial_id, "completed", intervals=found)
    assert main(["show", "s", "--storage", str(ledger.storage)]) == 0
    assert "[0.612, 0.788]" in capsys.readouterr().out
    write_outcome(ledger)
    trial = json.loads((ledger.folder / "result.json").read_text())["trials"][-1]
    assert trial["intervals"]["auroc"]["low"] == 0.612
