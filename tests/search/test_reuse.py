"""Proposals that count what they cost, over made-up ledgers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from sklearn.gaussian_process.kernels import Matern
from threadpoolctl import threadpool_info, threadpool_limits

from search.objectives import Objective
from search.reuse import NEW_WITHIN, SHARED_BEFORE, STARTUP, ReuseProposer
from search.sampling.columns import Columns
from search.sampling.costs import REST, TRAINING, Costs, Measured
from search.sampling.earlier import EarlierTrial
from search.sampling.existing import Existing, parts_of
from search.sampling.model import Model
from search.sampling.moves import Moves
from search.sampling.surrogate import (
    Posterior,
    chebyshev,
    expected_improvement,
    kernel,
    share_fine,
    tuned,
    without_fold_effects,
)
from spaces.budget import Budget, budget_named
from spaces.config import trial_config
from spaces.generators import TrainedConfig
from spaces.parameter import Value
from spaces.presets import PRESETS
from spaces.space import Assignment
from tests.search.made_up_trials import AUROC, TOY, drawn, sampler, score, trial
from trainables.generators.registry import training_slice
from trainables.results import TrialResult
from trainables.results import TrialState as State

QUICK = budget_named("quick")
BEST: Assignment = {
    "mixer.name": "genmix", "generator.name": "egan", "generator.gamma": 0.001, "mixer.genmix_alpha": 0.3,
    "synthetic.ratio": 1.0, "affine": True,
}  # fmt: skip
DIVERGED = "DivergedError: the generator makes images that are all alike"


def generator_of(config: Mapping[str, Value], budget: Budget) -> str | None:
    """What two configurations have in common where they share a generator."""
    parts = parts_of(config, budget)
    return parts.generator if parts else None


def search(many: int) -> list[TrialResult]:
    trials: list[TrialResult] = []
    ours = sampler()
    while len(trials) < many:
        config = ours.propose(len(trials), trials)
        assert config is not None
        trials.append(trial(len(trials), config))
    return trials


def are_new(trials: list[TrialResult]) -> list[bool]:
    """Of each trial, whether it is the first with its generator."""
    digests = [generator_of(each.config, QUICK) for each in trials]
    return [digest is not None and digest not in digests[:at] for at, digest in enumerate(digests)]


@pytest.fixture(scope="module")
def dear() -> list[TrialResult]:
    return search(40)


def test_dear_generators_are_used_again_and_free_ones_are_not_clung_to(dear: list[TrialResult]) -> None:
    assert sum(are_new(dear)) < 14
    large = [each.config for each in drawn(60) if float(each.config.get("generator.gamma", 1.0)) > 0.02][:30]

    def share_new(seconds: float) -> int:
        trials = [trial(number, config, training=seconds) for number, config in enumerate(large)]
        return sum(are_new([*trials, trial(30, config)])[-1] for config in proposals(trials, 16))

    assert share_new(1000.0) == 0
    assert share_new(0.0) > 2


def test_what_is_found_is_good_and_tried_once(dear: list[TrialResult]) -> None:
    assert max(score(each.config) for each in dear) > 0.73
    assert len({repr(sorted(each.config.items())) for each in dear}) == len(dear)
    assert all(TOY.contains(each.config) for each in dear)


def test_one_of_five_successive_proposals_has_a_new_generator(dear: list[TrialResult]) -> None:
    new = are_new(dear)
    assert all(any(new[at : at + NEW_WITHIN]) for at in range(len(new) - NEW_WITHIN + 1))


def test_a_search_starts_without_generators_while_no_new_one_is_due_and_there_are_such_configurations() -> None:
    started = [each.config for each in search(STARTUP)]
    assert ["generator.name" in each for each in started[:3]] == [True, False, False]
    assert sum("generator.name" not in each for each in started) == 2  # all that there are: mixup, affine or not


def test_where_every_configuration_needs_a_generator_every_second_first_one_is_over_one_that_is_there() -> None:
    always, _ = TOY.fix("mixer.name", "genmix")
    ours = ReuseProposer(always, seed=0, budget=QUICK, objectives=AUROC)
    trials = [trial(number, {**BEST, "affine": False, "synthetic.ratio": 0.5 + number}) for number in range(2)]
    over, fresh = ours.propose(1, trials[:1]), ours.propose(2, trials)
    assert [generator_of(each or {}, QUICK) == generator_of(BEST, QUICK) for each in (over, fresh)] == [True, False]


def test_a_resumed_search_proposes_what_the_undisturbed_one_did(dear: list[TrialResult]) -> None:
    for many in (5, 9, 33):
        assert sampler().propose(many, dear[:many]) == dear[many].config
    assert sampler(seed=1).propose(20, dear[:20]) != dear[20].config


def test_a_proposal_computes_in_one_thread_and_leaves_the_others_to_the_process(
    dear: list[TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads() -> set[int]:
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    seen: list[set[int]] = []
    chances = Model.chances
    monkeypatch.setattr(Model, "chances", lambda *given: seen.append(threads()) or chances(*given))
    with threadpool_limits(2, user_api="blas"):
        sampler().propose(20, dear[:20])
        assert (seen, threads()) == ([{1}], {2})


def proposals(trials: list[TrialResult], many: int = 6, **given: object) -> list[Assignment]:
    """What would be proposed next, by seed."""
    return [sampler(seed, **given).propose(len(trials), trials) or {} for seed in range(many)]


def test_a_generator_that_is_being_trained_is_shared_by_as_many_trials_as_have_a_fold_to_train() -> None:
    digest = generator_of(BEST, QUICK)
    far = [each.config for each in drawn(200) if float(each.config.get("generator.gamma", 0.0)) > 0.02][:12]
    before = [trial(number, config) for number, config in enumerate(far[:9])]
    after = [trial(number, config) for number, config in enumerate(far[9:], start=10)]

    def uses(state: State, folds: int, *, others: int = 0, in_order: bool = False) -> int:
        first = [trial(9, BEST, state=state, folds=folds), *after]
        more = [trial(13 + number, BEST, state="unfinished", folds=0) for number in range(others)]
        proposed = proposals([*before, *first, *more], in_order=in_order)
        return sum(generator_of(each, QUICK) == digest for each in proposed)

    assert uses("completed", 3) > 2
    assert uses("unfinished", 2) == 0
    assert uses("unfinished", 3) > 0
    assert uses("unfinished", 1) > 0
    assert uses("unfinished", 1, others=1) == 0
    assert uses("unfinished", 1, in_order=True) == 0


def test_late_in_a_search_nobody_shares_a_training() -> None:
    def uses(many: int) -> int:
        trials = [*drawn(many), trial(many, BEST, state="unfinished", folds=0), trial(many + 1, drawn(99)[98].config)]
        return sum(generator_of(each, QUICK) == generator_of(BEST, QUICK) for each in proposals(trials))

    assert uses(SHARED_BEFORE - 2) > 0
    assert uses(SHARED_BEFORE) == 0


def test_a_generator_has_room_for_as_many_trials_as_folds_are_left() -> None:
    folds = {0, 1, 2}
    training = Existing(config={}, running=[100, 100])
    assert not training.is_busy(folds, most=None)
    assert training.is_busy(folds, most=1)
    assert Existing(config={}, running=[100, 100], trained={100: {1}}).is_busy(folds, most=None)
    assert not Existing(config={}, running=[100, 100], trained={50: folds}).is_busy(folds, most=1)
    assert not Existing(config={}).is_busy(folds, most=1)


def test_where_every_generator_is_being_trained_one_is_used_all_the_same() -> None:
    space = TOY.fix("generator.name", "egan")[0].fix("generator.gamma", "0.01")[0].fix("mixer.name", "genmix")[0]
    configs = [space.sample(random.Random(number)) for number in range(13)]
    trials = [trial(number, config, state="pruned", folds=2) for number, config in enumerate(configs[:12])]
    trials += [trial(12, configs[12], state="unfinished", folds=0)]
    elsewhere = trial(13, {"mixer.name": "mixup", "affine": True})
    ours = ReuseProposer(space, seed=0, objectives=AUROC, budget=QUICK)
    proposed = ours.propose(14, [*trials, elsewhere])
    assert proposed is not None
    assert space.contains(proposed)
    assert proposed not in configs


def due() -> list[TrialResult]:
    """Trials after which a new generator is due."""
    return [trial(number, {"mixer.name": "mixup", "affine": bool(number % 2)}) for number in range(40, 44)]


def test_generators_that_diverged_are_not_used_again_and_neighbours_of_them_rarely() -> None:
    trials = [
        trial(number, each.config, state="failed", folds=0, error=DIVERGED) if is_low(each.config) else each
        for number, each in enumerate(drawn(40))
    ]
    failed = {generator_of(each.config, QUICK) for each in trials if each.error}
    proposed = [*proposals(trials), *proposals([*trials, *due()])]
    assert not failed & {generator_of(each, QUICK) for each in proposed}
    assert sum(map(is_low, proposed)) <= 1 < sum(map(is_low, proposals([*drawn(40), *due()])))


def is_low(config: Assignment) -> bool:
    return float(config.get("generator.gamma", 1.0)) < 0.01  # type: ignore[arg-type]


def test_generators_that_copy_more_than_the_limit_are_not_used_again_and_neighbours_of_them_rarely() -> None:
    trials = [
        trial(number, each.config, rate=0.3 if is_low(each.config) else 0.0) for number, each in enumerate(drawn(40))
    ]
    copying = {generator_of(each.config, QUICK) for each in trials if is_low(each.config)}
    assert not copying & {generator_of(each, QUICK) for each in proposals(trials, max_copy_rate=0.1)}
    limited, free = (proposals([*trials, *due()], max_copy_rate=limit) for limit in (0.1, None))
    assert sum(map(is_low, limited)) <= 1 < sum(map(is_low, free))


def test_a_generator_is_unfit_that_diverged_before_any_fold_or_copies_on_average() -> None:
    assert not Existing(config={}, failed={"its only way"}).is_fit(None)
    assert Existing(config={}, failed={"its only way"}, trained={9: {0}}).is_fit(None)
    assert not Existing(config={}, rates=[0.0, 0.3]).is_fit(0.1)
    assert Existing(config={}, rates=[0.0, 0.3]).is_fit(None)


def test_a_generator_that_trials_sample_each_in_their_own_way_is_unfit_when_two_ways_have_failed() -> None:
    config = {"generator.name": "diffusion"}
    assert Existing(config=config, failed={"guidance 20"}).is_fit(None)
    assert not Existing(config=config, failed={"guidance 20", "guidance 1"}).is_fit(None)


def test_two_configurations_share_a_generator_where_what_its_training_depends_on_agrees() -> None:
    models = PRESETS["genmix"]
    space = replace(models, dimensions=tuple(each for each in models.dimensions if each.name != "generator.pretrained"))
    space = space.without(space.dimension("generator.name"), "textual_inversion").narrowed()
    configs = [space.sample(random.Random(number)) for number in range(40)]
    moves = Moves(space)
    configs += [moves.over(each, random.Random(number), like=configs[0]) for number, each in enumerate(configs)]
    trained = [trial_config(each, QUICK) for each in configs]
    slices = [
        repr((each.preprocess, sorted(training_slice(each.generator).items())))
        if isinstance(each.generator, TrainedConfig)
        else None
        for each in trained
    ]
    digests = [generator_of(each, QUICK) for each in configs]
    assert len(set(slices)) == len(set(zip(slices, digests, strict=True))) == len(set(digests)) < len(digests)


def test_length_and_sampling_make_no_other_generator_and_nonsense_has_none() -> None:
    config: Assignment = {"mixer.name": "blend", "generator.name": "diffusion", "synthetic.ratio": 1.0}
    same = {**config, "generator.steps": 7, "generator.guidance": 3.0, "affine": True}
    assert generator_of(config, QUICK) == generator_of(same, QUICK) is not None
    assert generator_of(config, QUICK) != generator_of({**config, "generator.width": 24}, QUICK)
    assert generator_of(config, QUICK) != generator_of({**config, "preprocess.pixels": 64}, QUICK)
    assert generator_of({"mixer.name": "real", "affine": True}, QUICK) is None
    assert generator_of({**config, "generator.horns": 2}, QUICK) is None


def test_more_steps_cost_the_difference_and_only_where_folds_are_done() -> None:
    known = Existing(config={}, trained={100: {0, 1}, 50: {2}})
    assert known.missing(100, {0, 1}) == 0
    assert known.missing(200, {0, 1, 2, 3}) == pytest.approx((0.5 + 0.5 + 0.75 + 1) / 4)
    assert known.missing(80, {0, 2}) == pytest.approx((1 + 0.375) / 2)
    training = Existing(config={}, trained={50: {0}}, running=[100])
    assert training.missing(100, {0, 1}) == 0
    assert training.missing(200, {0, 1}) == pytest.approx(0.5)
    assert training.missing(80, {0, 1}) == pytest.approx((0.375 + 1) / 2)


def test_seconds_are_learnt_by_generator_and_downstream_settings() -> None:
    columns = Columns.of(TOY)
    seconds = {"egan": 40.0, "diffusion": 10.0}
    measured = []
    for each in drawn(60):
        name = str(each.config.get("generator.name"))
        known = {REST: 4.0 if each.config["affine"] else 1.0}
        known |= {TRAINING: seconds[name]} if name in seconds else {}
        measured.append(Measured(row=columns.row(each.config), seconds=known))
    costs = Costs(columns, measured)
    rows = np.stack([columns.row(TOY.complete({"generator.name": name, "affine": True})) for name in seconds])
    assert costs.of(TRAINING, rows) == pytest.approx([40.0, 10.0], rel=0.1)
    assert costs.of(REST, rows) == pytest.approx([4.0, 4.0], rel=0.1)
    assert Costs(columns, []).of(TRAINING, rows).tolist() == [0.0, 0.0]


def test_two_objectives_are_both_sought() -> None:
    both = (*AUROC, Objective(name="other", maximize=True))
    trials = drawn(30)
    wanted = proposals(trials, 8, objectives=both)
    alphas = [float(each.get("mixer.genmix_alpha", 0.01)) for each in wanted]
    assert sum(0.15 < alpha < 0.7 for alpha in alphas) >= 2
    assert sum(alpha > 1 for alpha in alphas) >= 2
    assert wanted[:2] == proposals(trials, 2, objectives=both)


def earlier(*, same: bool, offset: float = 0.0) -> list[EarlierTrial]:
    return [
        EarlierTrial(search="old", same_fidelity=same, trial=each)
        for each in drawn(30, scores=lambda config: score(config) + offset)
    ]


def test_a_warm_start_leaves_out_the_start_and_proposes_good_configurations_at_once() -> None:
    own = drawn(4)
    cold = [score(each) for each in proposals(own, 5)]
    for same in (True, False):
        warm = proposals(own, 5, earlier=earlier(same=same, offset=0.0 if same else -0.3))
        assert sum(map(score, warm)) > sum(cold) + 0.2
    outside = [
        EarlierTrial(search="old", same_fidelity=True, trial=trial(0, {"affine": True}, scores=lambda config: 0.9))
    ]
    assert proposals(own, 2, earlier=outside) == proposals(own, 2)


def test_generators_of_an_earlier_search_of_the_same_fidelity_are_there_and_new_ones_are_due_all_the_same() -> None:
    there = {generator_of(each.trial.config, QUICK) for each in earlier(same=True)} - {None}
    for same in (True, False):
        proposed: list[TrialResult] = []
        ours = sampler(earlier=earlier(same=same))
        for number in range(10):
            proposed.append(trial(number, ours.propose(number, proposed) or {}))
        new = [generator_of(each.config, QUICK) for each in proposed]
        fresh = [
            digest not in new[:at] and digest not in (there if same else {}) and bool(digest)
            for at, digest in enumerate(new)
        ]
        assert all(any(fresh[at : at + NEW_WITHIN]) for at in range(len(fresh) - NEW_WITHIN + 1))
        assert any(digest in there for digest in new) or not same


def test_an_offset_between_fidelities_is_learnt() -> None:
    columns = Columns.of(TOY)
    pairs = [(each, 0) for each in drawn(12)] + [(each, 1) for each in drawn(40)]
    rows = np.stack([np.append(columns.row(each.config), other) for each, other in pairs])
    values = np.array([score(each.config) - 0.3 * other for each, other in pairs])
    errors = np.full(len(rows), 1e-6)
    posterior = Posterior(tuned(kernel(columns, 1), rows, values, errors), rows, values, errors)
    ahead = [trial(number, TOY.sample(random.Random(number))) for number in range(12, 40)]
    found, _ = posterior.at(np.stack([np.append(columns.row(each.config), 0) for each in ahead]))
    assert np.abs(found - [score(each.config) for each in ahead]).mean() < 0.03


def test_each_downstream_setting_has_a_part_of_its_own_in_what_is_assumed_of_scores() -> None:
    columns = Columns.of(TOY)
    rows = np.stack([columns.row(each.config) for each in drawn(9)])
    assumed = kernel(columns, 0)
    weights = np.linspace(0.1, 0.7, len(assumed.theta))
    assumed = assumed.clone_with_theta(np.log(weights))
    settings = [(0, 1, 2), (8,), (9,), (10, 11)]
    assert columns.downstream == (0, 1, 2, 8, 9, 10, 11)
    halves = [range(12), range(3, 8), columns.downstream]
    places = [*zip(halves, weights[:6:2], weights[1:6:2], strict=True)]
    places += [(each, weight, 0.5) for each, weight in zip(settings, weights[6:], strict=True)]
    expected = sum(weight * Matern(scale, nu=2.5)(rows[:, list(chosen)]) for chosen, weight, scale in places)
    assert assumed(rows) == pytest.approx(expected)
    assert assumed(rows[:4], rows) == pytest.approx(expected[:4])
    assert assumed.diag(rows) == pytest.approx(np.diag(expected))
    _, gradient = assumed(rows, eval_gradient=True)
    for at in range(len(weights)):
        step = np.zeros(len(weights))
        step[at] = 1e-5
        up, down = (assumed.clone_with_theta(assumed.theta + each)(rows) for each in (step, -step))
        assert gradient[:, :, at] == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_fold_effects_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    true, effect = rng.normal(size=12), np.array([0.5, -0.2, 0.0, -0.3])
    scores = true[:, None] + effect + 0.01 * rng.normal(size=(12, 4))
    scores[6:, 2:] = np.nan
    scores[0, 0] = np.nan
    known = np.isfinite(scores)
    at_trial, at_fold = np.nonzero(known)
    design = np.zeros((known.sum() + 1, 16))
    design[np.arange(known.sum()), at_trial] = 1
    design[np.arange(known.sum()), 12 + at_fold] = 1
    design[-1, 12:] = 1
    fitted, *_ = np.linalg.lstsq(design, np.append(scores[known], 0.0), rcond=None)
    found, variance = without_fold_effects(scores)
    assert found == pytest.approx(fitted[:12], abs=1e-3)
    left = scores[known] - design[:-1] @ fitted
    assert variance == pytest.approx((left**2).sum() / (known.sum() - 15), rel=0.02)


def test_expected_improvement_is_the_mean_of_what_exceeds_the_best() -> None:
    draws = np.random.default_rng(0).normal(size=400_000)
    for mean, std, best in ((0.1, 0.5, 0.3), (0.5, 0.1, 0.2), (0.0, 0.2, 0.3)):
        found = expected_improvement(np.array([mean]), np.array([std]), best)[0]
        assert found == pytest.approx(np.maximum(mean + std * draws - best, 0).mean(), rel=0.02)


def test_the_worst_weighted_objective_counts_and_a_share_is_that_of_neighbours() -> None:
    values = np.array([[1.0, 0.0], [0.6, 0.6], [0.0, 1.0]])
    assert [int(np.argmax(chebyshev(values, np.array(w)))) for w in ([0.9, 0.1], [0.5, 0.5], [0.1, 0.9])] == [0, 1, 2]
    rows, fine = np.array([[0.0]] * 9 + [[1.0]] * 9), np.array([0.0] * 9 + [1.0] * 9)
    low, high = share_fine(rows, fine, np.array([[0.0], [1.0]]))
    assert low < 0.1
    assert high > 0.9
