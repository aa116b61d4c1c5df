"""What computation four kinds of search need on a table of real scores to get as far as plain TPE with ASHA.

Run:
    python tests/benchmarks/search_efficiency.py [--small] [--json FILE]

Every search runs in virtual time on the recorded table (``recorded_table``), on four slots, through this project's own
sampler, racing, fold order and leases. It sees the first repeat of the table alone (three folds). Its incumbent, the
best complete trial so far, is judged by the mean balanced accuracy on the second repeat's three folds, which no search
sees. Compute-seconds are the slot-seconds of all stages that were computed, trials that were stopped included.

- *random*: independent draws, all folds, every trial computes all its stages.
- *plain*: TPE and ASHA, every trial computes all its stages: 50 trials, as the budget ``standard`` has.
- *plain_over_store*: TPE and ASHA over this project's store.
- *ours*: the reuse-aware sampler, fold racing, the store.

All arms begin with the same four reference policies: none, affine, mixup at 0.2, and GenMix on DCGAN with the settings
of the table that are nearest to its paper's (alpha 0.5, ratio 1.5).

*Compute to reach* is the first compute-second at which the mean over seeds of an arm's judged score is what plain's
mean is at the end of its 50 trials; *for good* is the first one from which on it stays there. In brackets: 95 %
bootstrap intervals over seeds. The median is that over seeds of when each single seed's incumbent reaches that score
first.
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

from search.asha_rule import AshaRule
from search.objectives import Objective
from search.proposers import build_proposer
from search.racing import Racing
from search.simulation import Cluster, Stops
from search.simulator import simulate
from search.virtual_driver import Plan
from spaces.budget import budget_named
from spaces.parameter import Value
from tests.benchmarks.recorded_table import BUDGET, FOLDS, TABLE, TABLE_SPACE, Table, load_table

METRIC = Objective(name="balanced_accuracy", maximize=True)
PLAIN_TRIALS, SLOTS, CHANCE = 50, 4, 0.5
RESAMPLES = 1000
REFERENCES: Mapping[str, Mapping[str, Value]] = MappingProxyType(
    {
        "none": {"mixer.name": "real", "affine": False},
        "affine": {"mixer.name": "real", "affine": True},
        "mixup": {"mixer.name": "mixup", "mixer.mixup_alpha": 0.2, "affine": False},
        "genmix": {
            "mixer.name": "genmix",
            "generator.name": "dcgan",
            "mixer.genmix_alpha": 0.5,
            "synthetic.ratio": 1.5,
            "affine": False,
        },
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A kind of search."""

    sampler: str
    scheduler: str
    sharing: bool


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


def search(path: Path, name: str, limit: float | None, seed: int) -> Run:
    """Simulate one search of an arm: plain's number of trials, or until so much has been computed."""
    table, arm = load_table(path), ARMS[name]
    plan = Plan(
        workload=table.seen,
        proposer=build_proposer(arm.sampler, TABLE_SPACE, seed=seed, objectives=(METRIC,), budget=budget_named(BUDGET)),
        objectives=(METRIC,),
        wanted=PLAIN_TRIALS if limit is None else len(table.configs),
        references=REFERENCES,
        stopper=_stopper(arm.scheduler),
        sharing=arm.sharing,
        folds_in_order=arm.scheduler == "asha",
        compute_limit=math.inf if limit is None else limit,
    )
    found = simulate(plan, Cluster(slots=SLOTS), seed=seed)
    best = {trial.id: trial.config for trial in found.trials}
    return Run(
        reached=tuple(each.compute for each in found.progress),
        judged=tuple(judge(table, best[each.best]) for each in found.progress),
        compute=found.compute_seconds,
        trials=len(found.trials),
        generators=sum(event.what == "computed" and event.detail == "generator" for event in found.events),
        proposal_seconds=statistics.fmean(found.proposals) if found.proposals else 0.0,
    )


def judge(table: Table, config: Mapping[str, Value]) -> float:
    """The score on the repeat that no search sees; one that fails there is worth chance."""
    found = table.judged(config, METRIC.name)
    return CHANCE if found is None else found


def _stopper(name: str) -> Stops | None:
    if name == "racing":
        return Racing(objectives=(METRIC,), folds=FOLDS, max_copy_rate=None)
    return AshaRule(objective=METRIC, folds=FOLDS) if name == "asha" else None


def run_all(path: Path, seeds: int, jobs: int) -> dict[str, list[Run]]:
    """All arms; the others compute up to three times (without a store) or once (with one) what plain did at most."""
    with ProcessPoolExecutor(jobs) as pool:
        runs = {"plain": list(pool.map(partial(search, path, "plain", None), range(seeds)))}
        most = max(run.compute for run in runs["plain"])
        asked = {
            name: pool.map(partial(search, path, name, most * (1 if arm.sharing else 3)), range(seeds))
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
    seeds = len(runs["plain"])
    every = np.arange(seeds)
    curves = {name: Curves.of(found) for name, found in runs.items()}
    target = statistics.fmean(run.judged[-1] for run in runs["plain"])
    end = statistics.fmean(run.compute for run in runs["plain"])
    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    resampled = {
        name: np.array([_reach(curve, _target(runs, draw), draw) for draw in draws]) for name, curve in curves.items()
    }
    reach = {name: curve.reach(target, every) for name, curve in curves.items()}
    good = {name: curve.reach(target, every, for_good=True) for name, curve in curves.items()}
    medians = {name: statistics.median(run.first(target) for run in found) for name, found in runs.items()}
    print(
        f"{seeds} seeds. Plain TPE + ASHA ends after {PLAIN_TRIALS} trials and {end:.0f} compute-seconds with a judged "
        f"balanced accuracy of {target:.4f}.\n"
    )
    print(f"{'':17} {'compute to reach it':>28} {'share of plain':>22} {'for good':>9} {'median':>8}")
    for name in ARMS:
        low, high = np.quantile(resampled[name], [0.025, 0.975], method="nearest")
        with np.errstate(invalid="ignore"):
            shares = resampled[name] / resampled["plain"]
        share_low, share_high = np.quantile(shares[~np.isnan(shares)], [0.025, 0.975], method="nearest")
        print(
            f"{name:17} {_seconds(reach[name]):>10} [{_seconds(low)}, {_seconds(high)}]".ljust(46)
            + f" {reach[name] / reach['plain']:>8.2f} [{share_low:.2f}, {share_high:.2f}]".ljust(24)
            + f" {_seconds(good[name]):>8} {_seconds(medians[name]):>8}"
        )
    shown = end * np.array([0.05, 0.1, 0.2, 0.5, 1.0])
    print("\nJudged score of the incumbent (mean, 95 % interval) after so many compute-seconds")
    print(f"{'':17} " + " ".join(f"{when:>22.0f}" for when in shown))
    rows = {name: [_interval([run.at(shown)[index] for run in runs[name]]) for index in range(5)] for name in ARMS}
    for name, row in rows.items():
        print(f"{name:17} " + " ".join(f"{_words(each):>22}" for each in row))
    print(f"\n{'':17} {'trials':>7} {'generators':>11} {'compute':>8} {'ms a proposal':>14}")
    for name, found in runs.items():
        averages = [statistics.fmean(getattr(run, each) for run in found) for each in ("trials", "generators")]
        averages += [statistics.fmean(run.compute for run in found)]
        milliseconds = 1000 * statistics.fmean(run.proposal_seconds for run in found)
        print(f"{name:17} {averages[0]:>7.0f} {averages[1]:>11.0f} {averages[2]:>8.0f} {milliseconds:>14.1f}")
    return {
        "seeds": seeds,
        "target": target,
        "plain_end": end,
        "compute_to_reach": {name: _finite(value) for name, value in reach.items()},
        "for_good": {name: _finite(value) for name, value in good.items()},
        "median_over_seeds": {name: _finite(value) for name, value in medians.items()},
        "at": {"compute": shown.tolist(), **{name: [each[0] for each in row] for name, row in rows.items()}},
    }


def _target(runs: Mapping[str, Sequence[Run]], draw: npt.NDArray[np.int64]) -> float:
    return statistics.fmean(runs["plain"][int(index)].judged[-1] for index in draw)


def _reach(curve: Curves, target: float, draw: npt.NDArray[np.int64]) -> float:
    return curve.reach(target, draw)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval; NaN where a seed has no incumbent yet."""
    spread = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), spread


def _words(found: tuple[float, float]) -> str:
    return "not all have one" if math.isnan(found[0]) else f"{found[0]:.4f} ± {found[1]:.4f}"


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.0f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run all searches and print what they needed."""
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/search_efficiency.py", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--small", action="store_true", help="10 seeds in place of 40")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help="another recorded table")
    options = parser.parse_args(arguments)
    start = time.time()
    found = report(run_all(options.table, 10 if options.small else 40, options.jobs))
    print(f"\n{time.time() - start:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
