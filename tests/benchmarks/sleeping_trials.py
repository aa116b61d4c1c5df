"""Trials that sleep in place of computing, for the slots of a real search to be watched.

In a module of their own, so that Ray's processes can import them however the benchmark was started.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from spaces.config import TrialConfig
from tests.benchmarks.noop_trials import instant_trial
from trainables import tune_trainable
from trainables.data.splits import FoldSplit
from trainables.fold import Environment, FoldOutcome
from trainables.ledger import Ledger
from trainables.results import FoldResult
from trainables.tune_trainable import FoldTrainable

_LENGTH, _SLEPT = "sleep.json", "slept.jsonl"


def set_length(ledger: Ledger, seconds: float) -> None:
    """Say how long each fold of a search sleeps."""
    (ledger.folder / _LENGTH).write_text(json.dumps(seconds), encoding="utf-8")


def slept(ledger: Ledger) -> list[list[tuple[float, float]]]:
    """When each trial that ran slept, from and to, in seconds since the epoch."""
    files = (ledger.trial_folder(trial_id) / _SLEPT for trial_id in ledger.trial_ids())
    texts = [file.read_text(encoding="utf-8") for file in files if file.exists()]
    return [[(start, end) for start, end in map(json.loads, text.splitlines())] for text in texts]


class SleepingFolds(FoldTrainable):
    """This project's trainable, with all that it does for a fold, but the fold's computation is a sleep."""

    def setup(self, config: dict[str, Any]) -> None:
        """See ``FoldTrainable``; only this process, which runs nothing else, sleeps."""
        seconds = json.loads((Path(config["search"]) / _LENGTH).read_text(encoding="utf-8"))
        self._spans: list[tuple[float, float]] = []

        def sleep(config: TrialConfig, splits: Sequence[FoldSplit], environment: Environment) -> Iterator[FoldOutcome]:
            start = time.time()
            time.sleep(seconds)
            self._spans.append((start, time.time()))
            yield from instant_trial(config, splits, environment)

        mock.patch.object(tune_trainable, "run_trial", sleep).start()
        super().setup(config)

    def _next(self) -> FoldResult:
        result = super()._next()
        folder = self._session.ledger.trial_folder(self._trial_id)
        with (folder / _SLEPT).open("a", encoding="utf-8") as file:
            file.write(json.dumps(self._spans.pop()) + "\n")
        return result
