"""The crash matrix: a search is hurt in every way that happens to one, and must come to the same end each time.

Run:
    python tests/benchmarks/crash_matrix.py [--small] [--json FILE] [--fault NAME ...] [--count N] [--seed N]
                                            [--work FOLDER]

Searches run as a user runs them, in processes of their own:

- *driver*: the driver and all its Ray processes get SIGKILL at 20 random moments of a 12-trial search (space
  ``genmix``, budget ``quick``): while they start, while a fold, a stage or a checkpoint is written, at any time. It is
  resumed each time.
- *worker*: a trial's process gets SIGKILL in mid-generator.
- *signals*: SIGTERM to the driver; Ctrl-C; Ctrl-C twice; SIGTERM to every process, as a cluster's scheduler sends it.
- *node*, *cut*: one of two Ray nodes is killed; is cut off from the network (as root, with iproute2).
- *tracking*: the MLflow server, over HTTP on PostgreSQL, is killed for 60 s.
- *disk*: the storage's disk is full (a small tmpfs, as root), without and with MLflow's database on it.

Afterwards, of every search: all trials ended well; no finished fold or stage was computed again (their files are the
same, byte, inode and time of change; each classifier was last used before its fold was recorded; no stage has two folds
that say that they computed it); folds recomputed by the trial core alone over an empty store have the same scores and
predictions to the last bit; MLflow has one run for each trial, none of them RUNNING; no temporary file, lease, use or
state of a training is left in the storage, and no process.

``seconds_lost`` is the computing that was under way at the moments of the faults, since it began or since its last
checkpoint. The program ends with 1 if a guarantee did not hold. ``--small`` has short searches, SIGTERM alone
of the signals, and leaves *cut* out unless it is named.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from tests.benchmarks.crash_inside import kill_driver, kill_worker, stop_by_signals
from tests.benchmarks.crash_outside import cut_node, fill_disk, kill_node, kill_tracking
from tests.benchmarks.crash_setting import Fault, Row, Setting

KILLS, KILLS_SMALL = 20, 2
FAULTS: Mapping[str, Fault] = {
    "driver": kill_driver,
    "worker": kill_worker,
    "signals": stop_by_signals,
    "node": kill_node,
    "cut": cut_node,
    "tracking": kill_tracking,
    "disk": fill_disk,
}
_COLUMNS = ("injected", "trials_lost", "folds_recomputed", "seconds_lost", "runs_running", "compared", "wall_seconds")


def inject(setting: Setting, name: str) -> list[Row]:
    """Inject one fault; what goes wrong with it is a broken guarantee."""
    print(f"{name}", flush=True)
    start = time.monotonic()
    try:
        rows = FAULTS[name](setting)
    except Exception as error:
        rows = [Row(fault=name, broken=(f"{type(error).__name__}: {error}",))]
    took = time.monotonic() - start
    return [replace(row, wall_seconds=took / len(rows)) for row in rows]


def matrix(rows: Sequence[Row]) -> str:
    """The matrix as a Markdown table, and below it what did not hold."""
    lines = [f"| fault | {' | '.join(column.replace('_', ' ') for column in _COLUMNS)} | holds |"]
    lines.append("| --- |" + " --- |" * (len(_COLUMNS) + 1))
    for row in rows:
        holds = f"skipped: {row.skipped}" if row.skipped else "no" if row.broken else "yes"
        values = [getattr(row, column) for column in _COLUMNS]
        shown = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
        lines.append(f"| {row.fault} | {' | '.join(shown)} | {holds} |")
    lines += [f"\n{row.fault}: {problem}" for row in rows for problem in row.broken]
    return "\n".join(lines)


def _all(small: bool) -> list[str]:
    return [name for name in FAULTS if not (small and name == "cut")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hurt searches in every way, and check what comes of them.")
    parser.add_argument("--small", action="store_true", help="short searches, fewer faults")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--fault", nargs="+", choices=FAULTS, metavar="NAME", help=f"{', '.join(FAULTS)} (all)")
    parser.add_argument("--count", type=int, metavar="N", help=f"how often the driver is killed ({KILLS})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments (0)")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="an empty folder; what was computed is kept there")
    return parser.parse_args()


def main() -> int:
    """Compute the matrix and print it. Returns the exit code."""
    given = _arguments()
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
    )  # what was started is ended all the same
    with tempfile.TemporaryDirectory(prefix="crash-") as temporary:
        setting = Setting(
            work=(given.work or Path(temporary)).resolve(),
            seed=given.seed,
            small=given.small,
            kills=given.count or (KILLS_SMALL if given.small else KILLS),
        )
        rows = [row for name in given.fault or _all(given.small) for row in inject(setting, name)]
    print(f"\n{matrix(rows)}")
    if given.json is not None:
        given.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row.broken for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
