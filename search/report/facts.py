"""What a report is written from: a search's record and what lies in its folder, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mlflow_tracking.names import CONFIRMATION_FILE
from search.commands import confirm_command, resume_command
from search.objectives import objectives_of, trial_value
from search.outcome import policy, rank
from search.report.reproduce import Recipe, recipe
from spaces.space import GENERATOR_NAME
from trainables.data.locked import LockedTest
from trainables.files import read_json
from trainables.ledger import SHARED, Ledger, SearchRecord
from trainables.results import TrialResult

MOST_TIMED = 60
"""Trials whose stages' times are read: a timeline of more cannot be read, and each is a file."""
_OWN_STAGES = "stages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """When and where a stage was computed.

    Args:
        ended: seconds since the epoch, by the clock of who computed it.
        host: the computer.
        device: such as "cpu".
    """

    ended: float
    host: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a report says is computed from this.

    Args:
        record: of the search.
        trials: all of it, in the order in which they were proposed, without predictions.
        ranked: those that can be the best, best first.
        best: the first of these, with its predictions; None where there is none.
        baseline: the trial without augmentation, with its predictions; None where it is not complete.
        verdict: what the confirmation found; None: not confirmed.
        computed: of the stages that the last trials computed, by key; those that are gone are missing.
        recipe: how the search is run again.
        confirm: the command that confirms it.
        resume: the command that goes on with it.
        best_yaml: the content of ``best.yaml``; None where there is none.
    """

    record: SearchRecord
    trials: tuple[TrialResult, ...]
    ranked: tuple[TrialResult, ...] = ()
    best: TrialResult | None = None
    baseline: TrialResult | None = None
    verdict: Mapping[str, Any] | None = None
    computed: Mapping[str, Computed] = field(default_factory=lambda: MappingProxyType({}))
    recipe: Recipe
    confirm: str
    resume: str
    best_yaml: str | None = None

    @property
    def metric(self) -> str:
        """The search's score in words."""
        return self.record.metric.replace("_", " ")

    @property
    def ended(self) -> tuple[TrialResult, ...]:
        """The trials that have ended, in the order in which they did."""
        known = [trial for trial in self.trials if trial.ended is not None]
        return tuple(sorted(known, key=lambda trial: (trial.ended or 0.0, trial.id)))

    @property
    def completed(self) -> tuple[TrialResult, ...]:
        """The completed trials whose score is defined, in the order in which they were proposed."""
        return tuple(each for each in self.trials if each.state == "completed" and self.value(each) is not None)

    def value(self, trial: TrialResult) -> float | None:
        """A trial's score: what it is ranked by, the mean over its folds; None where it is undefined."""
        return trial_value(trial, objectives_of(self.record)[0])

    def interval(self, trial: TrialResult) -> tuple[float, float] | None:
        """The 95 % interval of a completed trial's score over patients; None where it has none."""
        found = trial.intervals.get(self.record.metric)
        return None if found is None else (found.low, found.high)

    def policy(self, trial: TrialResult) -> str:
        """A trial's configuration in a few words, and which reference it is."""
        words = policy(trial.config, self.record.space)
        return f"{words} (reference: {trial.reference})" if trial.reference else words

    def about(self, trial: TrialResult) -> str:
        """What is said of a trial where it is pointed at."""
        value, ends = self.value(trial), self.interval(trial)
        score = "undefined" if value is None else f"{value:.3f}"
        interval = "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
        return f"{trial.id}: {self.metric} {score}{interval}\n{self.policy(trial)}"


def read_facts(ledger: Ledger) -> Facts:
    """Read what a report needs of a search; predictions of two trials only."""
    record, trials = ledger.search(), ledger.trials()
    ranked = rank(trials, record)
    baselines = [each for each in trials if each.reference == "none" and each.state == "completed"]
    best_yaml = ledger.folder / "best.yaml"
    return Facts(
        record=record,
        trials=tuple(trials),
        ranked=tuple(ranked),
        best=ledger.trial(ranked[0].id, predictions=True) if ranked else None,
        baseline=ledger.trial(baselines[0].id, predictions=True) if baselines else None,
        verdict=_verdict(ledger.folder),
        computed=_computed(ledger, trials[-MOST_TIMED:]),
        recipe=recipe(record, locked=_locked(ledger.folder), folder=ledger.folder),
        confirm=confirm_command(ledger),
        resume=resume_command(ledger),
        best_yaml=best_yaml.read_text(encoding="utf-8") if best_yaml.exists() else None,
    )


def _locked(folder: Path) -> LockedTest | None:
    """The locked test set; None where there is none that can be read."""
    try:
        return LockedTest.read(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _verdict(folder: Path) -> Mapping[str, Any] | None:
    """A confirmation's record; None where there is none that can be read."""
    try:
        found: Mapping[str, Any] = read_json(folder / CONFIRMATION_FILE)
        return found if found["sentences"] and found["rows"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _computed(ledger: Ledger, trials: Sequence[TrialResult]) -> Mapping[str, Computed]:
    """When the stages that these trials computed were done, as far as they are still there."""
    shared, found = ledger.storage / SHARED / "stages", dict[str, Computed]()
    for trial in trials:
        root = shared if ledger.search().sharing else ledger.trial_folder(trial.id) / _OWN_STAGES
        for stage in (stage for fold in trial.folds for stage in fold.stages if not stage.reused):
            try:
                manifest = read_json(root / stage.name / stage.key / "stage.json")
                found[stage.key] = Computed(
                    ended=float(manifest["created"]),
                    host=str(manifest.get("host", "")),
                    device=str(manifest.get("device", "")),
                )
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return found


def generator(trial: TrialResult) -> str:
    """The generator of a trial, or "none"."""
    return str(trial.config.get(GENERATOR_NAME, "none"))
