"""What is kept from one proposal to the next says what all trials, read anew, would say."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor

from search.changes import Changes
from search.objectives import Objective
from search.sampling.columns import Columns, FloatArray
from search.sampling.evidence import Piece, leading, piece_of
from search.sampling.existing import Catalogue, parts_of
from search.sampling.history import History, Scene, key_of
from search.sampling.surrogate import Posterior, kernel
from spaces.budget import budget_named
from tests.search.made_up_trials import AUROC, TOY, drawn, sampler, trial
from trainables.results import TrialResult
from trainables.results import TrialState as State

QUICK = budget_named("quick")
COLUMNS = Columns.of(TOY)
LIMIT = 0.08
STORED = [replace(each, id=f"other/{each.id}") for each in drawn(6)]


def later(each: TrialResult, rng: random.Random) -> TrialResult:
    """A trial that runs with another fold, or ended; one that has ended as it is."""
    if each.state != "unfinished" or rng.random() < 0.5:
        return replace(each)
    number, done = int(each.id[1:]), len(each.folds) + 1
    states: tuple[State, ...] = ("completed",) if done == 3 else ("unfinished", "unfinished", "pruned", "failed")
    state = rng.choice(states)
    error = "DivergedError: all images are alike" if state == "failed" else None
    found = trial(number, each.config, state=state, folds=done, rate=0.02 * (number % 7), error=error)
    ended = None if state == "unfinished" else rng.random()
    return replace(found, folds=(*each.folds, found.folds[-1]), ended=ended)


@pytest.fixture(scope="module")
def course() -> list[list[TrialResult]]:
    """The trials of a search at each of its proposals; up to eight run at once, and end in any order."""
    rng, trials, found = random.Random(0), list[TrialResult](), []
    while len(trials) < 60:
        found.append(trials)
        trials = [*trials, trial(len(trials), TOY.sample(rng), state="unfinished", folds=0)]
        while sum(each.state == "unfinished" for each in trials) > 8:
            trials = [later(each, rng) for each in trials]
    return found


def piece(each: TrialResult) -> Piece:
    return piece_of(each, COLUMNS.row(each.config), AUROC, max_copy_rate=LIMIT)


def new_history() -> History:
    return History(Catalogue(QUICK), piece, earlier=[piece(each) for each in STORED], stored=STORED, objectives=1)


def said(scene: Scene) -> list[object]:
    """All that a proposal may look at, as values that can be compared."""
    evidence = scene.evidence
    pieces = [
        [each.id for each in some] for some in (evidence.known, evidence.by_end, evidence.running, *evidence.ranked)
    ]
    read = [(each.id, each.scores, each.standings, each.ended, each.has_failed) for each in evidence.pieces]
    generators = [(digest, asdict(each)) for digest, each in scene.generators.items()]
    return [pieces, read, generators, scene.newest, scene.folds, set(scene.tried)]


def test_reading_what_is_new_says_what_reading_everything_says(course: Sequence[list[TrialResult]]) -> None:
    ours = new_history()
    for trials in course:
        assert said(ours.scene(trials)) == said(new_history().scene(trials))


def test_a_history_says_of_the_trials_what_they_say_one_by_one(course: Sequence[list[TrialResult]]) -> None:
    ours = new_history()
    for trials in course:
        scene, everything = ours.scene(trials), [*STORED, *trials]
        known = [each for each in everything if each.folds and each.state != "unfinished"]
        by_end = sorted(known, key=lambda each: (each.ended, each.id))
        ranked = sorted(scene.evidence.known, key=lambda each: each.standings[0], reverse=True)
        digests = [parts.generator if (parts := parts_of(each.config, QUICK)) else None for each in everything]
        new = [at for at, digest in enumerate(digests) if digest and digest not in digests[:at] and at >= len(STORED)]
        assert [each.id for each in scene.evidence.known] == [each.id for each in known]
        assert [each.id for each in scene.evidence.by_end] == [each.id for each in by_end]
        assert [each.id for each in scene.evidence.running] == [
            each.id for each in trials if each.state == "unfinished"
        ]
        assert [each.id for each in scene.evidence.ranked[0]] == [each.id for each in ranked]
        assert scene.newest == (new[-1] - len(STORED) if new else -1)
        assert scene.tried == {key_of(each.config) for each in trials}
        assert list(scene.generators) == list(dict.fromkeys(digest for digest in digests if digest))
        for digest, existing in scene.generators.items():
            own = [each for each, other in zip(everything, digests, strict=True) if other == digest]
            assert set().union(*existing.trained.values()) == {fold.fold for each in own for fold in each.folds}
            assert existing.rates == [each.copy_rate for each in own if each.copy_rate is not None]
            assert len(existing.running) == sum(each.state == "unfinished" for each in own)
            assert bool(existing.failed) == any(each.state == "failed" for each in own)


def test_a_sampler_that_has_proposed_before_proposes_what_another_would(course: Sequence[list[TrialResult]]) -> None:
    ours = sampler(max_copy_rate=LIMIT)
    for trials in [*course[8::6], course[-1][20:]]:
        anew = sampler(max_copy_rate=LIMIT).propose(len(trials), trials)
        assert ours.propose(len(trials), trials) == anew


def test_the_leading_trials_are_the_first_of_a_sort_by_each_objective_in_turn() -> None:
    both = (*AUROC, Objective(name="other", maximize=False))
    trials = [*drawn(30), *drawn(10, state="failed", error="DivergedError: alike"), *drawn(5, scores=lambda _: 0.7)]
    pieces = [
        replace(piece_of(each, COLUMNS.row(each.config), both, max_copy_rate=None), id=str(number))
        for number, each in enumerate(trials)
    ]
    orders = [sorted(pieces, key=lambda each, at=at: each.standings[at], reverse=True) for at in range(2)]  # type: ignore[misc]
    evidence = History(Catalogue(QUICK), piece, earlier=pieces, stored=[], objectives=2).scene([]).evidence
    assert [list(each) for each in evidence.ranked] == orders
    for many, but in ((1, set[str]()), (7, {orders[0][0].id, orders[1][2].id}), (60, set[str]())):
        left = [[each for each in order if each.id not in but] for order in orders]
        first = list({each.id: each for pair in zip(*left, strict=True) for each in pair}.values())[:many]
        assert leading(evidence, many, but=but) == first
    assert orders[0][0].means is not None
    assert orders[0][0].means[0] == max(each.means[0] for each in pieces if each.can_be_best and each.means)


def plain(rows: FloatArray, values: FloatArray, variances: FloatArray, at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What scikit-learn expects of rows, as the sampler once asked it."""
    mean, scale = values.mean(), values.std()
    noise = np.clip(variances / scale**2, 1e-3, 10.0)
    process = GaussianProcessRegressor(kernel(COLUMNS, 0), alpha=noise, optimizer=None)
    found, errors = process.fit(rows, (values - mean) / scale).predict(at, return_std=True)
    return found * scale + mean, errors * scale


def test_the_posterior_is_that_of_scikit_learn_to_the_last_bit() -> None:
    rows = np.stack([COLUMNS.row(each.config) for each in drawn(60)])
    rng = np.random.default_rng(0)
    values, variances = rng.normal(size=30), rng.uniform(0.01, 0.1, size=30)
    ours = Posterior(kernel(COLUMNS, 0), rows[:30], values, variances)
    np.testing.assert_array_equal(ours.at_known(), plain(rows[:30], values, variances, rows[:30])[0])
    np.testing.assert_array_equal(ours.at(rows[30:]), plain(rows[:30], values, variances, rows[30:]))
    believed = plain(rows[:30], values, variances, rows[30:40])[0]
    together = np.append(values, believed), np.append(variances, np.full(10, np.median(variances)))
    np.testing.assert_array_equal(ours.believing(rows[30:40]).at(rows[40:]), plain(rows[:40], *together, rows[40:]))


def test_what_has_changed_is_new_or_has_another_fold_or_has_ended() -> None:
    states: tuple[State, ...] = ("unfinished", "failed", "unfinished", "pruned")
    trials = [replace(each, state=state) for each, state in zip(drawn(4), states, strict=True)]
    changes = Changes()
    assert changes.since([]) == []
    assert changes.since(trials) == list(enumerate(trials))
    assert changes.since([replace(each) for each in trials]) == []
    more, fewer = replace(trials[2], state="completed"), replace(trials[0], folds=trials[0].folds[:1])
    assert changes.since([fewer, trials[1], more, trials[3], trials[0]]) == [(0, fewer), (2, more), (4, trials[0])]
    assert changes.since([trials[0], *trials[1:2], trials[2], trials[3], trials[0]]) == [(0, trials[0])]
    assert changes.since(trials[1:]) == list(enumerate(trials[1:]))
