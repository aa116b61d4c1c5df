"""A search's score by the proportion of synthetic images, for the picture that ``sweep_ratio`` ends in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow_tracking.pictures import caveats
from mlflow_tracking.ratio_figure import ScoreAtRatio, ratio_figure
from spaces.presets.sweep_ratio import GENERATORS, SWEEP_RATIO
from spaces.space import GENERATOR_NAME
from trainables.ledger import SearchRecord
from trainables.pooled_intervals import score_intervals
from trainables.results import TrialResult


def draw_ratio_figure(record: SearchRecord, trials: Sequence[TrialResult], path: Path) -> bool:
    """Draw the search's metric against the proportion of synthetic images, from the trials completed so far.

    Args:
        record: the search.
        trials: all of it.
        path: the PNG file to write.

    Returns:
        Whether there was anything to draw: other searches than those of ``sweep_ratio`` have no such picture.
    """
    if record.space.name != SWEEP_RATIO.name:
        return False
    lines: dict[str, list[ScoreAtRatio]] = {name: [] for name in GENERATORS.values()}
    baseline: ScoreAtRatio | None = None
    for trial in trials:
        point = _point(record, trial) if trial.state == "completed" else None
        generator = GENERATORS.get(str(trial.config.get(GENERATOR_NAME)))
        if point is not None and generator is not None:
            lines[generator].append(point)
        elif point is not None:
            baseline = point
    ordered = {name: sorted(points, key=lambda point: point.ratio) for name, points in lines.items()}
    score = record.metric.replace("_", " ")
    title = "\n".join(
        (
            f"{record.name}: {score} against the proportion of synthetic images",
            "All out-of-fold predictions; bars and band: 95 % intervals by bootstrap over patients",
            *caveats(record, uses_synthetic=True),
        )
    )
    return ratio_figure(ordered, baseline, score=score, title=title, path=path)


def _point(record: SearchRecord, trial: TrialResult) -> ScoreAtRatio | None:
    """A trial's score: with its interval where it has one, the mean over folds otherwise."""
    ratio = float(trial.config.get("synthetic.ratio", 0.0))
    interval = score_intervals(trial, record).get(record.metric)
    if interval is not None:
        return ScoreAtRatio(ratio=ratio, score=interval.estimate, low=interval.low, high=interval.high)
    summary = trial.scores.get(record.metric)
    if summary is None or summary.mean is None:
        return None
    return ScoreAtRatio(ratio=ratio, score=summary.mean, low=None, high=None)
