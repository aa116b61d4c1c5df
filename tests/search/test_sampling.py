"""Proposals and scheduling over a ledger, without Ray's processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.chosen_space import chosen_space
from search.objectives import Objective
from search.proposers import build_proposer
from search.sampler import LedgerSearcher
from search.sampling.draws import GRID_POINTS, STARTUP_TRIALS, GridProposer, Proposer
from search.sampling.earlier import EarlierTrial
from search.sampling.tpe import TOLD_TRIALS, TpeProposer
from search.schedulers import FoldAsha
from spaces.budget import budget_named
from spaces.generators import GENERATORS
from spaces.parameter import Choice
from spaces.presets import PRESETS
from spaces.reference import reference_policies
from spaces.space import Assignment, Space
from spaces.space_file import space_from_yaml
from tests.trainables.test_ledger import made_up_record
from trainables.ledger import Ledger
from trainables.results import FoldResult, TrialResult
from trainables.results import TrialState as State

SPACE = PRESETS["genmix"]
AUROC = (Objective(name="auroc", maximize=True),)
QUICK = budget_named("quick")


def fold(number: int, score: float | None, rate: float | None = None) -> FoldResult:
    return FoldResult(
        fold=number, scores={"auroc": score}, stages=(), predictions=(), counts={}, seconds=0.0, peak_bytes=0,
        fidelity={} if rate is None else {"copy_rate": rate},
    )  # fmt: skip


def trial(
    number: int,
    config: Assignment,
    scores: list[float],
    state: State = "completed",
    *,
    rate: float | None = None,
    error: str | None = None,
) -> TrialResult:
    folds = tuple(fold(index, score, rate) for index, score in enumerate(scores))
    return TrialResult(
        id=f"t{number:04d}", config=config, reference=None, state=state, folds=folds, error=error, created=0, ended=1
    )


def proposer(name: str, seed: int = 0) -> Proposer:
    return build_proposer(name, SPACE, seed=seed, objectives=AUROC, budget=QUICK)


@pytest.mark.parametrize("name", ["reuse", "tpe", "random", "grid"])
def test_a_proposal_depends_on_seed_number_and_record_alone(name: str) -> None:
    trials = [trial(number, SPACE.sample(random.Random(number)), [0.5, 0.6]) for number in range(STARTUP_TRIALS + 4)]
    first = proposer(name).propose(len(trials), trials)
    assert SPACE.contains(first)
    assert first == proposer(name).propose(len(trials), trials)
    assert first != proposer(name, seed=1).propose(len(trials), trials)


def test_tpe_finds_the_better_mixer_and_learning_rate() -> None:
    def score(config: Assignment) -> float:
        rate = float(config["classifier.learning_rate"])
        return (config["mixer.name"] == "genmix") + max(0.0, 1 - abs(rate - 3e-4) * 1000)

    def run(name: str) -> float:
        trials: list[TrialResult] = []
        for number in range(60):
            config = proposer(name).propose(number, trials)
            trials.append(trial(number, config, [score(config)]))
        return sum(score(each.config) for each in trials[30:]) / 30

    assert run("tpe") > run("random") + 0.3


def test_tpe_takes_a_pruned_trial_for_what_it_is_and_survives_failed_and_undefined_ones() -> None:
    configs = [SPACE.sample(random.Random(number)) for number in range(STARTUP_TRIALS + 4)]
    trials = [trial(number, config, [0.5, 0.6]) for number, config in enumerate(configs)]
    trials[0] = trial(0, configs[0], [0.9], "pruned")
    trials[1] = trial(1, configs[1], [], "failed")
    trials[2] = trial(2, configs[2], [], "unfinished")
    trials[3] = TrialResult(
        id="t0003", config=configs[3], reference=None, state="completed", folds=(fold(0, None),), error=None,
        created=0, ended=1,
    )  # fmt: skip
    tpe = TpeProposer(SPACE, seed=0, objectives=AUROC)
    assert SPACE.contains(tpe.propose(len(trials), trials) or {})


DIVERGED = "DivergedError: the generator makes images that are all alike"
CRASHED = "the trial's process died twice (killed, or out of memory)"
LINE = space_from_yaml(
    "{name: l, dimensions: [{name: generator.gamma, type: float, low: 0.0, high: 1.0, default: 0.5}]}", source="test"
)


def share_low(trials: list[TrialResult], *, limit: float | None = None) -> float:
    """How many of TPE's next proposals over ``LINE``, by seed, have a gamma below one half."""
    proposers = (TpeProposer(LINE, seed=seed, objectives=AUROC, max_copy_rate=limit) for seed in range(60))
    proposed = [each.propose(len(trials), trials) or {} for each in proposers]
    return sum(float(config["generator.gamma"]) < 0.5 for config in proposed) / len(proposed)


def evenly(build: Callable[[int, Assignment, float], TrialResult]) -> list[TrialResult]:
    """Twenty-four trials at evenly spaced gammas."""
    gammas = [(number + 0.5) / 24 for number in range(24)]
    return [build(number, {"generator.gamma": gamma}, gamma) for number, gamma in enumerate(gammas)]


def test_tpe_avoids_where_trials_diverged_and_not_where_the_machine_crashed() -> None:
    def low_fails(error: str) -> list[TrialResult]:
        return evenly(
            lambda number, config, gamma: (
                trial(number, config, [], "failed", error=error)
                if gamma < 0.5
                else trial(number, config, [0.6 + number % 3 / 100])
            )
        )

    assert share_low(low_fails(DIVERGED)) < 0.1
    assert share_low(low_fails(CRASHED)) > 0.3


def test_tpe_avoids_where_trials_copy_although_they_score_better() -> None:
    copying = evenly(
        lambda number, config, gamma: trial(number, config, [1 - gamma / 2], rate=0.3 if gamma < 0.5 else 0.0)
    )
    assert share_low(copying) > 0.9
    assert share_low(copying, limit=0.05) < 0.1
    assert share_low(copying, limit=0.3) > 0.9


def test_a_diverged_trial_ranks_below_every_other_and_a_crash_counts_for_nothing() -> None:
    config: Assignment = {"generator.gamma": 0.5}
    tpe = TpeProposer(LINE, seed=0, objectives=AUROC, max_copy_rate=0.1)
    worst, copying, crash, good = tpe._told(
        [
            trial(0, config, [0.9], "failed", error=DIVERGED),
            trial(1, config, [0.9], rate=1.0),
            trial(2, config, [0.9], "failed", error=CRASHED),
            trial(3, config, [0.9], rate=0.1),
        ]
    )
    assert crash.state == TrialState.FAIL
    assert (worst.state, copying.state, good.state) == (TrialState.PRUNED, TrialState.COMPLETE, TrialState.COMPLETE)
    violations = [sum(each.constraints.values()) for each in (good, copying, worst)]
    assert violations == [0.0, pytest.approx(0.9), 2.0]
    errors = ("RetryableTrialError: OSError: disk", "RuntimeError: x", "LateError: DivergedError: x", "")
    for number, error in enumerate(errors, start=4):
        assert tpe._told([trial(number, config, [], "failed", error=error)])[0].state == TrialState.FAIL


def test_tpe_knows_one_name_under_two_parents_as_two() -> None:
    models = SPACE.fix("generator.pretrained", "/tiny")[0]
    both = Space(
        name="both",
        dimensions=tuple(
            replace(each, parameter=replace(each.parameter, options=(f"/{index}", f"/{index}/b"), default=f"/{index}"))
            if each.name == "generator.pretrained" and isinstance(each.parameter, Choice)
            else each
            for index, each in enumerate(models.narrowed().dimensions)
        ),
    )
    trials = [trial(number, both.sample(random.Random(number)), [number / 100]) for number in range(3 * STARTUP_TRIALS)]
    told = TpeProposer(both, seed=0, objectives=AUROC)._told(trials)
    assert {name for each in told for name in each.params if "pretrained" in name} == {
        "generator.pretrained (diffusion)",
        "generator.pretrained (textual_inversion)",
    }
    for seed in range(5):
        tpe = TpeProposer(both, seed=seed, objectives=AUROC)
        assert both.contains(tpe.propose(len(trials), trials) or {})


def test_of_a_grid_too_large_to_list_every_generator_is_drawn() -> None:
    grid = GridProposer(SPACE, seed=0)
    trials: list[TrialResult] = []
    for number in range(60):
        config = grid.propose(number, trials)
        assert config is not None
        for each in SPACE.dimensions:
            assert not each.exists(config) or config[each.name] in each.parameter.grid(GRID_POINTS)
        trials.append(trial(number, config, [0.5]))
    drawn = [each.config for each in trials]
    assert {config.get("generator.name", "none") for config in drawn} == set(GENERATORS)
    assert len({repr(config) for config in drawn}) == 60


def test_tpe_is_told_the_best_and_the_latest_of_many_trials() -> None:
    configs = [SPACE.sample(random.Random(number)) for number in range(1500)]
    trials = [trial(number, config, [0.5 + number / 1e4]) for number, config in enumerate(configs)]
    tpe = TpeProposer(SPACE, seed=0, objectives=AUROC)
    told = [each.value for each in tpe._told(trials)]
    half = TOLD_TRIALS // 2
    first = 1500 - half
    assert told == [0.5 + number / 1e4 for number in [*range(first - 1, first - 1 - half, -1), *range(first, 1500)]]
    assert SPACE.contains(tpe.propose(1500, trials) or {})


def test_numbers_to_choose_among_are_told_in_ascending_order_and_switches_are_not() -> None:
    listed = "{name: n, dimensions: [{name: mixer.mixup_alpha, type: choice, options: [1.0, 0.05, 0.2], default: 1.0}, "
    space = space_from_yaml(
        listed + "{name: affine, type: choice, options: [false, true], default: false}]}", source="test"
    )
    configs: list[Assignment] = [{"mixer.mixup_alpha": alpha, "affine": True} for alpha in (0.05, 0.2, 1.0)]
    tpe = TpeProposer(space, seed=0, objectives=AUROC)
    told = tpe._told([trial(number, config, [0.5]) for number, config in enumerate(configs)])
    assert [each.params for each in told] == [{"mixer.mixup_alpha": index, "affine": True} for index in range(3)]
    assert told[0].distributions["mixer.mixup_alpha"] == IntDistribution(0, 2)
    assert isinstance(told[0].distributions["affine"], CategoricalDistribution)
    for number in range(20):
        assert space.contains(TpeProposer(space, seed=number, objectives=AUROC).propose(0, []) or {})


def test_tpe_trades_two_objectives_against_each_other() -> None:
    both = (Objective(name="auroc", maximize=True), Objective(name="loss", maximize=False))

    def line(number: int, gamma: float) -> TrialResult:
        one = trial(number, {"generator.gamma": gamma}, [gamma])
        scores = {"auroc": min(gamma, 0.5), "loss": max(gamma, 0.5)}
        return replace(one, folds=tuple(replace(each, scores=scores) for each in one.folds))

    trials = [line(number, (number + 0.5) / 24) for number in range(24)] + [trial(24, {"generator.gamma": 0.1}, [])]
    trials[24] = replace(trials[24], state="pruned", folds=trials[0].folds)
    asked = [TpeProposer(LINE, seed=seed, objectives=both).propose(25, trials) or {} for seed in range(40)]
    gammas = [float(each["generator.gamma"]) for each in asked]
    assert sum(abs(gamma - 0.5) < 0.25 for gamma in gammas) > 30


def test_tpe_is_told_trials_of_another_fidelity_as_pruned_and_of_the_same_as_its_own() -> None:
    config: Assignment = {"generator.gamma": 0.5}
    given = [
        EarlierTrial(search="old", same_fidelity=same, trial=trial(0, each, [0.7, 0.9]))
        for same in (True, False)
        for each in (config, {"generator.gamma": 7.0})
    ]
    tpe = TpeProposer(LINE, seed=0, objectives=AUROC, earlier=given)
    same, other, own = tpe._told([trial(0, config, [0.6])])
    assert (same.state, same.value) == (TrialState.COMPLETE, pytest.approx(0.8))
    assert (other.state, other.intermediate_values) == (TrialState.PRUNED, {0: 0.7, 1: pytest.approx(0.8)})
    assert (own.state, own.value) == (TrialState.COMPLETE, 0.6)


def test_what_was_tried_is_not_proposed_again_while_there_is_something_else() -> None:
    text = "{name: c, dimensions: [{name: affine, type: choice, options: [false, true], default: false}]}"
    space = space_from_yaml(text, source="test")
    for name in ("random", "tpe", "reuse"):
        for number in range(20):
            tried = trial(0, {"affine": bool(number % 2)}, [0.5])
            ours = build_proposer(name, space, seed=number, objectives=AUROC, budget=QUICK)
            assert ours.propose(1, [tried]) == {"affine": not number % 2}


@pytest.mark.parametrize("name", ["random", "tpe", "reuse"])
def test_a_space_of_few_configurations_ends_when_all_are_tried(name: str) -> None:
    text = """{name: f, dimensions: [{name: affine, type: choice, options: [false, true], default: false},
    {name: classifier.epochs, type: int, low: 3, high: 9, log: true, default: 4}]}"""
    ours = build_proposer(name, space_from_yaml(text, source="test"), seed=0, objectives=AUROC, budget=QUICK)
    trials: list[TrialResult] = []
    while (config := ours.propose(len(trials), trials)) is not None:
        trials.append(trial(len(trials), config, [0.5]))
    every = {(affine, epochs) for affine in (False, True) for epochs in range(3, 10)}
    assert sorted((each.config["affine"], each.config["classifier.epochs"]) for each in trials) == sorted(every)


def test_tpe_does_not_cling_to_the_few_configurations_of_the_best_branch() -> None:
    space, _ = chosen_space("genmix", ["classifier.learning_rate=0.001"], QUICK)
    ours = build_proposer("tpe", space, seed=0, objectives=AUROC, budget=QUICK)
    trials: list[TrialResult] = []
    for number in range(24):
        config = ours.propose(number, trials)
        assert config is not None
        trials.append(trial(number, config, [0.8 if config["mixer.name"] == "real" else 0.7]))
    tried = {tuple(sorted(each.config.items())) for each in trials}
    assert len(tried) == len(trials)


def test_a_grid_is_tried_once_and_ends() -> None:
    text = "{name: g, dimensions: [{name: affine, type: choice, options: [false, true], default: false}]}"
    grid = GridProposer(space_from_yaml(text, source="test"), seed=0)
    trials: list[TrialResult] = []
    while (config := grid.propose(len(trials), trials)) is not None:
        trials.append(trial(len(trials), config, [0.5]))
    assert sorted(bool(each.config["affine"]) for each in trials) == [False, True]


def searcher(ledger: Ledger, wanted: int) -> LedgerSearcher:
    return LedgerSearcher(
        ledger,
        build_proposer("random", SPACE, seed=0, objectives=AUROC, budget=QUICK),
        references=reference_policies(SPACE),
        wanted=wanted,
        settings=lambda trial: {"search": "s", "again": ledger.ran_out_of_memory(trial.id)},
    )


def test_references_come_first_then_proposals_until_there_are_enough(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ours = searcher(ledger, 6)
    given = [ours.suggest(f"tune{index}") for index in range(6)]
    assert given[0] == {"search": "s", "again": False, "trial": "t0000"}
    for index in range(6):
        assert ours.suggest("tune6") is None, "a trial that runs may come again"
        ours.on_trial_complete(f"tune{index}")
    assert ours.suggest("tune6") == Searcher.FINISHED
    assert [each.reference for each in ledger.trials()] == ["none", "affine", "mixup", "genmix", None, None]


def test_a_proposer_that_has_nothing_left_is_not_asked_again_while_others_run(tmp_path: Path) -> None:
    asked: list[int] = []

    class Two:
        def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
            asked.append(number)
            return {"affine": bool(number)} if number < 2 else None

    ours = LedgerSearcher(Ledger(tmp_path), Two(), references={}, wanted=9, settings=lambda trial: {})
    given = [ours.suggest(f"tune{index}") for index in range(5)]
    assert [each is None for each in given] == [False, False, True, True, True]
    assert asked == [0, 1, 2]
    assert ours.exhausted


def test_a_trial_that_lacked_memory_comes_again_also_when_it_was_the_last(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ours = searcher(ledger, 1)
    ours.suggest("tune0")
    ledger.record_out_of_memory("t0000", "40 GiB")
    ours.on_trial_complete("tune0", {"trial": "t0000", "out_of_memory": True, "done": True})
    assert ours.suggest("tune1") == {"search": "s", "again": True, "trial": "t0000"}
    ours.on_trial_complete("tune1", {"trial": "t0000", "done": True})
    assert ours.suggest("tune2") == Searcher.FINISHED


def test_a_resumed_search_takes_up_unfinished_trials_first_and_proposes_what_it_would_have(tmp_path: Path) -> None:
    first = searcher(Ledger(tmp_path / "b"), 8)
    for index in range(6):
        first.suggest(str(index))
    ledger = Ledger(tmp_path / "b")
    ledger.write_search(made_up_record())
    for trial_id in ("t0000", "t0001", "t0003", "t0004"):
        ledger.end_trial(trial_id, "completed")
    again = searcher(Ledger(tmp_path / "b"), 8)
    assert [again.suggest(str(index))["trial"] for index in range(4)] == ["t0002", "t0005", "t0006", "t0007"]  # type: ignore[index]
    whole = searcher(Ledger(tmp_path / "c"), 8)
    for index in range(8):
        whole.suggest(str(index))
    configs = [[each.config for each in Ledger(tmp_path / name).trials()] for name in "bc"]
    assert configs[0] == configs[1]


def asha(ledger: Ledger, earlier: list[TrialResult], *, maximize: bool = True, limit: float | None = None) -> FoldAsha:
    return FoldAsha(ledger, folds=5, maximize=maximize, metric="auroc", max_copy_rate=limit, earlier=earlier)


def decide(
    scheduler: FoldAsha,
    ledger: Ledger,
    means: list[float],
    reference: str | None = None,
    rates: Sequence[float | None] = (None,) * 5,
) -> list[str]:
    trial_id = ledger.add_trial({}, reference=reference)
    tune_trial = SimpleNamespace(trial_id=trial_id)
    scheduler.on_trial_add(None, tune_trial)
    actions = []
    for done, (mean, rate) in enumerate(zip(means, rates, strict=False), start=1):
        ledger.record_fold(trial_id, fold(done - 1, mean, rate))
        result = {"trial": trial_id, "folds_done": done, "running_mean": mean}
        if reference:
            result["reference"] = reference
        if done == 5:
            scheduler.on_trial_complete(None, tune_trial, result)
            break
        actions.append(scheduler.on_trial_result(None, tune_trial, result))
        if actions[-1] == TrialScheduler.STOP:
            break
    return actions


def test_asha_stops_the_worse_half_after_two_folds_never_after_one_and_records_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    scheduler = asha(ledger, [])
    assert decide(scheduler, ledger, [0.8] * 4) == [TrialScheduler.CONTINUE] * 4
    assert decide(scheduler, ledger, [0.1, 0.1]) == [TrialScheduler.CONTINUE, TrialScheduler.STOP]
    assert [each.state for each in ledger.trials()] == ["unfinished", "pruned"]


def test_asha_never_stops_a_reference_policy(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    scheduler = asha(ledger, [])
    decide(scheduler, ledger, [0.8] * 4)
    assert decide(scheduler, ledger, [0.1] * 4, "none") == [TrialScheduler.CONTINUE] * 4
    assert [each.state for each in ledger.trials()] == ["unfinished", "unfinished"]


def test_asha_remembers_the_trials_of_earlier_attempts_and_the_direction_of_the_score(tmp_path: Path) -> None:
    earlier = [trial(number, {}, [0.8] * 5) for number in range(3)]
    assert decide(asha(Ledger(tmp_path / "a"), earlier), Ledger(tmp_path / "a"), [0.5, 0.5])[-1] == TrialScheduler.STOP
    lower_is_better = asha(Ledger(tmp_path / "b"), earlier, maximize=False)
    assert decide(lower_is_better, Ledger(tmp_path / "b"), [0.5, 0.5])[-1] == TrialScheduler.CONTINUE


def test_a_trial_that_copies_sets_no_bar_for_others(tmp_path: Path) -> None:
    for limit, last in ((None, TrialScheduler.STOP), (0.1, TrialScheduler.CONTINUE)):
        ledger = Ledger(tmp_path / str(limit))
        scheduler = asha(ledger, [trial(0, {}, [0.9] * 5, rate=0.15)], limit=limit)
        decide(scheduler, ledger, [0.9] * 5, rates=[0.15] * 5)
        assert decide(scheduler, ledger, [0.6] * 4)[-1] == last
        assert decide(scheduler, ledger, [0.5, 0.5])[-1] == TrialScheduler.STOP


def test_a_trial_that_may_yet_be_feasible_sets_no_bar_when_it_ends_infeasible(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    scheduler = asha(ledger, [], limit=0.1)
    assert decide(scheduler, ledger, [0.9] * 5, rates=[0.11] * 4 + [0.2]) == [TrialScheduler.CONTINUE] * 4
    assert decide(scheduler, ledger, [0.6] * 5) == [TrialScheduler.CONTINUE] * 4
    assert decide(scheduler, ledger, [0.5] * 5)[-1] == TrialScheduler.STOP


def test_a_trial_is_stopped_once_no_fold_left_could_bring_its_copy_rate_below_the_limit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    scheduler = asha(ledger, [], limit=0.1)
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert decide(scheduler, ledger, [0.9] * 5, rates=[0.3, 0.1, 0.2]) == [go, go, stop]
    assert decide(scheduler, ledger, [0.9] * 5, rates=[0.6]) == [stop]
    assert decide(scheduler, ledger, [0.9] * 4, rates=[0.5, 0.0, 0.0, 0.0]) == [go] * 4
    assert decide(scheduler, ledger, [0.9] * 4, "genmix", rates=[0.6] * 4) == [go] * 4
    assert [each.state for each in ledger.trials()] == ["pruned", "pruned", "unfinished", "unfinished"]
