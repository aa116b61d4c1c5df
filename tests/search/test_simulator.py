"""Searches in virtual time: schedules computed by hand, and the same decisions as the real code's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.durations import reference_durations
from search.objectives import Objective, trial_value
from search.racing import Racing
from search.simulation.asha_rule import AshaRule
from search.simulation.course import Cluster, Event, Happening, Simulation
from search.simulation.driver import Plan
from search.simulation.workload import DrawnWorkload, Evaluation, PlannedStage
from search.simulator import POLL_SECONDS, simulate
from spaces.budget import budget_named
from spaces.parameter import Choice, Value
from spaces.presets import PRESETS
from spaces.space import Assignment, Dimension, Space
from tests.benchmarks.recorded_table import SCORES, kind_of, load_table, write_table
from trainables import stages
from trainables.leases import DEAD_AFTER
from trainables.results import FoldResult, StageRecord, TrialResult

AUROC = Objective(name="auroc", maximize=True)
LIST = tuple("abcdefgh")
SPACE = Space(
    name="toy", dimensions=(Dimension(parameter=Choice(name="policy", options=LIST, default="a")),)
)  # fmt: skip


class Listed:
    """Proposes given policies one after the other."""

    def __init__(self, *policies: str) -> None:
        self._policies = policies

    def propose(self, number: int, trials: object) -> Assignment | None:
        return {"policy": self._policies[number]} if number < len(self._policies) else None


class Toy:
    """Each policy trains the generator named by its first letter (10 s a fold) and a classifier (2 s)."""

    def __init__(
        self,
        folds: int = 1,
        scores: Mapping[str, float] | None = None,
        error: str | None = None,
        training: float = 10.0,
    ) -> None:
        self._training = training
        self._folds = folds
        self._scores = scores or {}
        self._error = error

    @property
    def folds(self) -> int:
        return self._folds

    def evaluation(self, config: Mapping[str, Value], fold: int) -> Evaluation:
        policy = str(config["policy"])
        generator = PlannedStage(name="generator", key=f"{policy[0]}{fold}", seconds=self._training)
        classifier = PlannedStage(name="classifier", key=f"{policy}{fold}", seconds=2.0)
        score = self._scores.get(policy, 0.5) + 0.01 * fold * (1 + ord(policy[0]) % 3)
        return Evaluation(stages=(generator, classifier), scores={"auroc": score}, error=self._error)


def plan(*policies: str, toy: Toy | None = None) -> Plan:
    return Plan(workload=toy or Toy(), proposer=Listed(*policies), objectives=(AUROC,), wanted=99)


def cluster(slots: int = 2) -> Cluster:
    return Cluster(slots=slots, reuse_seconds=0.0)


def times(simulation: Simulation, what: Happening, detail: str = "") -> list[float]:
    return [each.time for each in simulation.events if each.what == what and each.detail.startswith(detail)]


def test_of_two_trials_with_one_generator_the_second_waits_for_the_first() -> None:
    found = simulate(plan("a1", "a2"), cluster(), seed=0)
    assert found.computed == {"generator": 10.0, "classifier": 4.0}
    assert times(found, "computed", "generator") == [10.0]
    assert times(found, "reused", "generator") == [pytest.approx(10.0)]
    assert times(found, "completed") == [pytest.approx(12.0)] * 2
    assert found.waited == pytest.approx(10.0)
    assert [fold.stages[0].reused for trial in found.trials for fold in trial.folds] == [False, True]
    assert {fold.stages[0].seconds for trial in found.trials for fold in trial.folds} == {10.0}


def test_who_waits_looks_ten_times_a_second_from_when_it_began() -> None:
    # the second slot begins to wait at 2.03 s: it looks at 9.93, 10.03, ...
    late = replace(cluster(), proposal_seconds=2.03)
    found = simulate(plan("a1", "a2"), late, seed=0)
    assert times(found, "computed", "generator") == [pytest.approx(12.03)]
    assert times(found, "reused", "generator") == [pytest.approx(4.06 + 80 * POLL_SECONDS)]
    assert pytest.approx(stages._POLL_SECONDS) == POLL_SECONDS


def test_without_sharing_everything_is_computed_and_nobody_waits() -> None:
    found = simulate(replace(plan("a1", "a2"), sharing=False), cluster(), seed=0)
    assert found.computed == {"generator": 20.0, "classifier": 4.0}
    assert found.waited == 0
    assert found.utilisation == 1


def test_a_trial_takes_first_the_folds_whose_generator_nobody_trains() -> None:
    found = simulate(plan("a1", "a2", toy=Toy(folds=2)), cluster(), seed=0)
    folds = [(each.slot, each.detail, each.time) for each in found.events if each.what == "fold"]
    assert found.waited == pytest.approx(0)
    assert folds == [(0, "0", 12.0), (1, "1", 12.0), (0, "1", 14.0), (1, "0", 14.0)]
    in_order = simulate(replace(plan("a1", "a2", toy=Toy(folds=2)), folds_in_order=True), cluster(), seed=0)
    assert in_order.waited > 9


def test_the_generator_of_a_lost_node_is_trained_again_by_another_once_its_lease_is_dead() -> None:
    nodes = replace(cluster(), slots_per_node=1, losses=((4.0, 0),), repair_seconds=100.0)
    found = simulate(plan("a1", "a2"), nodes, seed=0)
    begun = 4.0 + DEAD_AFTER
    assert times(found, "lost") == [4.0]
    assert times(found, "computed", "generator") == [pytest.approx(begun + 10, abs=2 * POLL_SECONDS)]
    assert found.lost == 4.0
    assert found.computed["generator"] == pytest.approx(14.0)
    # the slot that is left ends its own trial and then goes on with the one that was lost
    assert times(found, "resumed") == [pytest.approx(begun + 12, abs=2 * POLL_SECONDS)]
    assert [trial.state for trial in found.trials] == ["completed", "completed"]
    assert found.spent("down") == pytest.approx(100.0)


def test_a_holder_that_lived_long_is_dead_no_sooner_than_its_heartbeat_says() -> None:
    nodes = replace(cluster(), slots_per_node=1, losses=((25.0, 0),), repair_seconds=100.0)
    found = simulate(plan("a1", "a2", toy=Toy(training=30.0)), nodes, seed=0)
    begun = 25.0 + DEAD_AFTER
    assert times(found, "computed", "generator") == [pytest.approx(begun + 30, abs=2 * POLL_SECONDS)]


def test_a_lost_trial_keeps_its_finished_folds_and_stages() -> None:
    nodes = replace(cluster(1), losses=((23.0, 0),), repair_seconds=50.0)
    found = simulate(plan("a1", toy=Toy(folds=2)), nodes, seed=0)
    # at 23 s the second fold's generator is there and a second of its classifier is lost with its lease
    assert found.lost == pytest.approx(1.0)
    assert found.computed == {"generator": 20.0, "classifier": pytest.approx(5.0)}
    assert found.trials[0].ended == pytest.approx(73 + DEAD_AFTER + 2, abs=2 * POLL_SECONDS)


def test_a_straggler_takes_longer_and_says_so() -> None:
    found = simulate(plan("a1"), replace(cluster(1), straggler_share=1.0, straggler_factor=3.0), seed=0)
    assert found.trials[0].ended == 36.0
    assert [stage.seconds for stage in found.trials[0].folds[0].stages] == [30.0, 6.0]


def test_a_trial_whose_stage_diverges_fails_and_the_next_fails_at_once() -> None:
    found = simulate(plan("a1", "a1", toy=Toy(folds=3, error="DivergedError: x")), cluster(1), seed=0)
    assert [(trial.state, trial.error, trial.ended) for trial in found.trials] == [
        ("failed", "DivergedError: x", 12.0),
        ("failed", "DivergedError: x", 12.0),
    ]


def test_no_trial_is_proposed_beyond_the_limits() -> None:
    endless = plan(*"bcdefghijk")
    assert len(simulate(replace(endless, wanted=2), cluster(1), seed=0).trials) == 2
    assert len(simulate(replace(endless, time_limit=13.0), cluster(1), seed=0).trials) == 2
    assert len(simulate(replace(endless, compute_limit=25.0), cluster(2), seed=0).trials) == 4


def test_references_come_first_and_the_best_is_followed() -> None:
    scores = {"a1": 0.7, "b1": 0.6, "c1": 0.8}
    references = {"none": {"policy": "b1"}}
    found = simulate(replace(plan("", "a1", "c1", toy=Toy(scores=scores)), references=references), cluster(1), seed=0)
    assert [trial.reference for trial in found.trials] == ["none", None, None]
    assert [(each.best, each.compute) for each in found.progress] == [("t0000", 12.0), ("t0001", 24.0), ("t0002", 36.0)]


def test_equal_seeds_have_equal_timelines() -> None:
    shaky = Cluster(
        slots=6, slots_per_node=2, straggler_share=0.3, straggler_factor=2.0, loss_every=40.0, repair_seconds=15.0
    )
    policies = [f"{letter}{number}" for number in range(6) for letter in "abc"]

    def run(seed: int) -> Simulation:
        return simulate(plan(*policies, toy=Toy(folds=3)), shaky, seed=seed)

    one, other = run(1), run(1)
    assert (one.events, one.spans, one.trials) == (other.events, other.spans, other.trials)
    assert one.events != run(2).events
    assert times(one, "lost")
    assert {trial.state for trial in one.trials} == {"completed"}
    total = sum(one.spent(doing) for doing in ("busy", "waiting", "idle", "down"))
    assert total == pytest.approx(6 * max(span.end for span in one.spans))


def test_a_search_in_virtual_time_decides_what_sampler_and_racing_decide_by_hand() -> None:
    from search.proposers import RandomProposer

    toy = Toy(folds=4, scores={letter: 0.5 + 0.03 * number for number, letter in enumerate(LIST)})
    proposer = RandomProposer(SPACE, seed=3)
    trials: list[TrialResult] = []
    racing = Racing(objectives=(AUROC,), folds=4, max_copy_rate=None)
    while (config := proposer.propose(len(trials), trials)) is not None:
        number = len(trials)
        trial = TrialResult(
            id=f"t{number:04d}", config=config, reference=None, state="unfinished", folds=(), error=None, created=0.0,
            ended=None,
        )  # fmt: skip
        trials.append(trial)
        for fold in range(4):
            made = toy.evaluation(config, fold)
            records = tuple(
                StageRecord(name=each.name, key=each.key, seconds=each.seconds, reused=False) for each in made.stages
            )
            result = FoldResult(
                fold=fold, scores=made.scores, stages=records, predictions=(), counts={}, seconds=0.0, peak_bytes=0
            )
            trials[-1] = replace(trials[-1], folds=(*trials[-1].folds, result))
            if fold < 3 and racing.stops(trials[-1], trials):
                break
        trials[-1] = replace(trials[-1], state="completed" if len(trials[-1].folds) == 4 else "pruned")
    found = simulate(
        Plan(
            workload=toy,
            proposer=RandomProposer(SPACE, seed=3),
            objectives=(AUROC,),
            wanted=12,
            stopper=Racing(objectives=(AUROC,), folds=4, max_copy_rate=None),
        ),
        cluster(1),
        seed=0,
    )
    by_hand = [(trial.config, trial.state, [fold.fold for fold in trial.folds]) for trial in trials]
    assert [(trial.config, trial.state, [fold.fold for fold in trial.folds]) for trial in found.trials] == by_hand
    assert {state for _, state, _ in by_hand} == {"completed", "pruned"}
    best = max((each for each in trials if each.state == "completed"), key=lambda each: trial_value(each, AUROC) or 0)
    assert found.progress[-1].best == best.id


def test_events_tell_one_trial_from_another() -> None:
    found = simulate(plan("a1", "b1"), cluster(), seed=0)
    assert Event(time=12.0, slot=1, what="completed", trial="t0001") in found.events


def test_the_rule_of_asha_is_that_of_the_scheduler(tmp_path: Path) -> None:
    from ray.tune.schedulers import TrialScheduler

    from search.schedulers import FoldAsha
    from trainables.ledger import Ledger

    for folds in (2, 3, 5, 10):
        ledger, rng, stopped = Ledger(tmp_path / str(folds)), random.Random(folds), []
        scheduler = FoldAsha(ledger, folds=folds, maximize=True, metric="auroc", max_copy_rate=None, earlier=[])
        rule = AshaRule(objective=AUROC, folds=folds)
        for number in range(30):
            reference = "none" if number % 7 == 3 else None
            trial = TrialResult(
                id=ledger.add_trial({}, reference=reference), config={}, reference=reference, state="unfinished",
                folds=(), error=None, created=0.0, ended=None,
            )  # fmt: skip
            tune_trial = SimpleNamespace(trial_id=trial.id)
            scheduler.on_trial_add(None, tune_trial)
            for fold in range(folds - 1):
                result = FoldResult(
                    fold=fold, scores={"auroc": rng.random()}, stages=(), predictions=(), counts={}, seconds=0.0,
                    peak_bytes=0,
                )  # fmt: skip
                trial = replace(trial, folds=(*trial.folds, result))
                report = {"trial": trial.id, "folds_done": fold + 1, "running_mean": trial_value(trial, AUROC)}
                given = {**report, "reference": reference} if reference else report
                theirs = scheduler.on_trial_result(None, tune_trial, given) == TrialScheduler.STOP
                stopped.append(theirs)
                assert theirs == (rule.stops(trial, []) is not None)
                if theirs:
                    break
        assert any(stopped) == (folds > 2)


def test_equal_stages_of_drawn_trials_have_one_key_and_one_duration() -> None:
    space, budget = PRESETS["genmix"], budget_named("quick")
    durations = reference_durations(budget, images=None)
    assert durations is not None
    drawn = DrawnWorkload(space, budget, durations, folds=2, seed=0)
    one = space.complete({"mixer.name": "genmix", "generator.name": "diffusion"})
    others = [{**one, "generator.guidance": 2.5}, {**one, "affine": True}, {**one, "generator.sampling_steps": 9}]
    stages = [{each.name: each for each in drawn.evaluation(config, 0).stages} for config in (one, *others)]
    assert len({each["generator"] for each in stages}) == 1
    assert [each["pool"] == stages[0]["pool"] for each in stages] == [True, False, True, False]
    assert len({each["classifier"].key for each in stages}) == 4
    assert drawn.evaluation(one, 1).stages[1].key != drawn.evaluation(one, 0).stages[1].key
    assert [each.name for each in drawn.evaluation({"mixer.name": "real", "affine": False}, 0).stages] == [
        "preprocess",
        "classifier",
    ]


def row(config: Assignment, fold: int, **more: object) -> dict[str, object]:
    scores = dict.fromkeys(SCORES, 0.5 + fold / 100)
    generator = str(config.get("generator.name"))
    stages = [["generator", f"{generator}{fold}", 77.7], ["classifier", f"{sorted(config.items())}{fold}", 0.1]]
    return {"config": config, "fold": fold, "scores": scores, "copy_rate": 0.25, "stages": stages, **more}


def test_a_recorded_table_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    one: Assignment = {"mixer.name": "blend", "generator.name": "dcgan", "synthetic.ratio": 0.5, "affine": False}
    one["classifier.learning_rate"] = 1e-3
    other: Assignment = {**one, "affine": True}
    failing: Assignment = {**one, "generator.name": "egan", "generator.gamma": 0.1, "generator.survivors": 1}
    partly: Assignment = {**one, "synthetic.ratio": 1.5}
    rows = [row(config, fold) for config in (one, other) for fold in range(6)] + [row(partly, 0)]
    for fold in range(6):
        rows.append({"config": failing, "fold": fold, "error": "DivergedError: x", "seconds": 4.0})
    seconds = {"generator": 9.5, "classifier": 1.5}
    times = {kind_of(name, config): cost for name, cost in seconds.items() for config in (one, other, failing, partly)}
    for path in (tmp_path / "a" / "table.json", tmp_path / "b" / "table.json"):
        largest = 10 if path.parent.name == "b" else 10**6
        written = write_table(rows, times, path, largest=largest)
        assert written.suffix == (".gz" if path.parent.name == "b" else ".json")
        table = load_table(path)
        assert table.configs == (one, other, failing)
        found = [table.repeat(0).evaluation(config, 2) for config in (one, other)]
        assert found[0].stages[0] == found[1].stages[0]
        assert found[0].stages[1].key != found[1].stages[1].key
        assert [(each.name, each.seconds) for each in found[0].stages] == [("generator", 9.5), ("classifier", 1.5)]
        assert found[0].scores == dict.fromkeys(SCORES, 0.52)
        assert found[0].fidelity == {"copy_rate": 0.25}
        assert table.mean(one, "auroc", repeat=1) == pytest.approx(0.54)
        broken = table.repeat(0).evaluation(failing, 0)
        assert (broken.error, [each.seconds for each in broken.stages]) == ("DivergedError: x", [4.0])
        assert table.mean(failing, "auroc", repeat=1) is None
