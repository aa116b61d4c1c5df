"""Folds computed by the trial core alone, each over an empty stage store: what a search must come to, to the last bit.

Run by the crash matrix as a program of its own, so that nothing of Ray or of another computation is in the process:
    python tests/benchmarks/crash_alone.py SEARCH_FOLDER RESULTS_FOLDER TRIAL:FOLD ...
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from spaces.space import digest_of
from trainables.files import read_json, write_json
from trainables.ledger import Ledger

_COMPARED = ("scores", "predictions", "fidelity", "counts")
_LIMIT = 900.0


class Alone:
    """Folds that were computed alone, kept in a folder: equal ones of several searches are computed once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def broken(self, ledger: Ledger, count: int, *, seed: int) -> list[str]:
        """Compare folds on record with what the trial core alone makes of them.

        Args:
            ledger: of a search.
            count: how many folds; half of them, if there are so many, with a generator.
            seed: of the choice.

        Returns:
            Which differ, and in what.
        """
        pairs = _choose(ledger, count, seed=seed)
        missing = [pair for pair in pairs if not self._path(ledger, pair).exists()]
        if missing:
            program = [sys.executable, str(Path(__file__).resolve()), str(ledger.folder), str(self._folder)]
            subprocess.run([*program, *missing], check=True, timeout=_LIMIT)
        return [difference for pair in pairs for difference in self._differences(ledger, pair)]

    def _path(self, ledger: Ledger, pair: str) -> Path:
        return self._folder / f"{_key(ledger, pair)}.json"

    def _differences(self, ledger: Ledger, pair: str) -> list[str]:
        trial, _, fold = pair.partition(":")
        recorded = read_json(ledger.trial_folder(trial) / f"fold_{fold}.json")
        alone = read_json(self._path(ledger, pair))
        return [
            f"{pair}: {part} differ from those computed alone" for part in _COMPARED if recorded[part] != alone[part]
        ]


def _choose(ledger: Ledger, count: int, *, seed: int) -> list[str]:
    plain: list[str] = []
    generated: list[str] = []
    for trial in ledger.trials():
        for fold in trial.folds:
            kind = generated if any(stage.name == "generator" for stage in fold.stages) else plain
            kind.append(f"{trial.id}:{fold.fold}")
    rng = random.Random(seed)
    chosen = rng.sample(generated, min(len(generated), max((count + 1) // 2, count - len(plain))))
    return sorted(chosen + rng.sample(plain, min(len(plain), count - len(chosen))))


def _key(ledger: Ledger, pair: str) -> str:
    """What a fold's numbers depend on, as a file's name."""
    trial, _, fold = pair.partition(":")
    record = ledger.search().to_dict()
    which = {name: record[name] for name in ("budget", "seed", "threads", "protocol")}
    which |= {"data": record["data"]["digest"], "config": dict(ledger.trial(trial).config), "fold": int(fold)}
    return digest_of(which, digits=32)


def _compute(search: Path, results: Path, pairs: Sequence[str]) -> None:
    from spaces.config import trial_config
    from trainables.fold import Environment
    from trainables.session import Session, use_threads
    from trainables.stages import StageStore
    from trainables.trial import best_device, run_trial

    session = Session.open(search)
    use_threads(session.record.threads)
    for pair in pairs:
        trial, _, fold = pair.partition(":")
        with tempfile.TemporaryDirectory() as empty:
            environment = Environment(
                cohort=session.cohort,
                store=StageStore(Path(empty)),
                seed=session.record.seed,
                positive=session.record.data.positive,
                device=best_device(0.0),
                threads=session.record.threads,
                report=lambda stage, done, total: None,
            )
            config = trial_config(session.ledger.trial(trial).config, session.budget)
            outcome = next(run_trial(config, [session.splits[int(fold)]], environment))
            found: dict[str, Any] = outcome.result.to_dict()
        write_json(results / f"{_key(session.ledger, pair)}.json", found)


if __name__ == "__main__":
    _compute(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
