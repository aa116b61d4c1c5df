"""What the faults are injected into, and what every search must have come to afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks import crash_runs, crash_store
from tests.benchmarks.crash_alone import Alone
from tests.benchmarks.crash_search import CrashSearch
from tests.benchmarks.crash_store import Snapshot

_SPACE = """
name: crash
description: trials of seconds, one in three with a generator that trains long enough to be killed
dimensions:
  - {{name: mixer.name, type: choice, options: [real, mixup, genmix], default: genmix}}
  - {{name: generator.name, type: choice, options: [dcgan], default: dcgan, when: {{mixer.name: [genmix]}}}}
  - {{name: generator.steps, type: int, low: {steps}, high: {steps}, default: {steps}, when: {{mixer.name: [genmix]}}}}
  - {{name: mixer.mixup_alpha, type: float, low: 0.1, high: 1.0, default: 0.2, when: {{mixer.name: [mixup]}}}}
  - {{name: mixer.genmix_alpha, type: float, low: 0.1, high: 1.0, default: 0.3, when: {{mixer.name: [genmix]}}}}
  - {{name: synthetic.ratio, type: float, low: 0.25, high: 1.0, default: 1.0, when: {{mixer.name: [genmix]}}}}
  - {{name: affine, type: choice, options: [false, true], default: false}}
  - {{name: classifier.epochs, type: int, low: 3, high: 3, default: 3}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of one fault.

    Args:
        fault: its name.
        injected: how often.
        trials_lost: trials that failed, or are not there.
        folds_recomputed: finished folds, and finished stages, that were computed again.
        seconds_lost: of computing that was done and had to be done again, over all injections.
        runs_running: runs that MLflow calls running although nothing runs.
        compared: folds that were compared with the trial core alone.
        wall_seconds: of the whole fault.
        broken: guarantees that did not hold, in words.
        skipped: why it could not be injected here.
        details: what else was measured.
    """

    fault: str
    injected: int = 0
    trials_lost: int = 0
    folds_recomputed: int = 0
    seconds_lost: float = 0.0
    runs_running: int = 0
    compared: int = 0
    wall_seconds: float = 0.0
    broken: tuple[str, ...] = ()
    skipped: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the matrix is computed.

    Args:
        work: a folder for all searches.
        seed: of the moments.
        small: short searches and outages.
        kills: how often the driver is killed.
        checkpoint_seconds: between two checkpoints of a training.
    """

    work: Path
    seed: int
    small: bool
    kills: int
    checkpoint_seconds: float = 1.0

    @property
    def alone(self) -> Alone:
        """Folds computed by the trial core alone."""
        return Alone(self.work / "alone")

    @property
    def folds(self) -> int:
        """Of each trial."""
        return 2 if self.small else 3

    @property
    def sample(self) -> int:
        """How many folds of a search are compared with them."""
        return 2 if self.small else 6

    def main(self) -> tuple[list[str], int]:
        """Arguments of the search whose driver is killed, and its trials: the main job under the budget quick."""
        if self.small:
            return self.short(4)
        return ["--space", "genmix", "--budget", "quick", "--trials", "12"], 12

    def short(self, trials: int) -> tuple[list[str], int]:
        """Arguments of a search of some seconds, and its trials: the fourth one trains a generator in each fold."""
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / "crash.yaml"
        path.write_text(_SPACE.format(steps=STEPS[self.small]), encoding="utf-8")
        given = ["--space", str(path), "--budget", "quick", "--folds", str(self.folds), "--trials", str(trials)]
        return given, trials

    def search(self, name: str, arguments: Sequence[str], **further: Any) -> CrashSearch:
        """A search of that name, two trials at once, not yet started; ``further`` as ``CrashSearch`` has it."""
        attempts = [
            "--concurrency",
            "2",
            "--cpus-per-trial",
            "1",
            "--checkpoint-every",
            f"{self.checkpoint_seconds:g}s",
        ]
        return CrashSearch(self.work / name, arguments, attempts=[*attempts, *further.pop("attempts", ())], **further)

    def judge(
        self,
        search: CrashSearch,
        *,
        fault: str,
        trials: int,
        injected: int,
        seconds_lost: float = 0.0,
        snapshots: Sequence[Snapshot] = (),
        broken: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> Row:
        """Check a search that has ended against everything that must hold of one.

        Args:
            search: it.
            fault: the row's name.
            trials: how many it must have.
            injected: how often.
            seconds_lost: as in ``Row``.
            snapshots: of the moments of the faults.
            broken: what did not hold before.
            details: for the row.
        """
        ledger = search.ledger
        states = [trial.state for trial in ledger.trials()]
        well = sum(state in ("completed", "pruned") for state in states)
        now = Snapshot.take(ledger)
        again = [*dict.fromkeys(change for earlier in snapshots for change in earlier.changed(now))]
        again += crash_store.folds_recomputed(ledger) + crash_store.stages_twice(ledger)
        found = [*broken, *again, *crash_store.settle(ledger), *crash_store.half_written(ledger)]
        if well != trials or len(states) != trials:
            found.append(f"of {trials} trials {well} ended well: {states}")
        found += crash_runs.runs_broken(search.tracking_uri, ledger)
        found += [f"process {pid} is still there" for pid in search.strays()]
        found += self.alone.broken(ledger, self.sample, seed=self.seed)
        return Row(
            fault=fault,
            injected=injected,
            trials_lost=trials - well,
            folds_recomputed=len(again),
            seconds_lost=seconds_lost,
            runs_running=crash_runs.running(search.tracking_uri),
            compared=self.sample,
            broken=tuple(found),
            details=details or {},
        )


STEPS: Mapping[bool, int] = {True: 120, False: 400}
"""Steps of the generator of short searches, in a small matrix and in a full one."""
Fault = Callable[[Setting], list[Row]]
