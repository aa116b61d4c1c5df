"""What computation four kinds of search need on a table of real scores to get as far as plain TPE with ASHA.

Run:
    python tests/benchmarks/search_efficiency.py [--small] [--json FILE] [--metric auroc]

Every search runs in virtual time on the recorded table (``recorded_table``), on four slots, through this project's own
sampler, racing, fold order and leases. It sees one repeat of the table alone (three folds), every second seed the other
one. Its incumbent, the best complete trial so far, is judged on the repeat that it does not see: by how much its mean
score is above the mean of all configurations there. Compute-seconds are the slot-seconds of all stages that were
computed, trials that were stopped included.

- *random*: independent draws, all folds, every trial computes all its stages.
- *plain*: TPE and ASHA, every trial computes all its stages: 50 trials, as the budget ``standard`` has. It tries what
  Optuna proposes, also what was tried before, as plain Ray Tune does; this project's ``tpe`` does not, and spends more.
- *plain_over_store*: the same over this project's store.
- *ours*: the reuse-aware sampler, fold racing, the store.

*Compute to reach* is the first compute-second at which the mean over seeds of an arm's judged score is what plain's
mean is at the end of its 50 trials (the others have at most 150); *for good* is the first one from which on it stays
there. In brackets: 95 % bootstrap intervals over seeds. There are 160 of these: of 40 the intervals reach from .05 to
.6 of plain's end. The median is that over seeds of when each single seed's incumbent reaches that score first.

Two things were decided when the table was known, and before any arm had run on it. The score is the AUROC
(``--metric`` takes others): the two repeats agree on it (the correlation is printed) and hardly on the balanced
accuracy, and where repeats do not agree nothing that a search could do would show. No arm proposes the reference
policies: real images alone are among the best of this table, so that every arm would have arrived with its first trial.

The start without generators and the kernel's parts of single settings were chosen on this table too, in searches of
other seeds (1000 to 4079). No other table of this size has been recorded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from search.objectives import Objective
from search.proposers import Proposer, TpeProposer, build_proposer
from search.racing import Racing
from search.simulation.asha_rule import AshaRule
from search.simulation.course import Cluster, Stops
from search.simulation.driver import Plan
from search.simulator import simulate
from spaces.budget import budget_named
from spaces.parameter import Value
from spaces.space import Assignment
from tests.benchmarks.recorded_table import BUDGET, FOLDS, REPEATS, SCORES, TABLE, TABLE_SPACE, Table, load_table
from trainables.results import TrialResult

METRIC = "auroc"
PLAIN_TRIALS, SLOTS, CHANCE = 50, 4, 0.5
MOST_TRIALS = 3 * PLAIN_TRIALS
"""Of arms other than plain: over a store TPE proposes without end what costs nothing, since it was tried before."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A kind of search."""

    sampler: str
    scheduler: str
    sharing: bool


class PlainTpe:
    """Proposes what Optuna's TPE does, tried before or not."""

    def __init__(self, seed: int, objective: Objective) -> None:
        self._tpe = TpeProposer(TABLE_SPACE, seed=seed, objectives=(objective,))

    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment:
        """See ``Proposer``."""
        return self._tpe.suggestion(f"proposal{number}", trials)


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "random": Arm(sampler="random", scheduler="fifo", sharing=False),
        "plain": Arm(sampler="tpe", scheduler="asha", sharing=False),
        "plain_over_store": Arm(sampler="tpe", scheduler="asha", sharing=True),
        "ours": Arm(sampler="reuse", scheduler="racing", sharing=True),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One search: when another trial became its incumbent, and how that is judged.

    Args:
        reached: compute-seconds, ascending.
        judged: the incumbent's judged score from each of them on.
        compute: all that was computed.
        trials, generators: how many were tried, and how many generators were trained (folds counted one by one).
        proposal_seconds: of this machine's processor, a proposal.
    """

    reached: tuple[float, ...]
    judged: tuple[float, ...]
    compute: float
    trials: int
    generators: int
    proposal_seconds: float

    def at(self, compute: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The judged score of the incumbent at each of some compute-seconds; NaN before there is one."""
        index = np.searchsorted(self.reached, compute, side="right")
        return np.concatenate([[np.nan], self.judged])[index]

    def first(self, target: float) -> float:
        """When the incumbent's judged score is ``target`` for the first time; infinity: never."""
        return next((when for when, score in zip(self.reached, self.judged, strict=True) if score >= target), math.inf)


def search(path: Path, metric: str, name: str, limit: float | None, seed: int) -> Run:
    """Simulate one search of an arm: plain's number of trials, or until so much has been computed."""
    table, arm, objective = load_table(path), ARMS[name], Objective(name=metric, maximize=True)
    seen = seed % REPEATS
    plan = Plan(
        workload=table.repeat(seen),
        proposer=_proposer(arm.sampler, seed, objective),
        objectives=(objective,),
        wanted=PLAIN_TRIALS if limit is None else MOST_TRIALS,
        references={},
        stopper=_stopper(arm.scheduler, objective),
        sharing=arm.sharing,
        folds_in_order=arm.scheduler == "asha",
        compute_limit=math.inf if limit is None else limit,
    )
    found = simulate(plan, Cluster(slots=SLOTS), seed=seed)
    best = {trial.id: trial.config for trial in found.trials}
    return Run(
        reached=tuple(each.compute for each in found.progress),
        judged=tuple(judge(table, best[each.best], metric, repeat=1 - seen) for each in found.progress),
        compute=found.compute_seconds,
        trials=len(found.trials),
        generators=sum(event.what == "computed" and event.detail == "generator" for event in found.events),
        proposal_seconds=statistics.fmean(found.proposals) if found.proposals else 0.0,
    )


def judge(table: Table, config: Mapping[str, Value], metric: str, *, repeat: int) -> float:
    """By how much a configuration is better than all are on average, on the repeat that the search did not see."""
    known = [value for each in table.configs if (value := table.mean(each, metric, repeat=repeat)) is not None]
    found = table.mean(config, metric, repeat=repeat)
    return (CHANCE if found is None else found) - statistics.fmean(known)


def _proposer(name: str, seed: int, objective: Objective) -> Proposer:
    if name == "tpe":
        return PlainTpe(seed, objective)
    return build_proposer(name, TABLE_SPACE, seed=seed, objectives=(objective,), budget=budget_named(BUDGET))


def _stopper(name: str, objective: Objective) -> Stops | None:
    if name == "racing":
        return Racing(objectives=(objective,), folds=FOLDS, max_copy_rate=None)
    return AshaRule(objective=objective, folds=FOLDS) if name == "asha" else None


def agreement(table: Table, metric: str) -> float:
    """The correlation of the two repeats' means over the configurations that have both."""
    both = [[table.mean(config, metric, repeat=repeat) for repeat in range(REPEATS)] for config in table.configs]
    pairs = [(one, other) for one, other in both if one is not None and other is not None]
    return statistics.correlation(*zip(*pairs, strict=True))


def run_all(path: Path, metric: str, seeds: int, jobs: int) -> dict[str, list[Run]]:
    """All arms; the others compute up to three times (without a store) or once (with one) what plain did at most."""
    with ProcessPoolExecutor(jobs) as pool:
        runs = {"plain": list(pool.map(partial(search, path, metric, "plain", None), range(seeds)))}
        most = max(run.compute for run in runs["plain"])
        asked = {
            name: pool.map(partial(search, path, metric, name, most * (1 if arm.sharing else 3)), range(seeds))
            for name, arm in ARMS.items()
            if name != "plain"
        }
        runs |= {name: list(found) for name, found in asked.items()}
    return {name: runs[name] for name in ARMS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Judged scores of one arm's seeds (S) at common compute-seconds (G)."""

    compute_G: npt.NDArray[np.float64]
    judged_SG: npt.NDArray[np.float64]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Curves:
        """At every second at which any seed's incumbent changes."""
        compute = np.unique([when for run in runs for when in run.reached])
        return cls(compute_G=compute, judged_SG=np.stack([run.at(compute) for run in runs]))

    def reach(self, target: float, seeds: npt.NDArray[np.int64], *, for_good: bool = False) -> float:
        """When the mean over some seeds is ``target``; infinity: never. A mean exists once all seeds have one."""
        means_G = self.judged_SG[seeds].mean(axis=0)
        there_G = means_G >= target - 1e-12
        if for_good:
            there_G = np.logical_and.accumulate(there_G[::-1])[::-1]
        return float(self.compute_G[np.argmax(there_G)]) if there_G.any() else math.inf


def report(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Print the tables. Returns: the figures."""
    target = statistics.fmean(run.judged[-1] for run in runs["plain"])
    end = statistics.fmean(run.compute for run in runs["plain"])
    print(
        f"{len(runs['plain'])} seeds. Plain TPE + ASHA ends after {PLAIN_TRIALS} trials and {end:.0f} compute-seconds "
        f"{target:+.4f} above the mean of all configurations.\n"
    )
    figures = {"seeds": len(runs["plain"]), "target": target, "plain_end": end, **_reach(runs, target)}
    figures["judged"] = _scores(runs, end * np.array([0.05, 0.1, 0.2, 0.5, 1.0]))
    print(f"\n{'':17} {'trials':>7} {'generators':>11} {'compute':>8} {'ms a proposal':>14}")
    for name, found in runs.items():
        trials, generators, compute, seconds = (
            statistics.fmean(getattr(run, each) for run in found)
            for each in ("trials", "generators", "compute", "proposal_seconds")
        )
        print(f"{name:17} {trials:>7.0f} {generators:>11.0f} {compute:>8.0f} {1000 * seconds:>14.1f}")
    return figures


def _reach(runs: Mapping[str, Sequence[Run]], target: float) -> dict[str, dict[str, float | None]]:
    """Print, and return, what each arm needs to reach what plain has at its end."""
    curves = {name: Curves.of(found) for name, found in runs.items()}
    every = np.arange(len(runs["plain"]))
    draws = np.random.default_rng(0).integers(len(every), size=(RESAMPLES, len(every)))
    ends = np.array([run.judged[-1] for run in runs["plain"]])
    resampled = {
        name: np.array([curve.reach(float(ends[draw].mean()), draw) for draw in draws])
        for name, curve in curves.items()
    }
    reach = {name: curve.reach(target, every) for name, curve in curves.items()}
    good = {name: curve.reach(target, every, for_good=True) for name, curve in curves.items()}
    medians = {name: statistics.median(run.first(target) for run in found) for name, found in runs.items()}
    print(f"{'':17} {'compute to reach it':>28} {'share of plain':>22} {'for good':>9} {'median':>8}")
    for name in runs:
        low, high = _quantiles(resampled[name])
        share_low, share_high = _quantiles(resampled[name] / resampled["plain"])
        print(
            f"{name:17} {_seconds(reach[name]):>10} [{_seconds(low)}, {_seconds(high)}]".ljust(46)
            + f" {reach[name] / reach['plain']:>8.2f} [{share_low:.2f}, {share_high:.2f}]".ljust(24)
            + f" {_seconds(good[name]):>8} {_seconds(medians[name]):>8}"
        )
    found = {"compute_to_reach": reach, "for_good": good, "median_over_seeds": medians}
    return {title: {name: _finite(value) for name, value in each.items()} for title, each in found.items()}


def _scores(runs: Mapping[str, Sequence[Run]], compute: npt.NDArray[np.float64]) -> dict[str, list[float | None]]:
    """Print, and return, the mean judged score of each arm at some compute-seconds."""
    print("\nJudged score of the incumbent (mean, 95 % interval) after so many compute-seconds")
    print(f"{'':17} " + " ".join(f"{when:>17.0f}" for when in compute))
    found: dict[str, list[float | None]] = {"compute": compute.tolist()}
    for name, each in runs.items():
        judged_SG = np.stack([run.at(compute) for run in each])
        means, spreads = judged_SG.mean(axis=0), judged_SG.std(axis=0, ddof=min(1, len(each) - 1))
        widths = 1.96 * spreads / math.sqrt(len(each))
        words = [
            "not all have one" if math.isnan(mean) else f"{mean:.4f} ± {width:.4f}"
            for mean, width in zip(means, widths, strict=True)
        ]
        print(f"{name:17} " + " ".join(f"{word:>17}" for word in words))
        found[name] = [_finite(float(mean)) for mean in means]
    return found


def _quantiles(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 %; values may be infinite, and quotients of two such are left out."""
    ordered = np.sort(values[~np.isnan(values)])
    return float(ordered[int(0.025 * len(ordered))]), float(ordered[math.ceil(0.975 * len(ordered)) - 1])


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.0f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run all searches and print what they needed."""
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/search_efficiency.py", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--small", action="store_true", help="10 seeds in place of 160")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--metric", default=METRIC, choices=SCORES, help=f"the score (default {METRIC})")
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help="another recorded table")
    options = parser.parse_args(arguments)
    start, table = time.time(), load_table(options.table)
    agrees = agreement(table, options.metric)
    print(f"{options.metric} of {len(table.configs)} configurations; the two repeats' correlation is {agrees:.2f}.\n")
    seeds = 10 if options.small else 160
    found = report(run_all(options.table, options.metric, seeds, options.jobs))
    found |= {"metric": options.metric, "agreement": agrees, "configurations": len(table.configs)}
    print(f"\n{time.time() - start:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
