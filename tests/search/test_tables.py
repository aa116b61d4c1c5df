"""A paper's table beside a search's scores, and whether its claims hold, on made-up ledgers."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from search.ratio_series import draw_ratio_figure
from search.table_claims import judge
from search.table_text import print_table, table_markdown
from search.tables import FilledTable, fill_table, table_data
from spaces.paper_table import GainClaim, OrderClaim, chain
from spaces.presets import PRESETS, TABLES
from spaces.protocol import Protocol
from spaces.space import GENERATOR_NAME
from tests.search.made_up_tables import add_row, table_ledger, table_space
from trainables.ledger import Ledger
from trainables.pooled_intervals import score_intervals, weighted_accuracy, weighted_macro_f1
from trainables.results import Prediction

ACCURACY = {"none": 0.6, "acgan": 0.65, "dcgan": 0.75, "egan": 0.8, "dae_gan": 0.85}


@pytest.fixture
def ordered(tmp_path: Path) -> Ledger:
    """Table 2 of the DAE GAN paper with ResNet50 alone, its order as published and plain to see."""
    space, _ = table_space("table_dae_gan", "standard").fix("classifier.name", "resnet50")
    ledger = table_ledger(tmp_path / "s", space)
    for config in space.grid(1):
        accuracy = 0.7 if config["affine"] else ACCURACY[str(config.get(GENERATOR_NAME, "none"))]
        add_row(ledger, config, accuracy)
    return ledger


def filled(ledger: Ledger) -> FilledTable:
    found = fill_table(ledger.search(), ledger.trials(predictions=True))
    assert found is not None
    return found


def printed(ledger: Ledger, width: int) -> str:
    out = io.StringIO()
    print_table(Console(file=out, width=width, markup=False, highlight=False), filled(ledger))
    return out.getvalue()


def test_other_spaces_have_no_table(ordered: Ledger) -> None:
    record = replace(ordered.search(), space=PRESETS["genmix"])
    assert fill_table(record, ordered.trials()) is None


def test_each_row_has_its_own_trial_in_the_papers_order(ordered: Ledger) -> None:
    (part,) = filled(ordered).parts
    means = {cell.row.label: round(cell.scores["accuracy"].mean or 0, 1) for cell in part.cells}
    assert list(means) == [row.label for row in TABLES["table_dae_gan"].rows]
    assert [means[label] for label in ("No enhancement", "Affine transformation", "DAE GAN")] == [0.6, 0.7, 0.8]
    assert part.classifier == "resnet50"
    assert part.published == ("resnet50",)


def test_an_order_that_is_plain_to_see_holds_and_the_reversed_one_does_not(ordered: Ledger) -> None:
    (part,) = filled(ordered).parts
    assert [judgement.verdict for judgement in part.judgements] == ["holds", "holds"]
    trials = {cell.row.label: cell.trial for cell in part.cells if cell.trial is not None}
    claim = chain("r", "DAE GAN", "DCGAN", "No enhancement")
    reverse = judge(claim, trials, "accuracy", missing={}, record=ordered.search())
    assert reverse.verdict == "does not hold"
    assert reverse.observed == "observed: " + " < ".join(
        f"{label} {trials[label].scores['accuracy'].mean:.3f}" for label in ("No enhancement", "DCGAN", "DAE GAN")
    )


def test_a_comparison_is_the_corrected_t_test_of_the_shared_folds(ordered: Ledger) -> None:
    (part,) = filled(ordered).parts
    comparison = part.judgements[1].comparisons[2]
    assert comparison.text == "DAE GAN - DCGAN"
    by_label = {cell.row.label: cell.trial for cell in part.cells}
    one, other = (
        np.array([fold.scores["accuracy"] for fold in trial.folds])
        for trial in (by_label["DAE GAN"], by_label["DCGAN"])
        if trial is not None
    )
    differences = one - other
    t = differences.mean() / (differences.std(ddof=1) * np.sqrt(1 / 10 + 20 / 80))
    assert comparison.test is not None
    assert comparison.test.p_value == pytest.approx(2 * stats.t.sf(abs(t), 9))
    smallest = min(each.test.p_value for each in part.judgements[1].comparisons if each.test and each.test.p_value)
    adjusted = [each.p_holm for each in part.judgements[1].comparisons if each.p_holm is not None]
    assert min(adjusted) == pytest.approx(5 * smallest)


def test_only_folds_that_both_rows_have_are_compared(ordered: Ledger) -> None:
    config = next(trial.config for trial in ordered.trials() if trial.config.get(GENERATOR_NAME) == "dcgan")
    add_row(ordered, {**config, "extra": 1}, 0.7, folds=[1, 3, 4])
    trials = {"a": ordered.trials()[0], "b": ordered.trials()[-1]}
    claim = OrderClaim(text="t", pairs=(("a", "b"),))
    found = judge(claim, trials, "accuracy", missing={}, record=ordered.search())
    (comparison,) = found.comparisons
    assert comparison.test is not None
    assert comparison.test.n == 3


@pytest.mark.parametrize(
    ("protocol", "verdict", "n", "note"),
    [
        (Protocol(folds=5, repeats=2), "holds", 10, None),
        (Protocol(kind="sites", repeats=5), "holds", 2, "The repeats of a site test the same patients"),
        (Protocol(kind="split", repeats=10), "cannot be told", 1, "Every evaluation tests the same validation part"),
    ],
)
def test_repeats_on_the_same_test_images_are_one_difference(
    ordered: Ledger, protocol: Protocol, verdict: str, n: int, note: str | None
) -> None:
    ordered.write_search(replace(ordered.search(), protocol=protocol))
    found = filled(ordered)
    (part,) = found.parts
    claim = OrderClaim(text="t", pairs=(("No enhancement", "ACGAN"),))
    trials = {cell.row.label: cell.trial for cell in part.cells if cell.trial is not None}
    judgement = judge(claim, trials, "accuracy", missing={}, record=ordered.search())
    (test,) = [each.test for each in judgement.comparisons]
    assert test is not None
    one, other = (trials[label].score("accuracy").mean for label in ("ACGAN", "No enhancement"))
    assert test.mean == pytest.approx((one or 0) - (other or 0))
    assert (judgement.verdict, test.n, test.p_value is None) == (verdict, n, n == 1)
    assert any(sentence.startswith(note or "?") for sentence in found.table.notes) == (note is not None)


def test_a_difference_within_the_noise_cannot_be_told(tmp_path: Path) -> None:
    space, _ = table_space("table_dae_gan", "standard").fix("classifier.name", "resnet50")
    ledger = table_ledger(tmp_path / "s", space)
    for config in space.grid(1):
        add_row(ledger, config, 0.7, noise=0.05)
    (part,) = filled(ledger).parts
    assert {judgement.verdict for judgement in part.judgements} == {"cannot be told"}


def test_rows_without_a_score_say_why_and_keep_claims_open(tmp_path: Path) -> None:
    space = table_space("table_genmix", "standard")
    names = space.dimension(GENERATOR_NAME)
    space = space.without(names, "textual_inversion")
    ledger = table_ledger(tmp_path / "s", space)
    states: dict[str, str] = {}
    for config in space.grid(1):
        name = f"{config['mixer.name']} {config.get(GENERATOR_NAME, '')}".strip()
        if name == "augmix":
            ledger.end_trial(ledger.add_trial(config, reference=None), "failed", error="boom")
        elif name == "blend diffusion":
            ledger.add_trial(config, reference=None)
        elif name != "genmix diffusion":
            accuracy = {"blend": 0.6, "genmix": 0.8}.get(str(config["mixer.name"]), 0.5)
            add_row(ledger, config, accuracy, kid={"dcgan": 0.3, "stylegan": 0.1}.get(str(config.get(GENERATOR_NAME))))
    (part,) = filled(ledger).parts
    states = {cell.row.label: cell.remark for cell in part.cells}
    assert states["AugMix (Real)"] == "failed, 0 of 10"
    assert states["Diffusion Model"] == "unfinished, 0 of 10"
    assert states["GenMix (Diffusion Model)"] == "not started"
    assert states["Textual Inversion"] == states["GenMix (Textual Inversion)"] == "no pipeline"
    assert states["DCGAN"] == ""
    first = part.judgements[0]
    assert (first.verdict, first.tested, len(first.comparisons)) == ("cannot be told", 2, 4)
    text = printed(ledger, 160)
    assert re.search(r"Textual Inversion +│ +0\.720 │ +0\.605 │ +no pipeline", text)
    assert "2 of 4 comparisons could be made" in text


def test_a_claim_on_every_generator_is_judged_without_those_that_have_no_pipeline(tmp_path: Path) -> None:
    space = table_space("table_genmix", "standard")
    space = space.without(space.dimension(GENERATOR_NAME), "textual_inversion")
    ledger = table_ledger(tmp_path / "s", space)
    kid = {"dcgan": 0.3, "stylegan": 0.1, "diffusion": 0.05}
    gain = {"dcgan": 0.25, "stylegan": 0.1, "diffusion": 0.1}
    for config in space.grid(1):
        generator = str(config.get(GENERATOR_NAME))
        accuracy = 0.55 + (gain[generator] if config["mixer.name"] == "genmix" else 0)
        add_row(ledger, config, accuracy, kid=kid.get(generator))
    (part,) = filled(ledger).parts
    verdicts = {(each.text, each.score): (each.verdict, each.tested) for each in part.judgements}
    assert verdicts["GenMix gains most with the least faithful generator", "accuracy"] == ("holds", 2)
    gains = next(each for each in part.judgements if "least faithful" in each.text)
    assert gains.observed == "KID, least faithful first: DCGAN 0.300, StyleGAN 0.100, Diffusion Model 0.050"
    assert {each.text for each in gains.comparisons if each.missing == "no pipeline"} == {
        "gain with DCGAN - gain with Textual Inversion"
    }
    assert part.judgements[0].verdict == "holds"


def test_the_largest_gain_with_a_faithful_generator_refutes_the_claim(tmp_path: Path) -> None:
    space = table_space("table_genmix", "standard")
    ledger = table_ledger(tmp_path / "s", space)
    trials = {}
    for label, mixer, generator, accuracy, kid in (
        ("a", "blend", "dcgan", 0.6, 0.3), ("A", "genmix", "dcgan", 0.6, None),
        ("b", "blend", "stylegan", 0.6, 0.1), ("B", "genmix", "stylegan", 0.8, None),
    ):  # fmt: skip
        trial = add_row(ledger, {"mixer.name": mixer, GENERATOR_NAME: generator}, accuracy, kid=kid)
        trials[label] = ledger.trial(trial)
    claim = GainClaim(text="t", pairs=(("a", "A"), ("b", "B")))
    assert judge(claim, trials, "accuracy", missing={}, record=ledger.search()).verdict == "does not hold"
    unmeasured = {**trials, "b": ledger.trial(add_row(ledger, {"x": 1}, 0.6))}
    found = judge(claim, unmeasured, "accuracy", missing={}, record=ledger.search())
    assert (found.verdict, found.comparisons[0].missing) == ("cannot be told", "KID undefined")


def test_what_set_leaves_out_is_told_from_a_missing_pipeline(tmp_path: Path) -> None:
    space, _ = table_space("table_genmix", "standard").fix(GENERATOR_NAME, "dcgan")
    (part,) = filled(table_ledger(tmp_path / "s", space)).parts
    remarks = {cell.row.label: cell.remark for cell in part.cells}
    assert remarks["Textual Inversion"] == remarks["StyleGAN"] == remarks["Baseline (Real)"] == "left out"
    assert remarks["DCGAN"] == "not started"


def test_the_stand_in_stands_beside_both_classifiers_of_the_paper(tmp_path: Path) -> None:
    space = table_space("table_dae_gan", "quick")
    ledger = table_ledger(tmp_path / "s", space, budget="quick", repeats=1)
    for config in space.grid(1):
        add_row(ledger, config, 0.7)
    (part,) = filled(ledger).parts
    assert (part.classifier, part.published) == ("small_cnn", ("resnet50", "xception"))
    text = printed(ledger, 120)
    assert "small_cnn, in place of the paper's resnet50 and xception" in text
    assert re.search(r"DCGAN +│ +0\.8140 │ +0\.8326 │", text)


@pytest.mark.parametrize("width", [100, 160])
def test_the_printed_table_fits_and_shows_score_spread_interval_and_published_value(
    ordered: Ledger, width: int
) -> None:
    text = printed(ordered, width)
    assert max(len(line) for line in text.splitlines()) <= width
    (part,) = filled(ordered).parts
    ours = part.cells[-1]
    interval, summary = ours.intervals["accuracy"], ours.scores["accuracy"]
    assert f"{summary.mean:.3f} ± {summary.std:.3f}" in text
    assert f"[{interval.low:.3f}, {interval.high:.3f}]" in text
    assert "0.8478" in text
    assert "over all 10 evaluations" in text


def test_markdown_and_plain_data_hold_every_row_and_verdict(ordered: Ledger) -> None:
    found = filled(ordered)
    text = table_markdown(found)
    assert all(f"| {row.label} |" in text for row in found.table.rows)
    assert "| **holds** |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {7, 5}
    data = json.loads(json.dumps(table_data(found), allow_nan=False))
    (part,) = data["parts"]
    last = part["rows"][-1]
    assert (last["row"], last["published"]) == ("DAE GAN", {"resnet50": {"accuracy": 0.8478}})
    assert last["scores"]["accuracy"]["low"] < last["scores"]["accuracy"]["high"]
    assert [claim["verdict"] for claim in part["claims"]] == ["holds", "holds"]


def test_intervals_of_accuracy_and_f1_are_scikit_learns_scores_on_resampled_images() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, predicted = rng.integers(0, 3, 30), rng.integers(0, 3, 30)
        weights = rng.multinomial(30, np.full(30, 1 / 30), size=4).astype(np.float64)
        repeated = [np.repeat(np.arange(30), row.astype(int)) for row in weights]
        expected = [accuracy_score(labels[index], predicted[index]) for index in repeated]
        assert weighted_accuracy(weights, labels, predicted) == pytest.approx(expected)
        f1 = [f1_score(labels[index], predicted[index], average="macro") for index in repeated]
        assert weighted_macro_f1(weights, labels, predicted, 4) == pytest.approx(f1)  # the fourth class is nowhere


def test_the_interval_of_a_trial_holds_its_pooled_score(ordered: Ledger) -> None:
    trial, record = ordered.trials(predictions=True)[0], ordered.search()
    found = score_intervals(trial, record)
    hits = [int(np.argmax(each.probabilities)) == each.label for fold in trial.folds for each in fold.predictions]
    assert set(found) == {
        "accuracy", "macro_f1", "balanced_accuracy", "auroc", "patient_balanced_accuracy", "patient_auroc",
    }  # fmt: skip
    assert found["accuracy"].estimate == pytest.approx(np.mean(hits))
    assert found["accuracy"].low < found["accuracy"].estimate < found["accuracy"].high
    assert score_intervals(replace(trial, folds=()), record) == {}


def test_a_patients_images_are_averaged_within_a_repeat_and_not_over_repeats(ordered: Ledger) -> None:
    trial, record = ordered.trials(predictions=True)[0], ordered.search()
    again = [replace(fold, fold=fold.fold + len(trial.folds)) for fold in trial.folds]
    units = [
        (label, np.mean([each.probabilities[record.data.positive] for each in images]))
        for fold in trial.folds
        for (_, label), images in _by_patient(fold.predictions).items()
    ]
    expected = roc_auc_score([label == record.data.positive for label, _ in units], [score for _, score in units])
    for folds in (trial.folds, (*trial.folds, *again)):
        found = score_intervals(replace(trial, folds=tuple(folds)), record)["patient_auroc"]
        assert found.estimate == pytest.approx(expected)


def _by_patient(predictions: Sequence[Prediction]) -> dict[tuple[str, int], list[Prediction]]:
    grouped: dict[tuple[str, int], list[Prediction]] = {}
    for each in predictions:
        grouped.setdefault((each.patient, each.label), []).append(each)
    return grouped


def test_the_sweep_ends_in_a_picture_and_no_other_search_does(tmp_path: Path, ordered: Ledger) -> None:
    assert not draw_ratio_figure(ordered.search(), ordered.trials(), tmp_path / "none.png")
    space = table_space("sweep_ratio", "quick")
    ledger = table_ledger(tmp_path / "sweep", space, budget="quick", repeats=1)
    assert not draw_ratio_figure(ledger.search(), ledger.trials(), tmp_path / "none.png")
    for config in space.grid(1):
        if config.get(GENERATOR_NAME) in (None, "dcgan"):
            add_row(ledger, config, 0.7)
    assert draw_ratio_figure(ledger.search(), ledger.trials(), tmp_path / "ratio.png")
    assert (tmp_path / "ratio.png").stat().st_size > 10_000
    assert not (tmp_path / "none.png").exists()
