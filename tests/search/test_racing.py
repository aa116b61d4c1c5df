"""Fold racing: the posterior against independent computations, what it may stop, and what it costs and saves."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from scipy import integrate, stats

from search.objectives import Objective, front
from search.racing import MOST_FREEDOM, THRESHOLD, FoldTables, Racing, VariancePrior, chance_to_beat
from search.schedulers import FoldAsha, FoldRacing, build_scheduler, needs_fold_order, racing_of
from spaces.presets import PRESETS
from spaces.protocol import Protocol
from tests.benchmarks.racing import TRIALS, Figures, by_racing, made_up, measure
from tests.search.made_up_tables import table_ledger
from tests.trainables.test_ledger import made_up_record
from trainables.ledger import Ledger
from trainables.metrics.comparison import corrected_resampled_t_test
from trainables.results import FoldResult, StageRecord, TrialResult, TrialState

ZERO = np.zeros(1)
NOTHING = VariancePrior(variance=0.0, freedom=0.0)
AUROC, COST = Objective(name="auroc", maximize=True), Objective(name="seconds", maximize=False)


def fold(number: int, auroc: float | None, *, seconds: float = 1.0, rate: float | None = None) -> FoldResult:
    return FoldResult(
        fold=number, scores={"auroc": auroc}, predictions=(), counts={}, seconds=0.0, peak_bytes=0,
        stages=(StageRecord(name="classifier", key="k", seconds=seconds, reused=False),),
        fidelity={} if rate is None else {"copy_rate": rate},
    )  # fmt: skip


def trial(
    number: int,
    scores: Mapping[int, float | None] | Sequence[float | None],
    state: TrialState = "completed",
    *,
    seconds: float = 1.0,
    rate: float | None = None,
    reference: str | None = None,
) -> TrialResult:
    by_fold = scores if isinstance(scores, Mapping) else dict(enumerate(scores))
    # no two folds take equally long
    folds = tuple(
        fold(index, score, seconds=seconds * (1 + random.Random(f"{number} {index}").uniform(-0.1, 0.1)), rate=rate)
        for index, score in sorted(by_fold.items())
    )
    return TrialResult(
        id=f"t{number:04d}", config={"classifier.epochs": number}, reference=reference, state=state, folds=folds,
        error=None, created=0, ended=1,
    )  # fmt: skip


def noisy(number: int, level: float, seconds: float = 1.0, *, rate: float | None = None) -> TrialResult:
    """A complete trial of five folds, some easier than others, with residuals of one hundredth."""
    rng = random.Random(number)
    scores = [level + (0.0, 0.05, -0.05, 0.02, -0.02)[index] + rng.gauss(0, 0.01) for index in range(5)]
    return trial(number, scores, seconds=seconds, rate=rate)


EARLIER = [noisy(number, level) for number, level in enumerate((0.6, 0.65, 0.7, 0.8, 0.55, 0.6))]
"""The best one is t0003."""
HOPELESS = trial(99, [0.6, 0.65], "unfinished")


def racing(*objectives: Objective, folds: int = 5, limit: float | None = None, threshold: float = THRESHOLD) -> Racing:
    return Racing(objectives=objectives or (AUROC,), folds=folds, max_copy_rate=limit, threshold=threshold)


@pytest.mark.parametrize("seed", range(5))
def test_without_a_prior_the_chance_is_the_one_sided_p_value_of_the_corrected_resampled_t_test(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.2, 1.0, 2 + seed).tolist()
    tested = corrected_resampled_t_test(differences, n_train=400, n_test=100)
    assert tested.t is not None and tested.p_value is not None
    (chance,) = chance_to_beat(differences, ZERO, folds=9, complete=1, prior=NOTHING, correlation=1 / 5)
    assert (chance if tested.t < 0 else 1 - chance) == pytest.approx(tested.p_value / 2)


def test_with_a_prior_the_chance_is_the_integral_over_mean_and_variance() -> None:
    differences, prior, correlation = np.array([-0.3, 0.1, -0.5]), VariancePrior(variance=0.09, freedom=4), 1 / 3
    # of the errors: their covariance between folds is no part of the variance seen from fold to fold
    shape = (np.eye(3) * (1 - correlation) + correlation) / (1 - correlation)

    def density(variance: float, mean: float) -> float:
        of_variance = stats.invgamma.pdf(variance, prior.freedom / 2, scale=prior.freedom * prior.variance / 2)
        return float(of_variance * stats.multivariate_normal.pdf(differences, np.full(3, mean), variance * shape))

    variances = np.geomspace(1e-3, 8, 160)
    means = np.linspace(-8, 8, 1601)
    exponent = np.array([density(value, 0.0) for value in variances])
    inverse, ones = np.linalg.inv(shape), np.ones(3)
    # the normal density at another mean, from that at 0
    shift = means * (ones @ inverse @ differences) - means**2 / 2 * (ones @ inverse @ ones)
    posterior = integrate.simpson(exponent[:, None] * np.exp(shift / variances[:, None]), x=variances, axis=0)
    better = means >= 0
    expected = integrate.simpson(posterior[better], x=means[better]) / integrate.simpson(posterior, x=means)
    (chance,) = chance_to_beat(differences.tolist(), ZERO, folds=3, complete=1, prior=prior, correlation=correlation)
    assert chance == pytest.approx(expected, rel=1e-3)


def test_a_chance_by_hand() -> None:
    # mean -2, squares 2, variance (2 + 2) / 2 = 2, error 1/2 + 1/2 = 1: t = -2 / sqrt 2 with two degrees of freedom
    prior = VariancePrior(variance=2.0, freedom=1.0)
    found = chance_to_beat([-1.0, -3.0], np.array([0.0, -2.0]), folds=3, complete=1, prior=prior, correlation=1 / 3)
    assert found.tolist() == pytest.approx([(1 - 2**-0.5) / 2, 0.5])


def test_differences_that_do_not_vary_are_no_evidence() -> None:
    assert chance_to_beat([-0.3, -0.3], ZERO, folds=5, complete=1, prior=NOTHING, correlation=0.2).tolist() == [0.5]


def test_a_chance_from_a_single_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="on 2 to 5 folds"):
        chance_to_beat([-0.3], ZERO, folds=5, complete=1, prior=NOTHING, correlation=0.2)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        chance_to_beat([-0.3, 0.1], ZERO, folds=5, complete=1, prior=NOTHING, correlation=1.0)


def learnt(rows: Sequence[Mapping[int, float]]) -> FoldTables:
    tables = FoldTables()
    for row in rows:
        tables.add(row)
    return tables


def test_the_prior_is_the_variance_pooled_over_all_pairs_of_trials() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 5)) + rng.normal(size=5)
    pooled = np.mean([np.var(one - other, ddof=1) for one, other in itertools.combinations(table, 2)])
    prior = learnt([dict(enumerate(row.tolist())) for row in table]).prior()
    assert prior.variance == pytest.approx(pooled)
    assert prior.freedom == 3 * 4
    many = learnt([dict(enumerate(row.tolist())) for row in rng.normal(size=(50, 5))])
    assert many.prior().freedom == MOST_FREEDOM
    assert learnt([{0: 0.5, 1: 0.7}]).prior() == NOTHING


@pytest.mark.parametrize("complete", [1, 2, 7])
def test_a_trial_is_compared_as_least_squares_compare_it_in_the_table_of_trials_and_folds(complete: int) -> None:
    rng = np.random.default_rng(complete)
    table, own, seen = rng.normal(size=(complete, 5)), rng.normal(size=5), [1, 4]
    cells = [(row, column, table[row, column]) for row in range(complete) for column in range(5)]
    cells += [(complete, column, own[column]) for column in seen]
    # a column for each trial, one for each fold but the first
    design = np.zeros((len(cells), complete + 1 + 5))
    for index, (row, column, _) in enumerate(cells):
        design[index, row] = design[index, complete + 1 + column] = 1
    design = np.delete(design, complete + 1, axis=1)
    solution, *_ = np.linalg.lstsq(design, np.array([value for *_, value in cells]), rcond=None)
    contrast = np.zeros(design.shape[1])
    contrast[complete], contrast[0] = 1, -1
    # the variance of a paired difference is twice that of a residual
    error = contrast @ np.linalg.inv(design.T @ design) @ contrast / 2
    learnt_table = learnt([dict(enumerate(row.tolist())) for row in table]).table((0, 1, 2, 3, 4))
    scores = [float(own[column]) - learnt_table.easier[column] for column in seen]
    assert np.mean(scores) - table[0].mean() == pytest.approx(contrast @ solution)
    # with so strong a prior the t distribution is normal, and the variance known
    strong = VariancePrior(variance=2.0, freedom=1e9)
    (chance,) = chance_to_beat(
        scores, table[:1].mean(axis=1), folds=5, complete=learnt_table.trials, prior=strong, correlation=0.0
    )
    assert chance == pytest.approx(stats.norm.cdf(contrast @ solution / np.sqrt(2.0 * error)), rel=1e-6)


def test_a_hopeless_trial_stops_after_two_folds_and_is_told_why_and_a_promising_one_goes_on() -> None:
    reason = racing().stops(HOPELESS, [*EARLIER, HOPELESS])
    assert reason is not None and "beat t0003 in auroc" in reason and "below 0.2" in reason
    promising = trial(99, [0.8, 0.86], "unfinished")
    assert racing().stops(promising, [*EARLIER, promising]) is None


def test_no_trial_stops_before_two_folds_that_both_have() -> None:
    assert racing().stops(trial(99, [0.1], "unfinished"), EARLIER) is None
    assert racing().stops(trial(99, [0.1, None], "unfinished"), EARLIER) is None
    assert racing().stops(trial(99, [None, None], "unfinished"), EARLIER) is None
    only = [trial(each.id == "t0003", {0: 0.8, 1: 0.85, 2: None, 3: None, 4: None}) for each in EARLIER[:1]]
    both = [trial(number, {0: 0.8, 1: 0.85 + number / 100, 2: None, 3: None, 4: None}) for number in range(2)]
    assert racing().stops(trial(99, {1: 0.1, 2: 0.1}, "unfinished"), [*only, *both]) is None
    assert racing().stops(trial(99, {0: 0.1, 1: 0.1}, "unfinished"), [*only, *both]) is not None


def test_folds_that_only_one_of_two_trials_has_play_no_part() -> None:
    without = [trial(number, {0: level, 1: level + 0.04, 2: level - 0.05, 3: None, 4: None}) for number, level in
               ((0, 0.7), (1, 0.81), (2, 0.6))]  # fmt: skip
    without[2] = trial(2, {0: 0.61, 1: 0.64, 2: 0.54, 3: None, 4: None})
    reasons = {
        racing().stops(trial(99, {0: 0.72, 1: 0.75, 3: other}, "unfinished"), without) for other in (0.0, 0.7, 1.0)
    }
    assert len(reasons) == 1
    assert None not in reasons


def test_trainings_for_the_locked_test_set_play_no_part() -> None:
    extra = tuple(replace(fold(number, 1.0), locked=True) for number in (5, 6, 7))
    with_them = replace(HOPELESS, folds=(*HOPELESS.folds, *extra))
    earlier = [replace(each, folds=(*each.folds, *extra)) for each in EARLIER]
    assert racing().stops(with_them, earlier) == racing().stops(HOPELESS, EARLIER) is not None


def test_a_configuration_that_is_tried_again_makes_nothing_surer() -> None:
    again = [replace(EARLIER[3], id=f"t{number:04d}") for number in range(50, 60)]
    promising = trial(99, [0.78, 0.84], "unfinished")
    told = racing(threshold=0.99).stops(promising, EARLIER)
    assert told is not None
    assert racing(threshold=0.99).stops(promising, [*EARLIER, *again]) == told


def test_the_order_of_folds_and_trials_changes_nothing() -> None:
    other = replace(HOPELESS, folds=HOPELESS.folds[::-1])
    shuffled = [replace(each, folds=each.folds[::-1]) for each in EARLIER[::-1]]
    assert racing().stops(HOPELESS, EARLIER) == racing().stops(other, shuffled) is not None


def test_nothing_stops_while_a_single_trial_is_complete() -> None:
    assert racing().stops(HOPELESS, EARLIER[3:4]) is None
    assert racing().stops(HOPELESS, EARLIER[3:5]) is not None


def test_neither_the_best_nor_a_reference_policy_nor_a_complete_trial_stops() -> None:
    for each in EARLIER:
        assert racing().stops(each, EARLIER) is None
    assert racing().stops(replace(HOPELESS, reference="genmix"), EARLIER) is None
    assert racing().stops(trial(99, [0.1] * 5, "unfinished"), EARLIER) is None


def test_the_best_is_complete_and_within_the_limit_of_the_copy_rate() -> None:
    copying = noisy(7, 0.95, rate=0.5)
    good = trial(99, [0.8, 0.86], "unfinished")
    assert racing(limit=None).stops(good, [*EARLIER, copying]) is not None
    assert racing(limit=0.1).stops(good, [*EARLIER, copying]) is None
    for state in ("unfinished", "pruned", "failed"):
        assert racing().stops(good, [*EARLIER, replace(copying, state=state)]) is None


def test_a_trial_stops_once_no_fold_left_could_bring_its_copy_rate_below_the_limit() -> None:
    def told(*rates: float) -> str | None:
        scores = [0.8, 0.85, 0.75, 0.82]
        folds = tuple(fold(number, scores[number], rate=rate) for number, rate in enumerate(rates))
        return racing(limit=0.1).stops(replace(HOPELESS, folds=folds), EARLIER)

    assert [told(0.3), told(0.3, 0.1), told(0.5, 0.0, 0.0, 0.0)] == [None] * 3
    assert told(0.6) == "its copy rate will be 0.12 or more, above the limit of 0.1"
    assert told(0.3, 0.1, 0.2) is not None
    hopeless = replace(HOPELESS, folds=(fold(0, 0.6, rate=0.2), fold(1, 0.65, rate=0.1)))
    assert "beat t0003" in (racing(limit=0.1).stops(hopeless, EARLIER) or "")
    copying = replace(HOPELESS, folds=(fold(0, 0.6, rate=0.9),), reference="genmix")
    assert racing(limit=0.1).stops(copying, EARLIER) is None


def test_with_two_objectives_a_trial_stops_only_if_one_trial_beats_it_on_both() -> None:
    earlier = [noisy(number, level, seconds=seconds) for number, (level, seconds) in enumerate(
        ((0.8, 100), (0.6, 10), (0.55, 60), (0.7, 110), (0.58, 100)))]  # fmt: skip

    def stops(auroc: float, seconds: float) -> str | None:
        running = trial(99, [auroc, auroc + 0.05], "unfinished", seconds=seconds)
        return racing(AUROC, COST).stops(running, earlier)

    assert stops(0.5, 200) is not None
    assert stops(0.5, 50) is not None  # t0001 is better and cheaper
    assert stops(0.7, 50) is None  # cheaper than t0000, better than t0001
    assert stops(0.5, 1) is None
    assert stops(0.9, 500) is None
    assert "t0000 in auroc or seconds" in (stops(0.7, 300) or "")


def test_what_is_compared_with_is_the_front_of_the_complete_trials() -> None:
    rng = random.Random(0)
    levels = [(rng.choice((0.6, 0.7, 0.8)), rng.choice((1, 10, 20))) for _ in range(20)]
    # among them equal ones
    trials = [
        replace(noisy(seed, *levels[seed]), id=f"t{number:04d}") for number, seed in enumerate([*range(20), 3, 5])
    ]
    ours = racing(AUROC, COST)
    for end in range(1, len(trials) + 1):
        ours.stops(HOPELESS, trials[:end])
        assert {best.id for best in ours._front} == {each.id for each in front(trials[:end], (AUROC, COST))}


def test_the_chances_of_two_objectives_add_up() -> None:
    running = trial(99, [0.785, 0.84], "unfinished")

    def stops(threshold: float, *objectives: Objective) -> bool:
        return racing(*objectives, threshold=threshold).stops(running, EARLIER) is not None

    def least(*objectives: Objective) -> float:
        return next(each / 1000 for each in range(1000) if stops(each / 1000, *objectives))

    assert 0.01 < least(AUROC) < 0.2
    assert least(AUROC, AUROC) == pytest.approx(2 * least(AUROC), abs=0.002)


def test_less_is_better_where_an_objective_says_so() -> None:
    earlier = [noisy(number, 0.7, seconds=seconds) for number, seconds in enumerate((10, 50, 55, 60))]
    for seconds, stopped in ((5, False), (100, True)):
        running = trial(99, [0.7, 0.75], "unfinished", seconds=seconds)
        assert (racing(COST).stops(running, earlier) is not None) == stopped


def test_a_resumed_search_decides_what_it_would_have_decided() -> None:
    one = racing(AUROC, COST)
    rng = random.Random(0)
    decided = []
    trials = [noisy(number, rng.gauss(0.7, 0.05), seconds=rng.uniform(1, 50)) for number in range(30)]
    for end in range(2, 30):
        level = rng.gauss(0.68, 0.05)
        running = trial(99, [level, level + 0.05, level - 0.05], "unfinished", seconds=rng.uniform(1, 50))
        decided.append(one.stops(running, [*trials[:end], running]))
        resumed = rng.sample(trials[:end], end)
        assert racing(AUROC, COST).stops(running, [running, *resumed]) == decided[-1]
    assert 0 < sum(each is None for each in decided) < len(decided)


def test_a_threshold_or_correlation_out_of_range_is_refused() -> None:
    for wrong in ({"threshold": 1.0}, {"threshold": -0.1}, {"correlation": 1.0}):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
            Racing(objectives=(AUROC,), folds=5, max_copy_rate=None, **wrong)


def recorded(ledger: Ledger, each: TrialResult) -> str:
    trial_id = ledger.add_trial(dict(each.config), reference=each.reference)
    for result in each.folds:
        ledger.record_fold(trial_id, result)
    if each.state != "unfinished":
        ledger.end_trial(trial_id, each.state)
    return trial_id


def test_the_scheduler_stops_and_records_what_racing_stops(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_search(made_up_record())
    for each in EARLIER:
        recorded(ledger, each)
    scheduler = FoldRacing(ledger, racing())
    going = [trial(6, [0.8, 0.86], "unfinished"), HOPELESS, replace(HOPELESS, reference="none"),
             trial(9, [0.1] * 5, "unfinished")]  # fmt: skip
    actions = []
    for each in going:
        trial_id = recorded(ledger, each)
        actions.append(scheduler.on_trial_result(None, None, {"trial": trial_id, "folds_done": len(each.folds)}))
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert actions == [go, stop, go, go]
    assert [each.state for each in ledger.trials()[6:]] == ["unfinished", "pruned", "unfinished", "unfinished"]
    assert "its chance to beat" in (ledger.trials()[7].error or "")
    assert scheduler.on_trial_result(None, None, {"done": True}) == go


def test_each_scheduler_has_its_name_and_only_asha_needs_an_order_of_folds(tmp_path: Path) -> None:
    ledger = table_ledger(tmp_path / "s", PRESETS["genmix"])
    kinds = {"racing": FoldRacing, "asha": FoldAsha, "fifo": FIFOScheduler}
    for name, kind in kinds.items():
        ledger.write_search(replace(ledger.search(), scheduler=name))
        assert type(build_scheduler(ledger)) is kind
    assert [name for name in kinds if needs_fold_order(name)] == ["asha"]


def test_repeats_do_not_make_the_folds_of_one_repeat_less_alike(tmp_path: Path) -> None:
    record = table_ledger(tmp_path / "s", PRESETS["genmix"]).search()
    assert racing_of(record)._correlation == 1 / 5
    once = replace(record, folds=3, protocol=Protocol(kind="split", repeats=3))
    assert racing_of(once)._correlation == 1 / 2
    sites = replace(record, folds=8, protocol=Protocol(kind="sites", repeats=2))
    assert racing_of(sites)._correlation == 1 / 4


SEARCHES = 300


def told(folds: int) -> Figures:
    figures = measure(made_up(SEARCHES, folds=folds), lambda: by_racing(folds=folds), shuffled=True, seed=0)
    print(
        f"{folds} folds, {SEARCHES} searches of {TRIALS} trials: the winner is stopped in "
        f"{figures.winner_stopped:.1%}, {figures.saved:.1%} of FIFO's folds are saved."
    )
    return figures


def test_of_5_folds_racing_saves_30_percent_and_stops_the_eventual_winner_in_at_most_5_percent_of_searches() -> None:
    figures = told(5)
    assert figures.winner_stopped <= 0.05
    assert figures.saved >= 0.3


def test_of_3_folds_racing_saves_half_of_the_third_that_it_can_and_hardly_ever_stops_the_winner() -> None:
    figures = told(3)
    assert figures.winner_stopped <= 0.05
    # two folds of three are always run: 1/3 is the most, were every trial but the references stopped it would be 30 %
    assert figures.saved >= 0.15
