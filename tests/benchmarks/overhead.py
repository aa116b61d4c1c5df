"""Seconds that surround a trial: this project's against a bare Ray Tune class with actor reuse and a bare function.

Run:
    python tests/benchmarks/overhead.py [--small] [--json FILE] [--profile]

Every trial computes nothing and reports three folds, on two slots of one processor each, as ``noop_trials`` has them:

- *ours*: everything that this project does around a trial: sampler "reuse", fold racing, a ledger with three stages
  and 270 predictions a fold, bootstrap intervals, the display, the live MLflow projector into an SQLite file.
- *bare_reuse*: a class trainable, Tune's random search over the same dimensions, ``reuse_actors``.
- *bare_function*: a function trainable, the same search, Tune's defaults (each trial in a process of its own).

A block is one ``Tuner.fit``, with Ray's start and shutdown counted in all three, in a fresh process whose imports are
not counted; nor is decoding images and creating the database, which a search does once. The blocks of the three
alternate. Given is the median over rounds of a block's seconds over its trials, with the range; the fewer trials a
block has, the more Ray's start weighs, so that figures of ``--small`` are too high, most of all for *bare_function*.

``--profile`` runs one block of *ours* and prints where each thread of the driver spends its time instead.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

SLOTS = 2
GOAL = 0.15
"""Seconds a trial that this project may add to bare Tune with actor reuse."""
_SHOWN = 25


def _ours(folder: Path, trials: int, *, profiled: bool = False) -> float:
    from tests.benchmarks.noop_trials import InstantFolds
    from tests.benchmarks.own_search import compute_search, genmix_space, record_search, silence

    ledger = record_search(
        folder / "searches", "overhead", genmix_space(), data=None, trials=trials, slots=SLOTS, scheduler="racing"
    )

    def run() -> None:
        with silence() as console:
            compute_search(ledger, console, slots=SLOTS, trainable=InstantFolds)

    seconds = _timed(lambda: _profiled(run) if profiled else run())
    ended = [trial for trial in ledger.trials() if trial.state in ("completed", "pruned")]
    if len(ended) != trials:
        others = [f"{trial.id} {trial.state} {trial.error}" for trial in ledger.trials() if trial not in ended]
        raise RuntimeError(f"Only {len(ended)} of {trials} trials ended well; not {'; '.join(others)}")
    return seconds


def _bare_reuse(folder: Path, trials: int) -> float:
    from tests.benchmarks.noop_trials import BareTrainable

    return _bare(BareTrainable, folder, trials, reuse_actors=True)


def _bare_function(folder: Path, trials: int) -> float:
    from tests.benchmarks.noop_trials import bare_function

    return _bare(bare_function, folder, trials, reuse_actors=False)


def _bare(trainable: Any, folder: Path, trials: int, *, reuse_actors: bool) -> float:
    from tests.benchmarks.own_search import genmix_space
    from tests.benchmarks.plain_tune import random_search, run_tune

    drawn = random_search(genmix_space())
    return _timed(lambda: run_tune(trainable, drawn, folder, trials=trials, slots=SLOTS, reuse_actors=reuse_actors))


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


ARMS: Mapping[str, Callable[[Path, int], float]] = MappingProxyType(
    {"ours": _ours, "bare_reuse": _bare_reuse, "bare_function": _bare_function}
)


def _profiled(run: Callable[[], object]) -> None:
    """Run it, and print what each thread of this process did."""
    profiles: list[tuple[str, cProfile.Profile]] = []
    run_thread = threading.Thread.run

    def profile(name: str, work: Callable[[], object]) -> None:
        each = cProfile.Profile(time.thread_time)
        profiles.append((name, each))
        each.runcall(work)

    threading.Thread.run = lambda self: profile(self.name, lambda: run_thread(self))  # type: ignore[method-assign]
    try:
        profile("main", run)
    finally:
        threading.Thread.run = run_thread  # type: ignore[method-assign]
    for name, each in profiles:
        if name in ("main", "tracking", "display"):
            print(f"\n=== thread {name}, seconds of its processor time")
            pstats.Stats(each).sort_stats("cumulative").print_stats(r"genmix|/main/|ray/tune|mlflow", 3 * _SHOWN)
            pstats.Stats(each).sort_stats("tottime").print_stats(_SHOWN)


def _block(arm: str, trials: int) -> float:
    """One block in a process of its own, all that it leaves removed. Raises: RuntimeError if it fails."""
    command = [sys.executable, __file__, "--block", arm, "--trials", str(trials)]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}
    )
    if done.returncode:
        raise RuntimeError(f"A block of '{arm}' failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def measure(rounds: int, trials: Mapping[str, int]) -> dict[str, list[float]]:
    """Seconds a trial of each block, a list for each arm; the order turns from round to round."""
    found: dict[str, list[float]] = {arm: [] for arm in trials}
    for number in range(rounds):
        order = list(trials)[number % len(trials) :] + list(trials)[: number % len(trials)]
        for arm in order:
            found[arm].append(_block(arm, trials[arm]) / trials[arm])
            print(f"round {number + 1}, {arm}: {found[arm][-1]:.3f} s a trial", flush=True)
    return found


def report(found: Mapping[str, Sequence[float]], trials: Mapping[str, int]) -> dict[str, Any]:
    """Print the table. Returns: the figures."""
    medians = {arm: statistics.median(values) for arm, values in found.items()}
    print(f"\n{'':14} {'trials':>7} {'blocks':>7} {'s a trial':>10}  range")
    for arm, values in found.items():
        print(
            f"{arm:14} {trials[arm]:>7} {len(values):>7} {medians[arm]:>10.3f}  {min(values):.3f} to {max(values):.3f}"
        )
    differences = [ours - bare for ours, bare in zip(found["ours"], found["bare_reuse"], strict=True)]
    over = statistics.median(differences)
    print(
        f"ours over bare_reuse, round by round: {over:+.3f} s a trial ({min(differences):+.3f} to "
        f"{max(differences):+.3f}); the goal is at most {GOAL:+.2f}"
    )
    return {
        "seconds_per_trial": medians,
        "range": {arm: [min(values), max(values)] for arm, values in found.items()},
        "over_bare_reuse": over,
        "over_bare_reuse_range": [min(differences), max(differences)],
        "trials": dict(trials),
        "rounds": len(found["ours"]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/overhead.py", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument(
        "--small", action="store_true", help="2 rounds of 20 trials, 5 of the function, in place of 3 of 100"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each is measured (3; small: 2)")
    parser.add_argument("--trials", type=int, metavar="N", help="of a block (100)")
    parser.add_argument("--profile", action="store_true", help="print where the driver's time goes, measure nothing")
    parser.add_argument("--block", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    trials = options.trials or (20 if options.small else 100)
    if options.profile or options.block:
        with tempfile.TemporaryDirectory(prefix="genmix-overhead-") as folder:
            if options.profile:
                _ours(Path(folder), trials, profiled=True)
            else:
                print(json.dumps({"seconds": ARMS[options.block](Path(folder), trials)}))
        return
    many = dict.fromkeys(ARMS, trials)
    if options.small:  # a trial of the function costs seconds
        many["bare_function"] = max(trials // 4, 1)
    found = report(measure(options.rounds or (2 if options.small else 3), many), many)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
