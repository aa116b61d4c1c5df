"""What stopping trials early saves and what it costs: fold racing at several thresholds beside ASHA.

Run:
    python -m tests.benchmarks.racing [--small] [--json FILE] [--rows FILE [FILE ...]]

A made-up search has 40 trials, the first four of them references, in 4 slots; a trial's folds take equally long, how
long is drawn for each trial. A trial's score in a fold is its policy's quality + how easy the fold is + a residual, all
normal, as large as they were measured to be (``MEASURED``). Everything is compared with running all folds of all trials
(FIFO). Racing sees each trial's folds in a random order, ASHA in the fixed one that it needs.

- *winner stopped*: searches in which the trial that FIFO would have chosen is stopped, with Wilson's 95 % interval.
- *folds saved*: share of FIFO's folds that are not run. At most 1 / 3 of 3 folds, 3 / 5 of 5, 4 / 5 of 10.
- *regret, seen*: how much lower than FIFO's the mean score of the finally chosen is, over all folds; in points.
- *regret, true*: how much worse than the best policy of the search the chosen one truly is; FIFO has one too.

*Learning* searches propose better policies as they go on: the last ones are better than the first by two deviations.
``--rows`` adds searches over recorded scores, three folds each: files with a line of JSON for each evaluation
(``config``, ``fold``, ``scores``); folds 0 to 2 are searched on, and 3 to 5 tell the true quality.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from search.objectives import Objective
from search.racing import THRESHOLD, Racing
from trainables.ledger import Ledger
from trainables.results import FoldResult, TrialResult

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Decide: TypeAlias = Callable[[TrialResult, Sequence[TrialResult]], bool]
"""Whether a trial that has just finished a fold stops, given all trials so far; what it says after the last is moot."""

SCORE = "balanced_accuracy"
TRIALS, REFERENCES, SLOTS = 40, 4, 4
THRESHOLDS = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Standard deviations of a score: of policies, of folds, and of what neither explains in one fold of three."""

    policies: float
    folds: float
    residual: float

    def residual_of(self, folds: int) -> float:
        """With more folds each tests fewer images, and varies more."""
        return self.residual * math.sqrt(folds / 3)


MEASURED = Noise(policies=0.0100, folds=0.0305, residual=0.0257)
"""Of balanced accuracy, from ``noise_of`` real scores: 36 configurations of ``genmix`` (the first of a shuffled grid
over mixers and generators) in 3 folds x 2 repeats, 300 chest radiographs, the budget ``quick``. The residual is more
than twice what sets policies apart: a hard case. AUROC has 0.018, 0.036 and 0.023."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One search's scores (trials, folds), true qualities, and seconds that one fold of each trial takes."""

    scores_TF: Floats
    quality_T: Floats
    seconds_T: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """Which trials were stopped, and how many folds were run."""

    stopped_T: npt.NDArray[np.bool_]
    folds_run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Means over searches; see the module."""

    searches: int
    winner_stopped: float
    interval: tuple[float, float]
    saved: float
    regret_seen: float
    regret_true: float
    regret_true_fifo: float


def draw(noise: Noise, *, folds: int, repeats: int = 1, gain: float = 0.0, rng: np.random.Generator) -> Drawn:
    """A made-up search over ``folds`` x ``repeats`` evaluations; qualities rise by ``gain`` deviations on the way."""
    quality_T = noise.policies * (rng.standard_normal(TRIALS) + gain * np.linspace(0, 1, TRIALS))
    easy_F = noise.folds * rng.standard_normal(folds * repeats)
    residual_TF = noise.residual_of(folds) * rng.standard_normal((TRIALS, folds * repeats))
    return Drawn(
        scores_TF=0.72 + quality_T[:, None] + easy_F + residual_TF,
        quality_T=quality_T,
        seconds_T=rng.lognormal(0.0, 0.5, TRIALS),
    )


def made_up(count: int, *, folds: int, repeats: int = 1, gain: float = 0.0) -> Iterator[Drawn]:
    """So many searches, each from a seed of its own."""
    for seed in range(count):
        yield draw(MEASURED, folds=folds, repeats=repeats, gain=gain, rng=np.random.default_rng((seed, folds, repeats)))


def noise_of(scores_TE: Floats) -> Noise:
    """The components of variance of scores of T trials in E evaluations, three folds each: ``MEASURED`` came from it.

    Source: Searle, Casella & McCulloch 1992 (estimators of the analysis of variance).
    """
    trials, evaluations = scores_TE.shape
    trial_T, easy_E = scores_TE.mean(axis=1), scores_TE.mean(axis=0)
    residual_TE = scores_TE - trial_T[:, None] - easy_E + scores_TE.mean()
    residual = float((residual_TE**2).sum() / ((trials - 1) * (evaluations - 1)))
    policies = float(trial_T.var(ddof=1)) - residual / evaluations
    folds = float(easy_E.var(ddof=1)) - residual / trials
    return Noise(policies=max(0.0, policies) ** 0.5, folds=max(0.0, folds) ** 0.5, residual=residual**0.5)


def recorded(paths: Sequence[Path]) -> tuple[Floats, Floats]:
    """Scores (configurations, 3) that a search sees and (configurations, 3) that judge it, of complete ones."""
    by_config: dict[str, dict[int, float]] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "scores" in row:
                by_config.setdefault(json.dumps(row["config"]), {})[row["fold"]] = row["scores"][SCORE]
    whole_T6 = np.array([[found[fold] for fold in range(6)] for found in by_config.values() if len(found) == 6])
    return whole_T6[:, :3], whole_T6[:, 3:]


def drawn_from(count: int, seen_CF: Floats, judging_CF: Floats) -> Iterator[Drawn]:
    """So many searches over configurations whose scores are real."""
    for seed in range(count):
        rng = np.random.default_rng((seed, 9))
        chosen = rng.choice(len(seen_CF), size=min(TRIALS, len(seen_CF)), replace=False)
        yield Drawn(
            scores_TF=seen_CF[chosen],
            quality_T=judging_CF[chosen].mean(axis=1),
            seconds_T=rng.lognormal(0.0, 0.5, len(chosen)),
        )


def run(drawn: Drawn, order_TF: Ints, decide: Decide) -> Outcome:
    """Run a search in virtual time: as many trials at once as there are slots, a decision after each fold.

    Args:
        drawn: the search.
        order_TF: the order of each trial's folds.
        decide: what stops trials.
    """
    count, folds = drawn.scores_TF.shape
    trials: list[TrialResult] = []
    running: list[tuple[float, int]] = []

    def start(now: float) -> None:
        number = len(trials)
        if number < count:
            trials.append(_trial(number))
            heapq.heappush(running, (now + drawn.seconds_T[number], number))

    for _ in range(SLOTS):
        start(0.0)
    while running:
        now, number = heapq.heappop(running)
        trial = trials[number]
        fold = int(order_TF[number, len(trial.folds)])
        trial = replace(trial, folds=(*trial.folds, _fold(fold, float(drawn.scores_TF[number, fold]))))
        stops = decide(trial, [*trials[:number], trial, *trials[number + 1 :]])
        if len(trial.folds) == folds:
            trials[number] = replace(trial, state="completed", ended=now)
        elif stops:
            trials[number] = replace(trial, state="pruned", ended=now)
        else:
            trials[number] = trial
            heapq.heappush(running, (now + drawn.seconds_T[number], number))
            continue
        start(now)
    return Outcome(
        stopped_T=np.array([trial.state == "pruned" for trial in trials]),
        folds_run=sum(len(trial.folds) for trial in trials),
    )


def _trial(number: int) -> TrialResult:
    return TrialResult(
        id=f"t{number:04d}", config={"classifier.epochs": number},
        reference="reference" if number < REFERENCES else None, state="unfinished",
        folds=(), error=None, created=0.0, ended=None,
    )  # fmt: skip


def _fold(number: int, score: float) -> FoldResult:
    return FoldResult(
        fold=number, scores={SCORE: score}, stages=(), predictions=(), counts={}, seconds=0.0, peak_bytes=0
    )


def by_racing(*, folds: int, repeats: int = 1, threshold: float = THRESHOLD) -> Decide:
    """This project's racing, for one search."""
    racing = Racing(
        objectives=(Objective(name=SCORE, maximize=True),), folds=folds * repeats, max_copy_rate=None,
        threshold=threshold, correlation=1 / folds,
    )  # fmt: skip
    return lambda trial, trials: racing.stops(trial, trials) is not None


def by_asha(folds: int) -> Decide:
    """This project's ASHA, for one search."""
    from ray.tune.schedulers import TrialScheduler

    from search.schedulers import FoldAsha

    record = SimpleNamespace(end_trial=lambda *given: None)
    asha = FoldAsha(cast("Ledger", record), folds=folds, maximize=True, metric=SCORE, max_copy_rate=None, earlier=())

    def decide(trial: TrialResult, trials: Sequence[TrialResult]) -> bool:
        done, mean = len(trial.folds), trial.scores[SCORE].mean
        result = {"trial": trial.id, "folds_done": done, "running_mean": mean, "reference": trial.reference}
        tune_trial = SimpleNamespace(trial_id=trial.id)
        if done == 1:
            asha.on_trial_add(None, tune_trial)
        if done < folds:
            return bool(asha.on_trial_result(None, tune_trial, result) == TrialScheduler.STOP)
        asha.on_trial_complete(None, tune_trial, result)
        return False

    return decide


def measure(searches: Iterator[Drawn], decides: Callable[[], Decide], *, shuffled: bool, seed: int) -> Figures:
    """The figures over searches.

    Args:
        searches: each is run once.
        decides: makes what decides in one search.
        shuffled: whether each trial has its folds in an order of its own.
        seed: of these orders.
    """
    rng = np.random.default_rng((seed, 1))
    rows = []
    for drawn in searches:
        order_TF = np.tile(np.arange(drawn.scores_TF.shape[1]), (len(drawn.scores_TF), 1))
        outcome = run(drawn, rng.permuted(order_TF, axis=1) if shuffled else order_TF, decides())
        rows.append(_row(drawn, outcome))
    stopped, saved, seen, true, true_fifo = np.mean(rows, axis=0).tolist()
    return Figures(
        searches=len(rows), winner_stopped=stopped, interval=wilson(round(stopped * len(rows)), len(rows)),
        saved=saved, regret_seen=seen, regret_true=true, regret_true_fifo=true_fifo,
    )  # fmt: skip


def _row(drawn: Drawn, outcome: Outcome) -> tuple[float, ...]:
    mean_T = drawn.scores_TF.mean(axis=1)
    winner = int(mean_T.argmax())
    chosen = int(np.where(outcome.stopped_T, -np.inf, mean_T).argmax())
    best = float(drawn.quality_T.max())
    return (
        float(outcome.stopped_T[winner]),
        1 - outcome.folds_run / drawn.scores_TF.size,
        float(mean_T[winner] - mean_T[chosen]),
        best - float(drawn.quality_T[chosen]),
        best - float(drawn.quality_T[winner]),
    )


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927."""
    z = 1.959964
    share = hits / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, centre - reach), min(1.0, centre + reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Searches that every scheduler runs: the same ones."""

    name: str
    folds: int
    repeats: int
    searches: Callable[[], Iterator[Drawn]]


def _cases(count: int, rows: Sequence[Path]) -> Iterator[Case]:
    for folds, repeats in ((3, 1), (5, 1), (5, 2)):
        name = f"{folds} folds" + (f" x {repeats}" if repeats > 1 else "")
        for kind, gain in (("", 0.0), (", learning", 2.0)):
            searches = partial(made_up, count, folds=folds, repeats=repeats, gain=gain)
            yield Case(name=f"{name}{kind}", folds=folds, repeats=repeats, searches=searches)
    if rows:
        seen_CF, judging_CF = recorded(rows)
        searches = partial(drawn_from, count, seen_CF, judging_CF)
        yield Case(name=f"3 folds, {len(seen_CF)} recorded", folds=3, repeats=1, searches=searches)


def _figures(case: Case, threshold: float | None) -> Figures:
    """Of racing, or of ASHA where there is no threshold."""
    if threshold is None:
        return measure(case.searches(), partial(by_asha, case.folds * case.repeats), shuffled=False, seed=0)
    decides = partial(by_racing, folds=case.folds, repeats=case.repeats, threshold=threshold)
    return measure(case.searches(), decides, shuffled=True, seed=0)


def seconds_per_decision(trials: int = 2000, decisions: int = 200) -> float:
    """What one decision of racing takes, on average, in a search with so many finished trials of five folds."""
    rng = np.random.default_rng(0)
    scores_TF = rng.normal(0.7, 0.03, (trials + 1, 5))
    ended = [
        replace(
            _trial(number), state="completed", folds=tuple(_fold(fold, float(row_F[fold])) for fold in range(5))
        )
        for number, row_F in enumerate(scores_TF)
    ]  # fmt: skip
    running = replace(ended[-1], state="unfinished", folds=ended[-1].folds[:3])
    decide = by_racing(folds=5)
    found = [*ended[:-1], running]
    decide(running, found)
    start = time.perf_counter()
    for _ in range(decisions):
        decide(running, found)
    return (time.perf_counter() - start) / decisions


def _line(figures: Figures) -> str:
    low, high = figures.interval
    regrets = [100 * each for each in (figures.regret_seen, figures.regret_true, figures.regret_true_fifo)]
    return (
        f"{figures.winner_stopped:9.1%} ({low:5.1%}-{high:5.1%}){figures.saved:8.1%}"
        f"{regrets[0]:14.2f}{regrets[1]:7.2f}{regrets[2]:7.2f}"
    )


def main(count: int, rows: Sequence[Path]) -> Mapping[str, Any]:
    """Print the table as it is measured."""
    found: list[Mapping[str, Any]] = []
    print(f"{count} searches a line, {TRIALS} trials ({REFERENCES} references) in {SLOTS} slots; regrets in points.")
    if rows:
        print(f"Of the recorded scores: {noise_of(np.concatenate(recorded(rows), axis=1))}")
    print(f"{'':22}{'':14}{'winner stopped':>24}{'saved':>8}{'regret: seen':>14}{'true':>7}{'FIFO':>7}")
    for case in _cases(count, rows):
        for threshold in (None, *THRESHOLDS):
            scheduler = "asha" if threshold is None else f"racing {threshold:g}"
            figures = _figures(case, threshold)
            print(f"{case.name:22}{scheduler:14}{_line(figures)}", flush=True)
            named = {"case": case.name, "folds": case.folds, "repeats": case.repeats, "scheduler": scheduler}
            found.append({**named, **asdict(figures)})
    seconds = seconds_per_decision()
    print(
        f"A decision takes {1000 * seconds:.2f} ms with 2,000 finished trials. The default threshold is {THRESHOLD:g}."
    )
    return {"default_threshold": THRESHOLD, "seconds_per_decision": seconds, "rows": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.racing", description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="100 searches a line instead of 1000")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rows", type=Path, nargs="+", default=[], metavar="FILE", help="recorded scores")
    given = parser.parse_args()
    measured = main(100 if given.small else 1000, given.rows)
    if given.json:
        given.json.write_text(json.dumps(measured, indent=2), encoding="utf-8")
