"""What a reader meets on a run's page: names, and notes in Markdown."""

from __future__ import annotations

import shlex
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


_MOST_LISTED = 8
"""Trials in the table of the search's note."""
_GAP = "&nbsp;&nbsp;"
_LETTERS = 60
"""After so many the next option of a command begins a line: MLflow's page grows as wide as the longest, and is cut."""


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
    search: SearchRecord,
    trials: Sequence[TrialResult],
    *,
    state: str,
    running: Collection[str] = (),
    verdict: Sequence[str] = (),
    commands: str | None = None,
) -> str:
    """The search run's note: where it stands, what may be claimed, what is best, what it cost, how it is repeated.

    Where it stands comes first, as MLflow folds a note away after three lines. What a tag has no room for is left out
    from the end.

    Args:
        search: the search.
        trials: all of it.
        state: of the search, one word or two.
        running: ids of the unfinished trials that are computed at this moment.
        verdict: what its confirmation found, a sentence each; empty: it is not confirmed.
        commands: what runs it again.
    """
    parts = [
        "\n".join((f"**{_standing(search, trials, state, running)}**", *_renewal(state))),
        "\n".join(_verdict(verdict)),
        "\n".join(_warnings(search)).rstrip(),
        *_best(search, trials, state, is_confirmed=bool(verdict)),
        "" if state == RUNNING else _cost(trials),  # it would change with every fold
        *_again(search, commands),
    ]
    note = ""
    for part in parts:
        if part and len(note) + len(part) + 2 <= names.MAX_TAG:
            note += f"\n\n{part}" if note else part
    return note


def _verdict(sentences: Sequence[str]) -> list[str]:
    """The confirmation's first sentence stands out."""
    return [f"**{sentences[0]}**", "", *(f"- {each}" for each in sentences[1:])] if sentences else []


def _best(search: SearchRecord, trials: Sequence[TrialResult], state: str, *, is_confirmed: bool) -> list[str]:
    """The best trial, its settings, and the trials that follow it."""
    best = incumbent(search, trials)
    if best is None:
        some = any(trial.state == "completed" for trial in trials)
        return ["No completed trial can be the best." if some else "No trial is completed yet."]
    so_far = "" if state == FINISHED else " so far"
    said = f"Best{so_far} by {search.metric}: **{trial_name(best)}**, {_scored(search, best)} over the folds."
    if not is_confirmed:
        said += " Not confirmed: it was chosen on the folds that it is scored on, so this score is optimistic."
    settings = _table([("setting", "value"), *((name, format_value(value)) for name, value in best.config.items())])
    ended = [each for each in best_first(search, trials) if completed_mean(search, each) is not None][:_MOST_LISTED]
    rows = [
        (str(place), trial_name(trial), _scored(search, trial), _interval(search, trial), f"{_spent([trial])}")
        for place, trial in enumerate(ended, start=1)
    ]
    head = ("", "trial", f"{search.metric}, mean ± deviation", "95 % interval", "computed")
    return [said, settings, "### Best trials", _table([head, *rows])]


def _scored(search: SearchRecord, trial: TrialResult) -> str:
    summary = trial.score(search.metric)
    spread = "" if summary.std is None else f" ± {summary.std:.3f}"
    return "undefined" if summary.mean is None else f"{summary.mean:.3f}{spread}"


def _interval(search: SearchRecord, trial: TrialResult) -> str:
    found = trial.intervals.get(search.metric)
    return "" if found is None else f"{found.low:.3f} to {found.high:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; its headings are the first row. MLflow's page leaves no room between cells by itself."""
    lines = [[text.replace("|", "\\|").replace("\n", " ") + _GAP for text in row] for row in rows]
    lines.insert(1, [":--"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cost(trials: Sequence[TrialResult]) -> str:
    """What was computed, and what was found ready."""
    if not any(trial.folds for trial in trials):
        return ""
    stages = [stage for trial in trials for fold in trial.folds for stage in fold.stages if stage.reused]
    saved = sum(stage.seconds for stage in stages)
    shared = f"; {_brief(saved)} more would have been without the {len(stages)} stages that were reused"
    return f"Computed in all trials: {_spent(trials)}{shared if stages else ''}."


def _spent(trials: Sequence[TrialResult]) -> str:
    return _brief(sum(fold.seconds for trial in trials for fold in trial.folds))


def _brief(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else _duration(seconds)


def _again(search: SearchRecord, commands: str | None) -> list[str]:
    """How the search is repeated."""
    if commands is None:
        return []
    versions = ", ".join(f"{name} {version}" for name, version in search.versions.items())
    return [
        "### How to reproduce",
        f"```\n{_folded(commands)}\n```",
        f"Data digest {search.data.digest}, space digest {search.space.digest}, seed {search.seed}; {versions}. The "
        f"figures and the whole report are among the artifacts ({names.REPORT_FILE}).",
    ]


def _folded(commands: str) -> str:
    """Commands, a line each, in short lines that a shell takes for one."""
    return "\n".join(_folded_line(command) for command in commands.splitlines())


def _folded_line(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation that goes on in the next line
        return command
    lines: list[list[str]] = [[]]
    for word in map(shlex.quote, words):
        if word.startswith("--") and len(" ".join(lines[-1])) >= _LETTERS:
            lines.append(["   "])
        lines[-1].append(word)
    return " \\\n".join(map(" ".join, lines))


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
