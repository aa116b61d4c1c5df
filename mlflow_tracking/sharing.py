"""What a trial's generators cost, who trained them and who found them ready: a sentence of its note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from spaces.wording import counted
from trainables.results import StageRecord, TrialResult

GENERATOR = "generator"
"""The stage that is a generator's training."""
_MOST_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Which trial trained each generator, and which ones found it ready, by the key of its stage."""

    trained: dict[str, str] = field(default_factory=dict)
    found: dict[str, list[str]] = field(default_factory=dict)

    def sentence(self, trial: TrialResult) -> str:
        """What a trial's generators cost when they were trained, by whom, and who used them; empty without any."""
        stages = {stage.key: stage for stage in generators(trial)}
        if not stages:
            return ""
        own = [key for key in stages if self.trained.get(key) == trial.id]
        others = {self.trained.get(key, "an earlier search or attempt") for key in stages if key not in own}
        users = {each for key in own for each in self.found.get(key, ()) if each != trial.id}
        parts = []
        if own:
            parts.append("trained here" + (f", found ready by {_named(users)}" if users else ""))
        if others:
            parts.append(
                f"{f'{len(stages) - len(own)} of them ' if own else ''}found ready, trained by {_named(others)}"
            )
        seconds = sum(stage.seconds for stage in stages.values())
        count = counted(len(stages), "training")
        return f"Generator: {seconds:.0f} s for {count}; {'; '.join(parts)}."


def sharing_of(trials: Sequence[TrialResult]) -> Sharing:
    """Who trained and who found what, in all trials of a search."""
    sharing = Sharing()
    for trial in trials:
        for stage in generators(trial):
            if stage.reused:
                users = sharing.found.setdefault(stage.key, [])
                users.extend([trial.id] if trial.id not in users[-1:] else [])
            else:
                sharing.trained.setdefault(stage.key, trial.id)
    return sharing


def generators(trial: TrialResult) -> list[StageRecord]:
    """The trainings of generators that a trial made or used, of all its folds."""
    return [stage for fold in trial.folds for stage in fold.stages if stage.name == GENERATOR]


def _named(trials: set[str]) -> str:
    """Trials by name, the first few of many."""
    ordered = sorted(trials)
    shown, rest = ordered[:_MOST_NAMED], len(ordered) - _MOST_NAMED
    if rest > 0:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
