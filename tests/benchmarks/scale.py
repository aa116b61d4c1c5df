"""What a large search costs besides computing: idle slots, waiting for leases, proposals, memory of the driver.

Run:
    python tests/benchmarks/scale.py [--small] [--json FILE]

- *simulated*: 10,000 trials of the space ``genmix`` over 512 slots (nodes of 8) in virtual time, through this
  project's sampler, racing, fold order and leases. Stages take what they take under the budget ``standard`` on one CPU
  core, drawn for each of them (log-normal, sigma 0.3). One slot in ten takes twice as long; each node is lost once an
  hour on average and comes back after five minutes; the one driver spends 50 ms on each trial, the most that a
  proposal may cost.
- *real*: 100 trials of ten seconds (three folds that sleep) on 8 slots of Ray Tune through this project's driver,
  MLflow included. Eight slots share what cores there are.
- *sampler*: processor seconds of a proposal after 2,000 finished trials, each after one more trial has ended.
- *memory*: growth of a driver's resident memory per finished trial, 2,000 trials of three folds with 300 predictions
  read through the ledger.

Utilisation is busy slot-seconds over slot-seconds, between the first and the last start of a trial; nodes that are down
are left out, and work that a lost node takes with it counts as busy (its share is printed). In the real run a slot is
busy while a fold sleeps, not while anything around it works.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from search.durations import Durations, reference_durations
from search.objectives import Objective
from search.simulation.course import Cluster, Simulation
from search.simulation.driver import Plan
from search.simulation.workload import DrawnWorkload
from search.simulator import simulate
from spaces.budget import budget_named
from spaces.space import Space

METRIC = Objective(name="balanced_accuracy", maximize=True)
SIGMA, PREDICTIONS, FOLDS = 0.3, 300, 3
_ROOT = Path(__file__).resolve().parent.parent.parent


def simulated(*, slots: int, trials: int, sampler: str = "reuse", seed: int = 0) -> Simulation:
    """The simulated search."""
    from search.proposers import build_proposer
    from search.racing import Racing
    from spaces.reference import reference_policies

    space, budget = _space("standard"), budget_named("standard")
    plan = Plan(
        workload=DrawnWorkload(space, budget, _durations(), folds=budget.folds, seed=seed),
        proposer=build_proposer(sampler, space, seed=seed, objectives=(METRIC,), budget=budget),
        objectives=(METRIC,),
        wanted=trials,
        references=reference_policies(space),
        stopper=Racing(objectives=(METRIC,), folds=budget.folds, max_copy_rate=None),
    )
    cluster = Cluster(
        slots=slots,
        slots_per_node=8,
        straggler_share=0.1,
        straggler_factor=2.0,
        loss_every=3600.0,
        repair_seconds=300.0,
        proposal_seconds=0.05,
    )
    return simulate(plan, cluster, seed=seed)


def _space(budget: str) -> Space:
    from search.chosen_space import chosen_space

    return chosen_space("genmix", [], budget_named(budget))[0]


def _durations() -> Durations:
    known = reference_durations(budget_named("standard"), images=None)
    assert known is not None, "the budget standard has reference durations"
    return Durations(spreads={kind: replace(spread, sigma=SIGMA) for kind, spread in known.spreads.items()})


def real(*, trials: int, seconds: float, slots: int) -> dict[str, float]:
    """A search of sleeping trials with Ray Tune."""
    from tests.benchmarks.own_search import compute_search, genmix_space, record_search, silence
    from tests.benchmarks.sleeping_trials import SleepingFolds, set_length, slept

    with tempfile.TemporaryDirectory() as folder:
        ledger = record_search(
            Path(folder) / "searches", "scale", genmix_space([]), data=None, trials=trials, slots=slots, folds=FOLDS
        )
        set_length(ledger, seconds / FOLDS)
        with silence() as console:
            compute_search(ledger, console, slots=slots, trainable=SleepingFolds)
        spans = slept(ledger)
        states = {trial.state for trial in ledger.trials()}
    if states != {"completed"} or len(spans) != trials:
        raise RuntimeError(f"{trials} trials that sleep were wanted; {len(spans)} ran and ended {sorted(states)}.")
    starts = [min(start for start, _ in trial) for trial in spans]
    first, last = min(starts), max(starts)
    busy = sum(max(0.0, min(end, last) - max(start, first)) for trial in spans for start, end in trial)
    return {"utilisation": busy / (slots * (last - first)), "seconds": last - first, "trials": trials}


def proposals(sampler: str, *, trials: int, count: int) -> list[float]:
    """Processor seconds of proposals after so many trials; the first one reads all of these."""
    from search.proposers import build_proposer

    space, budget = _space("quick"), budget_named("quick")
    workload = DrawnWorkload(space, budget, _durations(), folds=FOLDS, seed=1)

    def plan(name: str, wanted: int) -> Plan:
        proposer = build_proposer(name, space, seed=1, objectives=(METRIC,), budget=budget)
        return Plan(workload=workload, proposer=proposer, objectives=(METRIC,), wanted=wanted)

    finished = list(simulate(plan("random", trials + count), Cluster(slots=8), seed=1).trials)
    proposer = plan(sampler, 0).proposer
    seconds = []
    for number in range(trials, trials + count):
        start = time.process_time()
        proposer.propose(number, finished[:number])
        seconds.append(time.process_time() - start)
    return seconds


def memory(*, trials: int) -> float:
    """Bytes of a driver's memory per finished trial: a fresh process reads a ledger of so many trials."""
    with tempfile.TemporaryDirectory() as folder:
        written = _write_ledger(Path(folder), trials)
        command = [sys.executable, str(Path(__file__).resolve()), "--read-ledger", str(written)]
        found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_ROOT)
    few, all_of_them = json.loads(found.stdout)
    return float(all_of_them - few) / trials


def _write_ledger(storage: Path, trials: int) -> Path:
    """Trials of three folds with predictions, as a search leaves them. Returns: the search's folder."""
    import random

    from tests.benchmarks.own_search import record_search
    from trainables.metrics.catalogue import SCORES
    from trainables.results import FoldResult, Prediction, StageRecord

    space, rng = _space("quick"), random.Random(0)
    ledger = record_search(storage, "scale", space, data=None, trials=trials, slots=8, folds=FOLDS)
    stages = ("preprocess", "generator", "pool", "pool", "pool", "pool", "extractor", "fidelity", "classifier")
    for _ in range(trials):
        trial_id = ledger.add_trial(space.sample(rng), reference=None)
        for fold in range(FOLDS):
            keys = [(name, f"{rng.getrandbits(128):032x}") for name in stages]
            result = FoldResult(
                fold=fold,
                scores={name: rng.random() for name in SCORES},
                stages=tuple(StageRecord(name=name, key=key, seconds=rng.random(), reused=False) for name, key in keys),
                predictions=tuple(
                    Prediction(image=f"a/{each}.png", patient=f"p{each}", label=each % 2, probabilities=(0.25, 0.75))
                    for each in range(PREDICTIONS)
                ),
                counts={"real": 600, "synthetic": 600, "validation": 0, "test": PREDICTIONS},
                seconds=rng.random(),
                peak_bytes=2**29,
                fidelity=dict.fromkeys(("kid", "kid_std", "precision", "recall", "density", "coverage"), rng.random()),
                name=f"repeat 1, fold {fold + 1}",
            )
            path = ledger.trial_folder(trial_id) / f"fold_{fold}.json"
            path.write_text(json.dumps(result.to_dict()), encoding="utf-8")
        ledger.end_trial(trial_id, "completed")
    return ledger.folder


def _read_ledger(folder: Path) -> None:
    """Print the resident bytes of this process before and after it has read all trials of a ledger."""
    import gc

    from trainables.ledger import Ledger

    ledger = Ledger(folder)
    for trial_id in ledger.trial_ids()[:20]:
        Ledger(folder).trial(trial_id)
    gc.collect()
    before = _resident()
    trials = ledger.trials()
    gc.collect()
    print(json.dumps([before, _resident()]))
    del trials


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def report(*, small: bool) -> dict[str, Any]:
    """Measure all of it and print it. Returns: the figures."""
    figures: dict[str, Any] = {}
    start = time.time()
    slots, trials = (64, 600) if small else (512, 10_000)
    found = simulated(slots=slots, trials=trials)
    first, last = found.starts
    slot_seconds = slots * (last - first) - found.spent("down", first, last)
    waiting = found.spent("waiting", first, last) / slot_seconds
    figures["simulated"] = {
        "utilisation": found.utilisation,
        "waiting": waiting,
        "idle": found.spent("idle", first, last) / slot_seconds,
        "lost": found.lost / found.compute_seconds,
        "node_losses": len({(event.time, event.slot // 8) for event in found.events if event.what == "lost"}),
        "wall_seconds": found.wall_seconds,
        "compute_seconds": found.compute_seconds,
        "seconds_to_simulate": time.time() - start,
        "seconds_per_proposal": statistics.fmean(found.proposals),
    }
    _print(f"simulated: {trials} trials over {slots} slots", figures["simulated"])
    wanted, length = (48, 5.0) if small else (100, 10.0)
    figures["real"] = real(trials=wanted, seconds=length, slots=8)
    _print(f"real: {wanted} trials of {length:g} s on 8 slots", figures["real"])
    figures["sampler"] = {}
    for name in ("reuse", "tpe", "random"):
        seconds = proposals(name, trials=2000, count=8 if small else 40)
        figures["sampler"][name] = statistics.fmean(seconds[1:])
        figures["sampler"][f"{name}, the first of a process"] = seconds[0]
    _print("sampler: processor seconds a proposal at 2,000 finished trials", figures["sampler"])
    figures["bytes_per_finished_trial"] = memory(trials=300 if small else 2000)
    _print("memory", {"bytes per finished trial": figures["bytes_per_finished_trial"]})
    figures["utilisation"] = {each: figures[each]["utilisation"] for each in ("simulated", "real")}
    figures["seconds_per_proposal"] = figures["sampler"]["reuse"]
    print(f"{time.time() - start:.0f} s")
    return figures


def _print(title: str, figures: Mapping[str, float]) -> None:
    print(title)
    for name, value in figures.items():
        print(f"  {name:32} {value:>12.4g}" if value < 1000 else f"  {name:32} {value:>12,.0f}")
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/scale.py", description=str(__doc__).split("\n")[0])
    parser.add_argument("--small", action="store_true", help="64 slots, 600 trials; 48 real trials of five seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--read-ledger", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.read_ledger is not None:
        _read_ledger(options.read_ledger)
        return
    figures = report(small=options.small)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
