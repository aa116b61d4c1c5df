"""Records the table on which searches are compared: real scores and stage times of every configuration of a space.

Run:
    python -m tests.benchmarks.record_table --data FOLDER --work FOLDER [--images 300] [--part 0/1]
    python -m tests.benchmarks.record_table --data FOLDER --work FOLDER --time
    python -m tests.benchmarks.record_table --work FOLDER --write

Every configuration of ``TABLE_SPACE`` is scored on three patient-grouped folds, twice (on other folds the second time),
under the budget ``quick``, with stages shared through a store in the working folder. A recording that was stopped goes
on. ``--time`` then measures what each kind of stage costs, in CPU seconds of one thread, in one fold and an empty
store: folds are equally large, and what else the machine did while scores were computed says nothing. ``--write`` packs
both into ``tables/cxr_quick.json``, which ``recorded_table`` reads.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from spaces.budget import budget_named
from spaces.config import trial_config
from spaces.protocol import Protocol
from spaces.space import Assignment
from tests.benchmarks.recorded_table import BUDGET, FOLDS, REPEATS, SCORES, TABLE, TABLE_SPACE, kind_of, write_table
from trainables.data.evaluations import evaluations
from trainables.data.labels import LabelTable
from trainables.data.source import Source
from trainables.errors import FinalTrialError
from trainables.fold import Environment
from trainables.session import use_threads
from trainables.stages import StageStore
from trainables.trial import run_trial

SEED = 0
TIMES = "times.json"


def configurations() -> list[Assignment]:
    """Every configuration of the table, shuffled."""
    found = list(TABLE_SPACE.grid(2))
    random.Random(SEED).shuffle(found)
    return found


def _environment(work: Path, data: Path, images: int, store: StageStore) -> Environment:
    source = Source(
        data=str(data), labels=None, split_file=None, slice_rule=None, skip_bad_images=False, is_phantom=False
    )
    table = source.table()
    kept = _patients(table, images)
    cohort = source.decode(table.part(kept, inside=True), cache=work / "images", on_progress=lambda done, total: None)
    return Environment(
        cohort=cohort,
        store=store,
        seed=SEED,
        positive=1,
        device=torch.device("cpu"),
        threads=1,
        report=lambda stage, done, total: None,
    )


def _patients(table: LabelTable, images: int) -> list[str]:
    """The first so many images, whole patients, in an order that the seed has shuffled."""
    patients = sorted({row.patient for row in table.rows})
    random.Random(SEED).shuffle(patients)
    by_patient: dict[str, list[str]] = {}
    for row in table.rows:
        by_patient.setdefault(row.patient, []).append(row.id)
    kept: list[str] = []
    for patient in patients:
        if len(kept) < images:
            kept += by_patient[patient]
    return kept


def record(work: Path, data: Path, images: int, part: int, parts: int) -> None:
    """Compute what is missing, a line of JSON for each evaluation."""
    use_threads(1)
    environment = _environment(work, data, images, StageStore(work / "stages"))
    splits = evaluations(environment.cohort, Protocol(folds=FOLDS, repeats=REPEATS), seed=SEED)
    path = work / f"rows-{part}.jsonl"
    done = {(json.dumps(row["config"]), row["fold"]) for row in _rows(work)}
    with path.open("a", encoding="utf-8") as file:
        for index, config in enumerate(configurations()):
            for split in splits if index % parts == part else ():
                if (json.dumps(config), split.fold) in done:
                    continue
                row: dict[str, Any] = {"config": config, "fold": split.fold}
                start = time.perf_counter()
                try:
                    result = next(run_trial(trial_config(config, budget_named(BUDGET)), [split], environment)).result
                    row["scores"] = {name: result.scores[name] for name in SCORES}
                    row["copy_rate"] = result.fidelity.get("copy_rate")
                    row["stages"] = [[each.name, each.key, round(each.seconds, 4)] for each in result.stages]
                except FinalTrialError as error:
                    row["error"] = f"{type(error).__name__}: {error}"
                row["seconds"] = round(time.perf_counter() - start, 3)
                file.write(json.dumps(row) + "\n")
                file.flush()


def measure(work: Path, data: Path, images: int) -> None:
    """Measure what each kind of stage costs, from configurations that together have them all."""
    use_threads(1)
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(work, data, images, StageStore(Path(folder), clock=time.process_time))
        split = evaluations(environment.cohort, Protocol(folds=FOLDS, repeats=REPEATS), seed=SEED)[0]
        for config in configurations():
            names = ["preprocess", "classifier", *(["generator", "fidelity"] if "generator.name" in config else [])]
            if all(kind_of(name, config) in times for name in names):
                continue
            for stage in next(
                run_trial(trial_config(config, budget_named(BUDGET)), [split], environment)
            ).result.stages:
                times.setdefault(kind_of(stage.name, config), round(stage.seconds, 4))
            print(len(times), flush=True)
    (work / TIMES).write_text(json.dumps(times, indent=1), encoding="utf-8")


def _rows(work: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(work.glob("rows-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def main(arguments: Sequence[str] | None = None) -> None:
    """Record a part of the table, or pack what was recorded."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.record_table", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="a data set of two classes")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="where rows and stages are kept")
    parser.add_argument("--images", type=int, default=300, help="how many at least (default 300)")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="every N-th configuration from the I-th on")
    parser.add_argument("--time", action="store_true", help="measure what stages cost instead")
    parser.add_argument("--write", action="store_true", help="pack what was recorded instead")
    given = parser.parse_args(arguments)
    if given.write:
        times = json.loads((given.work / TIMES).read_text(encoding="utf-8"))
        print(write_table(_rows(given.work), times, TABLE))
        return
    if given.data is None:
        parser.error("--data names the folder of images that a recording needs")
    if given.time:
        measure(given.work, given.data, given.images)
        return
    first, _, many = given.part.partition("/")
    record(given.work, given.data, given.images, int(first), int(many))


if __name__ == "__main__":
    main()
