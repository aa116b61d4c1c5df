"""What a search with several objectives ends in: the trials that no other beats in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow_tracking.pareto_figure import ParetoPoint, pareto_figure
from mlflow_tracking.pictures import caveats
from search.objectives import Objective, front, objectives_of, trial_value
from trainables.ledger import SearchRecord
from trainables.metrics.catalogue import SECONDS
from trainables.results import TrialResult


def front_ids(ranked: Sequence[TrialResult], record: SearchRecord) -> list[str] | None:
    """The ids of the trials on the front, the best by the first objective first; None where there is one objective.

    Args:
        ranked: the trials that can be the best.
        record: the search.
    """
    return [trial.id for trial in front(ranked, objectives_of(record))] if record.further_metrics else None


def values_in_words(trial: TrialResult, record: SearchRecord) -> str:
    """A trial's objectives, as "sensitivity 0.912, seconds 14.2"."""
    values = [(each.name, trial_value(trial, each)) for each in objectives_of(record)]
    return ", ".join(f"{name} undefined" if value is None else f"{name} {value:.3f}" for name, value in values)


def introduction(record: SearchRecord) -> str:
    """What the front is a front of."""
    return f"Pareto front, {' against '.join(map(_axis, objectives_of(record)))}: no trial beats in all of them"


def draw_front(ranked: Sequence[TrialResult], record: SearchRecord, path: Path) -> bool:
    """Draw the objectives against each other; returns whether there was anything to draw."""
    if not record.further_metrics:
        return False
    objectives, on_front = objectives_of(record), front_ids(ranked, record) or []
    points = []
    for trial in ranked:
        values = [trial_value(trial, each) for each in objectives]
        defined = tuple(value for value in values if value is not None)
        if len(defined) == len(objectives):
            points.append(ParetoPoint(trial=trial.id, values=defined, on_front=trial.id in on_front))
    title = "\n".join((f"{record.name}: completed trials, means over folds", *caveats(record, uses_synthetic=True)))
    return pareto_figure(points, [_axis(each) for each in objectives], title=title, path=path)


def _axis(objective: Objective) -> str:
    unit = " a fold costs" if objective.name == SECONDS else ""
    return f"{objective.name.replace('_', ' ')}{unit} ({'more' if objective.maximize else 'less'} is better)"
