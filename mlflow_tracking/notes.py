"""What a reader meets on a run's page: names, and notes in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from mlflow_tracking import names
from spaces.parameter import format_value
from trainables.ledger import SearchRecord
from trainables.metrics.catalogue import maximizes
from trainables.results import TrialResult

RUNNING = "running"
FINISHED = "finished"
INTERRUPTED = "interrupted"
ELSEWHERE = "running elsewhere"
"""What a copy says of a search, and of its trials, that go on where another server is written to."""


def trial_name(trial: TrialResult) -> str:
    """The run name of a trial: its id and what tells it apart at a glance, as in ``t0003 genmix dcgan``."""
    if trial.reference is not None:
        return f"{trial.id} reference {trial.reference}"
    config = trial.config
    parts = [str(config.get("mixer.name", "trial"))]
    generator = str(config.get("generator.name", "none"))
    if generator != "none":
        parts.append(generator)
    if config.get("affine") is True:
        parts.append("affine")
    return " ".join((trial.id, *parts))


def confirm_name(trial: TrialResult, searched_as: str | None) -> str:
    """The run name of a confirmed trial, as in ``confirm t0007 genmix dcgan``: the id is that of the search's trial."""
    what = trial_name(trial).removeprefix(f"{trial.id} ")
    return f"confirm {what}" if searched_as is None else f"confirm {searched_as} {what}"


def incumbent(search: SearchRecord, trials: Sequence[TrialResult]) -> TrialResult | None:
    """The trial with the best ``completed_mean``; the earlier one wins a tie."""
    scored = [(each, mean) for each in trials if (mean := completed_mean(search, each)) is not None]
    best = max if maximizes(search.metric) else min
    return best(scored, key=lambda pair: pair[1])[0] if scored else None


def completed_mean(search: SearchRecord, trial: TrialResult) -> float | None:
    """What trials are ranked by: the mean of the search's metric, of completed trials that keep to its copy rate."""
    ranked = trial.state == "completed" and trial.feasible(search.max_copy_rate)
    return mean_score(search, trial) if ranked else None


def best_first(search: SearchRecord, trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The trials that have ended: the completed ones, best first, then the others in their order."""
    sign = -1 if maximizes(search.metric) else 1
    ranks = {each.id: completed_mean(search, each) for each in trials}
    ended = [each for each in trials if each.state != "unfinished"]
    return sorted(ended, key=lambda each: (ranks[each.id] is None, sign * (ranks[each.id] or 0.0)))


def mean_score(search: SearchRecord, trial: TrialResult) -> float | None:
    """A trial's mean of the search's metric, None where it is undefined."""
    return trial.score(search.metric).mean


def search_note(
    search: SearchRecord, trials: Sequence[TrialResult], *, state: str, running: Collection[str] = ()
) -> str:
    """The search run's note: where it stands, what to be wary of, what is best.

    Where it stands comes first, as MLflow folds a note away after three lines.

    Args:
        search: the search.
        trials: all of it.
        state: of the search, one word or two.
        running: ids of the unfinished trials that are computed at this moment.
    """
    lines = [f"**{_standing(search, trials, state, running)}**", *_renewal(state), "", *_warnings(search)]
    best = incumbent(search, trials)
    if best is None:
        some = any(trial.state == "completed" for trial in trials)
        none_yet = "No completed trial can be the best." if some else "No trial is completed yet."
        return "\n".join((*lines, none_yet))
    summary = best.score(search.metric)
    spread = "" if summary.std is None else f" (standard deviation over folds {summary.std:.3f})"
    lines += [f"Best so far by {search.metric}: **{trial_name(best)}**, mean {summary.mean:.3f}{spread}.", ""]
    lines += ["| setting | value |", "|---|---|"]
    lines += [f"| {name} | {format_value(value)} |" for name, value in best.config.items()]
    lines += ["", "It was chosen on the folds that it is scored on, so this score is optimistic."]
    return "\n".join(lines)


def _warnings(search: SearchRecord) -> list[str]:
    lines = []
    if search.data.is_phantom:
        lines += ["> **Synthetic phantom data**: no patients; the scores say nothing about any disease.", ""]
    if search.budget == "quick":
        lines += [
            "> **Demonstration** (budget quick): the generators are undertrained; the scores show that it runs, not "
            "what helps.",
            "",
        ]
    if not search.show_images:
        lines += [
            "> **No images** (--no-images): patients' images are kept out, and so are synthetic ones, as they may be "
            "copies of patients.",
            "",
        ]
    return lines


def _standing(search: SearchRecord, trials: Sequence[TrialResult], state: str, running: Collection[str]) -> str:
    """How many trials ended how, or are computed."""
    counts = Counter("running" if trial.id in running else trial.state for trial in trials)
    shown = ("completed", "pruned", "failed", "running", "unfinished")
    parts = [f"{counts[each]} {each}" for each in shown if counts[each]]
    return f"{state.capitalize()}: {', '.join(parts) or 'no trial yet'}, of {search.trials} wanted."


def _renewal(state: str) -> list[str]:
    """How a reader sees whether what is said to run does run."""
    if state == RUNNING:
        return [f"The tag `{names.WRITTEN}` is renewed every minute while the search runs."]
    if state == ELSEWHERE:
        return [f"Copied while the search ran elsewhere, at the time that the tag `{names.WRITTEN}` says."]
    return []


def progress(search: SearchRecord, trials: Sequence[TrialResult], *, seconds_left: float | None) -> str:
    """How far a search is, as in ``8/12 ended, 15 min left``: short, as pages cut tags."""
    ended = sum(trial.state != "unfinished" for trial in trials)
    left = f", {_duration(seconds_left)} left" if seconds_left is not None else ""
    return f"{ended}/{max(search.trials, len(trials))} ended{left}"


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} d"


def trial_note(search: SearchRecord, trial: TrialResult) -> str:
    """A trial run's note: how it ended, and why if it failed."""
    has_locked = any(fold.locked for fold in trial.folds)
    done = f"{len(trial.folds)} of {search.folds} {'trainings' if has_locked else 'folds'}"
    if trial.state == "failed":
        return f"**Failed** after {done}: {trial.error or 'no reason was recorded'}"
    if trial.state == "pruned":
        reason = f": {trial.error}" if trial.error else ", as it was doing worse than the best one on the same folds"
        return f"**Stopped early** after {done}{reason}"
    mean = mean_score(search, trial)
    score = "undefined" if mean is None else f"{mean:.3f}"
    return f"**Completed**: {done}, mean {search.metric} {score}{_locked(search, trial)}{_fidelity(search, trial)}"


def _locked(search: SearchRecord, trial: TrialResult) -> str:
    """The score on the locked test set; nothing where there is none."""
    summary = trial.locked_scores.get(search.metric)
    return "" if summary is None or summary.mean is None else f", on the locked test set {summary.mean:.3f}"


def _fidelity(search: SearchRecord, trial: TrialResult) -> str:
    """How good the trial's synthetic images are, in a paragraph of its own; nothing where it has none."""
    means = {measure: summary.mean for measure, summary in trial.fidelity.items()}
    parts = [
        f"{name} {mean:.3g}"
        for name, measure in (("KID", "kid"), ("coverage", "coverage"), ("copy rate", "copy_rate"))
        if (mean := means.get(measure)) is not None
    ]
    if not parts:
        return ""
    text = f"\n\nSynthetic images, mean over folds: {', '.join(parts)}."
    if not trial.feasible(search.max_copy_rate):
        text += f" **Too many copies**: above the search's limit of {search.max_copy_rate:g}, so it cannot be the best."
    return text
