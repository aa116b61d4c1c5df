"""What sharing stages saves: the same configurations by plain Ray Tune, by this project without sharing, and with it.

Run:
    python tests/benchmarks/sharing.py [--small] [--json FILE] [--data FOLDER] [--work FOLDER]

48 configurations of the space ``genmix`` on ``cxr_nih_pneumonia``, budget ``quick``, 3 folds, 2 slots of one processor:

- *shared*: this project, which draws them with its default sampler while it runs, every trial all its folds.
- *unshared*: this project without sharing, the same configurations given.
- *plain*: Ray Tune with the list of them and a function trainable over the same trial core, no store.

Each begins in an empty storage. Some of the configurations, two of them over one generator, are truly run in all three,
and all their scores and predictions compared bit by bit. For the times each distinct stage was measured once, while
*shared* ran, and is replayed on 2 slots (``search.simulator``); so *plain* and *unshared* come out equal, without what
starting a process for each trial costs *plain*. Walls go from the first trial's start to the last one's end.

The second row does the same for 48 configurations that plain TPE draws: there sharing is all that helps.

With ``--work`` everything is kept there, and the same command goes on with what was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from ray import tune

from search.console import open_console
from spaces.errors import InputError
from spaces.space import Space
from tests.benchmarks.ledger_replay import Times, replay
from tests.benchmarks.own_search import compute_search, genmix_space, record_search
from tests.benchmarks.plain_trials import CONFIGS, RESULTS, cross_validate
from tests.benchmarks.plain_tune import run_tune
from trainables.files import read_json, write_json
from trainables.ledger import Ledger
from trainables.results import FoldResult, TrialResult

SLOTS, FOLDS, SET = 2, 3, "cxr_nih_pneumonia"
ARMS = ("plain", "unshared", "shared")
CHEAP = ("generator.name=dae_gan", "generator.survivors=1", "generator.discriminator_steps=1")
"""Fixed in a small run: the generator that is trained soonest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is run.

    Args:
        space: where configurations come from.
        data: the images; None: the phantom.
        labels: the table of those that are used; None: of all.
        trials: by sampler, how many configurations it draws.
        checked: by sampler, how many of them all three arms truly run.
    """

    space: Space
    data: Path | None
    labels: Path | None
    trials: Mapping[str, int]
    checked: Mapping[str, int]

    def record(self, storage: Path, name: str, *, trials: int, sampler: str, sharing: bool) -> Ledger:
        """The search of one arm in a storage of its own: a new one, or the one that is there."""
        if (storage / name / "search.json").exists():
            return Ledger((storage / name).resolve())
        return record_search(
            storage,
            name,
            self.space,
            data=self.data,
            labels=self.labels,
            trials=trials,
            slots=SLOTS,
            folds=FOLDS,
            sampler=sampler,
            sharing=sharing,
        )


def measure_row(study: Study, sampler: str, work: Path) -> dict[str, Any]:
    """Run the arms of one sampler, print what they took, and return the figures."""
    console, count = open_console(), study.trials[sampler]
    print(f"\n{sampler}: {count} configurations with sharing", flush=True)
    shared = study.record(work / "shared", "shared", trials=count, sampler=sampler, sharing=True)
    _finish(shared, console)
    trials = shared.trials()
    chosen = choose(trials, study.checked[sampler], pair=sampler == "reuse")
    found: dict[str, Any] = {"configurations": len(trials), "failed": sum(each.state == "failed" for each in trials)}
    measured = {"shared": _Measured(walls=_wall(shared.trials()), replayed=_replay(trials, sharing=True).wall)}
    if chosen:
        print(f"\n{sampler}: {len(chosen)} of them without sharing", flush=True)
        alone = study.record(work / "unshared", "unshared", trials=len(chosen), sampler=sampler, sharing=False)
        for trial in chosen[len(alone.trials()) :]:
            alone.add_trial(trial.config, reference=None)
        _finish(alone, console)
        print(f"\n{sampler}: {len(chosen)} of them by plain Ray Tune", flush=True)
        plain = study.record(work / "plain", "plain", trials=len(chosen), sampler=sampler, sharing=False)
        results = run_plain(plain, chosen)
        found |= compare(chosen, shared, alone, {name: _folds(result["folds"]) for name, result in results.items()})
        began, ended = (
            pick(each[when] for each in results.values()) for pick, when in ((min, "began"), (max, "ended"))
        )
        again = _replay(chosen, sharing=False).wall
        measured["unshared"] = _Measured(walls=_wall(alone.trials()), replayed=again)
        measured["plain"] = _Measured(walls=ended - began, replayed=again)
    times = {arm: _replay(trials, sharing=arm == "shared") for arm in ARMS}
    return found | _report(sampler, trials, times, measured, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Seconds that an arm truly took, and those of the replay of the same trials."""

    walls: float
    replayed: float


def _finish(ledger: Ledger, console: Any) -> None:
    """Compute what a search has left. Raises: SystemExit if it was stopped."""
    trials = ledger.trials()
    if len(trials) == ledger.search().trials and all(trial.state != "unfinished" for trial in trials):
        print(f"{len(trials)} trials are there already", flush=True)
        return
    end = compute_search(ledger, console, slots=SLOTS)
    if end.interrupted:
        raise SystemExit(end.exit_code or 1)


def choose(trials: Sequence[TrialResult], count: int, *, pair: bool) -> list[TrialResult]:
    """The trials that every arm runs: two over the cheapest generator that several have, and the first others.

    Raises: RuntimeError where ``pair`` is asked for and no two complete trials have one generator.
    """
    complete = [trial for trial in trials if trial.state == "completed"]
    users: dict[str, list[TrialResult]] = {}
    for trial in complete:
        for stage in trial.folds[0].stages:
            if stage.name == "generator":
                users.setdefault(stage.key, []).append(trial)
    pairs = sorted((each for each in users.values() if len(each) > 1), key=lambda each: _generator_seconds(each[0]))
    if pair and not pairs:
        raise RuntimeError(f"no two of {len(complete)} complete trials have one generator; nothing is shared.")
    first = pairs[0][:2] if pairs and count else []
    return [*first, *(trial for trial in complete if trial not in first)][:count]


def _generator_seconds(trial: TrialResult) -> float:
    return sum(stage.seconds for fold in trial.folds for stage in fold.stages if stage.name == "generator")


def run_plain(ledger: Ledger, chosen: Sequence[TrialResult]) -> dict[str, Any]:
    """Run the trials that have no result yet by plain Ray Tune. Returns: by trial id what ``cross_validate`` wrote."""
    write_json(ledger.folder / CONFIGS, {trial.id: trial.config for trial in chosen})
    paths = {trial.id: ledger.folder / RESULTS / f"{trial.id}.json" for trial in chosen}
    missing = [name for name, path in paths.items() if not path.exists()]
    if missing:
        param_space = {"search": str(ledger.folder), "trial": tune.grid_search(missing)}
        run_tune(cross_validate, param_space, ledger.folder / "tune", trials=1, slots=SLOTS)
    return {name: read_json(path) for name, path in paths.items()}


def _folds(data: Sequence[Mapping[str, Any]]) -> list[FoldResult]:
    return [FoldResult.from_dict(each) for each in data]


def compare(
    chosen: Sequence[TrialResult], shared: Ledger, alone: Ledger, plain: Mapping[str, Sequence[FoldResult]]
) -> dict[str, Any]:
    """Whether all scores, fidelities and predictions of all folds are the same to the last bit in the three arms."""
    numbers, different = 0, []
    for trial, other in zip(chosen, alone.trials(predictions=True), strict=True):
        arms = [shared.trial(trial.id, predictions=True).folds, other.folds, plain[trial.id]]
        told = [[_outcome(fold) for fold in sorted(folds, key=lambda each: each.fold)] for folds in arms]
        numbers += sum(len(fold.scores) + len(fold.fidelity) + len(fold.predictions) for fold in arms[0])
        if len(told[0]) != FOLDS or told[0] != told[1] or told[0] != told[2]:
            different.append(trial.id)
    return {"identical_scores": not different, "checked": len(chosen), "compared": numbers, "different": different}


def _outcome(fold: FoldResult) -> tuple[Any, ...]:
    """All that a fold found; ``repr`` tells floats apart to the last bit."""
    scores, fidelity = (sorted(each.items()) for each in (fold.scores, fold.fidelity))
    return fold.fold, repr(scores), repr(fidelity), repr(fold.predictions), dict(fold.counts)


def _replay(trials: Sequence[TrialResult], *, sharing: bool) -> Times:
    return replay(trials, folds=FOLDS, slots=SLOTS, sharing=sharing)


def _wall(trials: Sequence[TrialResult]) -> float:
    return max(each.ended or 0.0 for each in trials) - min(each.created for each in trials)


def _report(
    sampler: str,
    trials: Sequence[TrialResult],
    times: Mapping[str, Times],
    measured: Mapping[str, _Measured],
    found: Mapping[str, Any],
) -> dict[str, Any]:
    """Print one row. Returns: its figures."""
    generators = {
        key for trial in trials for fold in trial.folds for name, key in ((e.name, e.key) for e in fold.stages)
        if name == "generator"
    }  # fmt: skip
    asked = sum(stage.name == "generator" for trial in trials for fold in trial.folds for stage in fold.stages)
    print(
        f"\n{len(trials)} configurations drawn by {sampler}, {found['failed']} failed; their folds ask {asked} times "
        f"for {len(generators)} generators.\nEvery distinct stage was measured once, while 'shared' ran, and is "
        f"replayed on {SLOTS} slots."
    )
    print(
        f"{'':10} {'generator s':>12} {'wall s':>10} {'of plain':>9} {'':3}measured wall s (replay of the same trials)"
    )
    for arm in ARMS:
        row = f"{arm:10} {times[arm].generator:>12.1f} {times[arm].wall:>10.1f}"
        row += f" {times[arm].wall / times['plain'].wall:>9.2f}"
        if arm in measured:
            count = len(trials) if arm == "shared" else found["checked"]
            row += f"    {measured[arm].walls:.1f} ({measured[arm].replayed:.1f}) for {count} trials"
        print(row)
    if "checked" in found:
        verdict = "identical" if found["identical_scores"] else f"DIFFERENT in {', '.join(found['different'])}"
        print(
            f"{found['compared']} scores and predictions of {found['checked']} configurations in three arms: {verdict}"
        )
    return {
        "generator_seconds": {arm: times[arm].generator for arm in ARMS},
        "wall_seconds": {arm: times[arm].wall for arm in ARMS},
        "measured_wall_seconds": {arm: each.walls for arm, each in measured.items()},
        "replayed_wall_seconds_of_measured": {arm: each.replayed for arm, each in measured.items()},
        "generators": len(generators),
        "generators_asked_for": asked,
    }


def _subset(data: Path, path: Path, images: int) -> Path:
    """A labels table of the first images of each class, whole patients."""
    with (data / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept: set[str] = set()
    labels = sorted({row["label"] for row in rows})
    for label in labels:
        patients = [row["patient"] for row in rows if row["label"] == label]
        kept |= set(patients[: images // len(labels)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["patient"] in kept)
    return path


def _data(given: Path | None, *, may_be_phantom: bool) -> Path | None:
    """The folder of the images. Raises: SystemExit where there is none."""
    folder = os.environ.get("GENMIX_REAL_DATA")
    data = given or (Path(folder) / SET if folder else None)
    if data is not None and (data / "labels.csv").exists():
        return data.resolve()
    if given is None and may_be_phantom:
        print("GENMIX_REAL_DATA names no folder with the real image sets: this is the synthetic phantom.")
        return None
    raise SystemExit(
        f"No images are in {data or 'GENMIX_REAL_DATA, which is not set'}; name the folder of {SET} with --data, or "
        f"its parent folder with GENMIX_REAL_DATA."
    )


def _study(options: argparse.Namespace, work: Path) -> Study:
    data = _data(options.data, may_be_phantom=options.small)
    space = genmix_space(CHEAP if options.small else [])
    if options.small:
        labels = None if data is None else _subset(data, work / "labels.csv", 90)
        return Study(
            space=space, data=data, labels=labels, trials={"reuse": 10, "tpe": 6}, checked={"reuse": 6, "tpe": 0}
        )
    return Study(space=space, data=data, labels=None, trials={"reuse": 48, "tpe": 48}, checked={"reuse": 8, "tpe": 6})


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run both rows and print them."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/sharing.py", description=str(__doc__).split("\n")[0])
    parser.add_argument("--small", action="store_true", help="few configurations of one generator, few images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=f"the images (GENMIX_REAL_DATA/{SET})")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep everything here, and go on with what is there"
    )
    options = parser.parse_args(arguments)
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="genmix-sharing-") as folder:
        work = Path(folder) if options.work is None else options.work.resolve()
        try:
            study = _study(options, work)
            rows = {sampler: measure_row(study, sampler, work / sampler) for sampler in ("reuse", "tpe")}
        except InputError as error:
            raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(f"\n{time.time() - start:.0f} s")
    found = {**rows["reuse"], "tpe": rows["tpe"]}
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    if not found["identical_scores"]:
        raise SystemExit("The arms do not agree: sharing changes what is computed.")


if __name__ == "__main__":
    main()
