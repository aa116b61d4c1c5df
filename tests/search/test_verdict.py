"""A confirmation's verdict: claims what the numbers carry, and says so where they carry nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from search.verdict import Verdict, judge
from search.verdict_text import print_verdict, sentences
from spaces.presets import PRESETS
from spaces.protocol import Protocol
from spaces.space import Assignment
from trainables.ledger import DataRecord, SearchRecord
from trainables.metrics.comparison import corrected_resampled_t_test
from trainables.results import FoldResult, Prediction, TrialResult

FOLDS = 10
TEST = 40


@pytest.fixture
def record() -> SearchRecord:
    data = DataRecord(
        digest="d", source="labels.csv of x", classes=("a", "b"), counts=(100, 100), patients=200, patients_known=True,
        is_phantom=False, positive=1, bad_images=(),
    )  # fmt: skip
    return SearchRecord(
        name="s", space=PRESETS["genmix"], data=data, budget="standard", folds=FOLDS, metric="balanced_accuracy",
        seed=1, sampler="tpe", scheduler="fifo", trials=3, threads=1, tracking_uri="sqlite:///x", created=1.0,
        versions={}, protocol=Protocol(folds=5, repeats=2),
    )  # fmt: skip


def fold(number: int, score: float | None, *, locked: bool = False, right: float = 0.8) -> FoldResult:
    """``right`` is the share of the test images that are predicted rightly, the same ones in every policy."""
    predictions = tuple(
        Prediction(
            image=f"{number}-{index}", patient=f"p{index}", label=index % 2,
            probabilities=(0.9, 0.1) if (index % 2 == 0) == (index < right * TEST) else (0.1, 0.9),
        )
        for index in range(TEST)
    )  # fmt: skip
    return FoldResult(
        fold=number, scores={"balanced_accuracy": score, "calibration_error": None if score is None else 1 - score},
        stages=(), predictions=predictions, counts={"real": 160, "test": TEST}, seconds=1.0, peak_bytes=1,
        locked=locked,
    )  # fmt: skip


def trial(
    number: int, scores: Sequence[float | None], reference: str | None = None, locked: Sequence[float] = ()
) -> TrialResult:
    config: Assignment = {
        "mixer.name": "real",
        "affine": bool(number),
        "classifier.learning_rate": 0.001 * (number + 1),
    }
    folds = [fold(index, score) for index, score in enumerate(scores)]
    folds += [fold(len(scores) + index, share, locked=True, right=share) for index, share in enumerate(locked)]
    return TrialResult(
        id=f"t{number:04d}", config=config, reference=reference, state="completed", folds=tuple(folds), error=None,
        created=0.0, ended=1.0,
    )  # fmt: skip


def noisy(mean: float, seed: int) -> list[float]:
    return list(mean + 0.01 * np.random.default_rng(seed).standard_normal(FOLDS))


def text_of(verdict: Verdict) -> str:
    out = StringIO()
    print_verdict(Console(file=out, width=200, markup=False), verdict, ["A caution."])
    return out.getvalue()


def test_a_clear_improvement_is_claimed_with_its_numbers(record: SearchRecord) -> None:
    best, none = noisy(0.80, 1), noisy(0.70, 2)
    verdict = judge(record, [], [trial(0, best), trial(1, none, "none")], searched_as={})
    found = verdict.comparisons[0].splits
    expected = corrected_resampled_t_test(np.subtract(best, none).tolist(), n_train=160, n_test=TEST)
    assert found == expected
    assert verdict.comparisons[0].p_holm == expected.p_value
    claimed, numbers = sentences(verdict)
    assert claimed.startswith("Verdict: t0000")
    assert claimed.endswith("is better than no augmentation in balanced accuracy.")
    assert "is better than no augmentation (+0.1" in numbers
    assert "A caution." in text_of(verdict)


def test_a_sites_repeats_are_averaged_before_the_sites_are_tested(record: SearchRecord) -> None:
    sites, test_repeats = 2, 3
    protocol = Protocol(kind="sites", repeats=FOLDS // sites, test_repeats=test_repeats)
    record = replace(record, protocol=protocol, folds=FOLDS + test_repeats)
    gain = [0.08, 0.01] * (FOLDS // sites)  # at one of the sites, again and again
    best, none = np.add(noisy(0.7, 1), gain).tolist(), noisy(0.7, 2)
    trials = [trial(0, best, locked=[0.7] * test_repeats), trial(1, none, "none", locked=[0.7] * test_repeats)]
    verdict = judge(record, [], trials, searched_as={})
    of_sites = np.subtract(best, none).reshape(-1, sites).mean(axis=0).tolist()
    assert verdict.comparisons[0].splits == corrected_resampled_t_test(of_sites, n_train=160, n_test=TEST)
    assert sentences(verdict)[0].startswith("Verdict: nothing beats the references")


def test_equal_policies_are_called_equal_whatever_their_order(record: SearchRecord) -> None:
    for seed in range(5):
        trials = [trial(0, noisy(0.7, seed)), trial(1, noisy(0.7, seed + 100), "none")]
        assert sentences(judge(record, [], trials, searched_as={}))[0].startswith(
            "Verdict: nothing beats the references"
        )


def test_a_policy_that_is_worse_beats_nothing(record: SearchRecord) -> None:
    verdict = judge(record, [], [trial(0, noisy(0.6, 1)), trial(1, noisy(0.8, 2), "none")], searched_as={})
    assert verdict.comparisons[0].p_holm is not None
    assert verdict.comparisons[0].p_holm < 0.05
    assert sentences(verdict)[0].startswith("Verdict: nothing beats the references")


def test_p_values_are_corrected_for_the_number_of_references(record: SearchRecord) -> None:
    trials = [trial(0, noisy(0.72, 1)), trial(1, noisy(0.70, 2), "none"), trial(2, noisy(0.71, 3), "affine")]
    verdict = judge(record, [], trials, searched_as={})
    raw = [each.splits.p_value for each in verdict.comparisons]
    assert verdict.comparisons[0].p_holm == pytest.approx(2 * (raw[0] or 0))
    assert verdict.comparisons[1].p_holm == pytest.approx(max(2 * (raw[0] or 0), raw[1] or 0))


def test_a_best_trial_that_is_a_reference_is_compared_like_any_other(record: SearchRecord) -> None:
    trials = [trial(0, noisy(0.8, 1), "affine"), trial(1, noisy(0.7, 2), "none")]
    told = sentences(judge(record, [], trials, searched_as={}))
    assert "is better than no augmentation" in told[0]
    assert not any("not shown" in sentence for sentence in told)
    trials = [trial(0, noisy(0.7, 1), "affine"), trial(1, noisy(0.7, 2), "none")]
    told = sentences(judge(record, [], trials, searched_as={}))
    assert "is itself 'classical augmentation (affine)' and is not shown to be better" in told[0]


def test_less_of_a_score_that_is_to_be_minimized_is_an_improvement(record: SearchRecord) -> None:
    lower = replace(record, metric="calibration_error")
    trials = [trial(0, noisy(0.9, 1)), trial(1, noisy(0.7, 2), "none")]
    verdict = judge(lower, [], trials, searched_as={})
    assert "is better than no augmentation (+0.2" in sentences(verdict)[1]


def test_optimism_is_the_searchs_score_minus_the_confirmed_one(record: SearchRecord) -> None:
    searched = [trial(7, [0.9] * FOLDS)]
    trials = [trial(0, [0.8] * FOLDS), trial(1, [0.7] * FOLDS, "none")]
    verdict = judge(record, searched, trials, searched_as={"t0000": "t0007", "t0001": None})
    assert verdict.rows[0].optimism == pytest.approx(0.1)
    assert verdict.rows[1].optimism is None
    assert any("0.100 too hopeful" in sentence for sentence in sentences(verdict))


def test_the_locked_test_set_is_reported_apart_from_the_splits(record: SearchRecord) -> None:
    trials = [
        trial(0, noisy(0.7, 1), locked=[0.9, 0.95, 0.9]),
        trial(1, noisy(0.7, 2), "none", locked=[0.6, 0.65, 0.6]),
    ]
    verdict = judge(record, [], trials, searched_as={})
    assert verdict.rows[0].score is not None
    assert verdict.rows[0].score.mean == pytest.approx(np.mean(noisy(0.7, 1)))
    assert verdict.rows[0].locked is not None
    assert verdict.rows[0].locked.mean == pytest.approx(np.mean([0.9, 0.95, 0.9]))
    locked = verdict.comparisons[0].locked
    assert locked is not None
    assert locked.difference == pytest.approx(0.3)
    assert locked.low > 0
    assert any("locked test set" in sentence and "+0.300" in sentence for sentence in sentences(verdict))
    assert "locked test" in text_of(verdict)


@pytest.mark.parametrize(
    ("locked", "claim"),
    [
        ((0.9, 0.95, 0.9, 0.9, 0.95), "on fresh splits in balanced accuracy and on the locked test set"),
        ((0.6, 0.65, 0.6, 0.65, 0.6), "the locked test set does not show it"),
        ((0.1, 0.15, 0.1, 0.1, 0.15), "no improvement is claimed"),
    ],
)
def test_an_improvement_on_the_splits_is_claimed_as_far_as_the_locked_test_set_lets_it(
    record: SearchRecord, locked: tuple[float, ...], claim: str
) -> None:
    theirs = [0.6, 0.65, 0.6, 0.65, 0.6]
    trials = [trial(0, noisy(0.8, 1), locked=locked), trial(1, noisy(0.7, 2), "none", locked=theirs)]
    assert claim in sentences(judge(record, [], trials, searched_as={}))[0]


def test_intervals_are_of_the_searchs_own_metric(record: SearchRecord) -> None:
    trials = [trial(0, noisy(0.7, 1)), trial(1, noisy(0.7, 2), "none")]
    for metric, has_one in {"accuracy": True, "auroc": True, "patient_auroc": True, "calibration_error": False}.items():
        row = judge(replace(record, metric=metric), [], trials, searched_as={}).rows[0]
        assert (row.interval is not None) == has_one, metric
    accuracy = judge(replace(record, metric="accuracy"), [], trials, searched_as={}).rows[0].interval
    assert accuracy is not None
    assert accuracy.estimate == pytest.approx(0.8)


def test_undefined_scores_and_unfinished_trials_are_said(record: SearchRecord) -> None:
    failed = replace(trial(1, [], "none"), state="failed", error="DivergedError: x")
    verdict = judge(record, [], [trial(0, noisy(0.7, 1)), failed], searched_as={})
    assert verdict.comparisons[0].splits.mean is None
    assert any("no augmentation (not evaluated)" in sentence for sentence in sentences(verdict))
    assert any("t0001" in sentence and "(failed)" in sentence for sentence in sentences(verdict))


def test_the_optimism_of_a_policy_that_was_not_evaluated_to_its_end_is_not_told(record: SearchRecord) -> None:
    stopped = replace(trial(0, noisy(0.7, 1)), state="failed")
    searched = [trial(7, [0.9] * FOLDS)]
    verdict = judge(record, searched, [stopped, trial(1, noisy(0.7, 2), "none")], searched_as={"t0000": "t0007"})
    assert verdict.rows[0].optimism is None


def test_what_was_not_fresh_is_said(record: SearchRecord) -> None:
    trials = [trial(0, noisy(0.7, 1)), trial(1, noisy(0.7, 2), "none")]
    told = sentences(judge(record, [], trials, searched_as={}, reused=("The sites are old.",)))
    assert "The sites are old." in told
