"""What a confirmation evaluates, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.candidates import affordable, candidates, plan, protocol_of, references_of, spent
from spaces.presets import PRESETS
from spaces.protocol import Protocol
from spaces.reference import reference_policies
from spaces.space import Assignment, Space
from spaces.space_file import space_from_yaml
from trainables.ledger import DataRecord, SearchRecord
from trainables.results import FoldResult, StageRecord, TrialResult

SPACE: Space = PRESETS["genmix"]
DCGAN: Assignment = {**reference_policies(SPACE)["genmix"], "synthetic.ratio": 0.5}


@pytest.fixture
def record() -> SearchRecord:
    data = DataRecord(
        digest="d", source="labels.csv of x", classes=("a", "b"), counts=(3, 4), patients=5, patients_known=True,
        is_phantom=False, positive=1, bad_images=(),
    )  # fmt: skip
    return SearchRecord(
        name="s", space=SPACE, data=data, budget="standard", folds=2, metric="auroc", seed=1, sampler="tpe",
        scheduler="asha", trials=4, threads=1, tracking_uri="sqlite:///x", created=1.0, versions={},
        protocol=Protocol(folds=2),
    )  # fmt: skip


def trial(number: int, config: Assignment, auroc: float, *, seconds: float, reused: float = 0.0) -> TrialResult:
    stages = (StageRecord(name="generator", key="k", seconds=reused, reused=True),)
    folds = tuple(
        FoldResult(
            fold=fold, scores={"auroc": auroc}, stages=stages, predictions=(), counts={}, seconds=seconds, peak_bytes=1
        )
        for fold in range(2)
    )
    return TrialResult(
        id=f"t{number:04d}", config=config, reference=None, state="completed", folds=folds, error=None, created=0.0,
        ended=1.0,
    )  # fmt: skip


def searched() -> list[TrialResult]:
    policies = reference_policies(SPACE)
    return [
        trial(0, policies["none"], 0.6, seconds=1.0),
        trial(1, policies["affine"], 0.7, seconds=1.0),
        trial(2, DCGAN, 0.9, seconds=2.0, reused=8.0),
        trial(3, {**DCGAN, "synthetic.ratio": 0.7}, 0.8, seconds=2.0, reused=8.0),
    ]


def test_the_best_comes_first_then_the_references_then_the_next_best(record: SearchRecord) -> None:
    found = candidates(record, searched(), top=2)
    assert (found[0].config, found[0].trial, found[0].role) == (DCGAN, "t0002", None)
    assert [each.role for each in found[1:5]] == ["none", "affine", "mixup", "genmix"]
    assert {each.role for each in found[5:-1]} >= {"plain dcgan", "plain egan", "plain stylegan"}
    assert found[-1].trial == "t0003"


def test_a_reference_that_is_the_best_stands_once(record: SearchRecord) -> None:
    trials = [replace(each, folds=()) if each.id in ("t0002", "t0003") else each for each in searched()]
    found = candidates(record, trials, top=3)
    assert [each.trial for each in found[:2]] == ["t0001", "t0000"]
    assert [each.role for each in found[:3]] == ["affine", "none", "mixup"]
    assert len({repr(sorted(each.config.items())) for each in found}) == len(found)


def test_references_are_trained_as_the_best_trial_is(record: SearchRecord) -> None:
    tuned = trial(4, {**DCGAN, "classifier.learning_rate": 0.004}, 0.95, seconds=2.0)
    found = candidates(record, [*searched(), tuned], top=1)
    assert found[0].trial == "t0004"
    assert {each.config["classifier.learning_rate"] for each in found} == {0.004}
    none = next(each for each in found if each.role == "none")
    assert (none.config["mixer.name"], none.trial) == ("real", None)


def test_one_computation_stands_once_whatever_it_leaves_open(record: SearchRecord) -> None:
    explicit = {**reference_policies(SPACE)["none"], "classifier.batch_size": 32}
    trials = [replace(trial(0, explicit, 0.99, seconds=1.0)), *searched()[1:]]
    found = candidates(record, trials, top=1)
    assert (found[0].role, found[0].trial) == ("none", "t0000")
    assert sum(each.role == "none" for each in found) == 1


def test_a_completed_trial_is_named_before_a_failed_one_of_the_same_computation(record: SearchRecord) -> None:
    failed = replace(trial(0, DCGAN, 0.9, seconds=1.0), state="failed", folds=())
    again = replace(searched()[2], id="t0005")
    assert candidates(record, [failed, again], top=1)[0].trial == "t0005"


def test_a_fixed_validation_part_is_divided_afresh_and_sites_stay(record: SearchRecord) -> None:
    split = replace(record, protocol=Protocol(kind="split", validation=0.1), folds=1)
    assert protocol_of(split, repeats=2, test_repeats=3) == Protocol(folds=5, repeats=2, validation=0.1, test_repeats=3)
    assert plan(split, candidates(split, searched(), top=1), repeats=2, test_repeats=3).evaluations == 13
    sites = replace(record, protocol=Protocol(kind="sites"), folds=4)
    assert protocol_of(sites, repeats=2, test_repeats=0).kind == "sites"


def test_plain_generators_are_trained_as_the_space_trains_them_under_its_own_mixers() -> None:
    space = space_from_yaml(
        """
name: small
dimensions:
  - {name: mixer.name, type: choice, options: [real, genmix], default: real}
  - {name: generator.name, type: choice, options: [dcgan], default: dcgan, when: {mixer.name: [genmix]}}
  - {name: generator.steps, type: int, low: 3, high: 3, default: 3, when: {mixer.name: [genmix]}}
  - {name: mixer.genmix_alpha, type: float, low: 0.2, high: 0.4, default: 0.3, when: {mixer.name: [genmix]}}
""",
        source="a test",
    )
    assert references_of(space)["plain dcgan"] == {
        "mixer.name": "blend", "generator.name": "dcgan", "generator.steps": 3, "synthetic.ratio": 1.0,
        "synthetic.balance": False, "affine": False,
    }  # fmt: skip


def test_an_evaluation_costs_what_was_computed_and_what_was_found(record: SearchRecord) -> None:
    found = {each.role or each.trial: each for each in candidates(record, searched(), top=1)}
    assert found["t0002"].seconds == 10.0
    assert found["none"].seconds == 1.0
    assert found["plain dcgan"].seconds == 10.0
    assert found["plain egan"].seconds is None


def test_a_plan_is_as_large_as_its_limit_allows(record: SearchRecord) -> None:
    chosen = candidates(record, searched(), top=1)
    assert affordable(record, chosen, limit=21.9, test_repeats=0) is None
    smallest = affordable(record, chosen, limit=22.0, test_repeats=0)
    assert smallest is not None
    assert [each.role for each in smallest.candidates] == [None, "none"]
    assert (smallest.repeats, smallest.evaluations, smallest.seconds) == (1, 2, 22.0)
    large = affordable(record, chosen, limit=1e9, test_repeats=3)
    assert large is not None
    assert (large.repeats, large.evaluations) == (5, 13)
    assert all(each.seconds is not None for each in large.candidates)


def test_unknown_costs_count_as_typical_ones(record: SearchRecord) -> None:
    chosen = candidates(record, searched(), top=1)
    known = [each.seconds for each in chosen if each.seconds is not None]
    whole = plan(record, chosen, repeats=2, test_repeats=0)
    assert whole.seconds == pytest.approx(4 * len(chosen) * sum(known) / len(known))


def test_what_a_search_spent_leaves_out_what_it_found(record: SearchRecord) -> None:
    assert spent(searched()) == 12.0


def test_nothing_complete_gives_nothing_to_confirm(record: SearchRecord) -> None:
    assert candidates(record, [replace(each, state="failed") for each in searched()], top=3) == ()
