"""The parts of a report that are text and tables: verdict, how to repeat it, leaderboard, what to be wary of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.objectives import objectives_of
from search.outcome import cautions, format_interval, format_score
from search.report.facts import Facts
from search.report.markup import Markup, definitions, joined, table, tag
from spaces.wording import counted
from trainables.metrics.catalogue import SECONDS
from trainables.metrics.interval import Interval
from trainables.pooled_intervals import score_intervals
from trainables.results import Summary, TrialResult

MOST_LISTED = 25
"""Trials in the leaderboard; the rest is folded away below it."""
MOST_FOLDED = 300
CLINICAL = (
    "Not for clinical use: this compares ways to train a classifier; neither the classifiers nor the synthetic images "
    "are fit for any decision about a patient, and synthetic images have to stay marked as such."
)
_FIDELITY = ("kid", "copy_rate")
_SCORES = ("balanced_accuracy", "auroc", "accuracy", "macro_f1")


def header(facts: Facts) -> Markup:
    """The name of the search, where it stands, and what everybody has to see first."""
    record = facts.record
    states = ("completed", "pruned", "failed", "unfinished")
    counts = {state: sum(trial.state == state for trial in facts.trials) for state in states}
    ended = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial yet"
    badges = ["not for clinical use"]
    badges += ["synthetic phantom data"] if record.data.is_phantom else []
    badges += ["budget quick: a demonstration"] if record.budget == "quick" else []
    badges += [] if record.data.patients_known else ["patients unknown"]
    return tag(
        "header",
        tag("h1", record.name),
        tag(
            "p",
            f"Search of the space {record.space.name} for {facts.metric}, budget {record.budget}: {ended}, of "
            f"{record.trials} wanted.",
            class_="soft",
        ),
        tag("div", *(tag("span", each, class_="badge") for each in badges), class_="badges"),
    )


def verdict(facts: Facts) -> Markup:
    """What may be claimed and how sure it is; without a confirmation, that nothing is confirmed."""
    told = facts.verdict
    if told is None:
        return joined((*_not_confirmed(facts), _key_numbers(facts)))
    first, *others = map(str, told["sentences"])
    best, was = (facts.ranked[0].id if facts.ranked else None), told["rows"][0].get("searched_as")
    outdated = None
    if best is not None and was != best:
        outdated = tag(
            "p",
            f"The search has gone on since: its best trial is {best} now, and this verdict is that of {was}.",
            class_="caution",
        )
    return joined(
        (
            tag("p", first, class_="verdict"),
            outdated,
            tag("ul", *(tag("li", each) for each in others)) if others else None,
            _confirmed_table(told["rows"], facts),
            _key_numbers(facts),
        )
    )


def _not_confirmed(facts: Facts) -> list[Markup]:
    if not facts.ranked:
        sentence = "No trial can be the best yet, so there is no verdict."
        return [tag("p", sentence, class_="verdict"), command(facts.resume)]
    best = facts.ranked[0]
    value, ends = facts.value(best), facts.interval(best)
    interval = "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return [
        tag(
            "p",
            f"Not confirmed. The best trial so far, {best.id}, has {facts.metric} {value:.3f}{interval}.",
            class_="verdict",
        ),
        tag(
            "p",
            "It was chosen by the scores that are shown here, which are hopeful for that reason. Whether it beats the "
            "reference policies on fresh splits is what this command finds out:",
        ),
        command(facts.confirm),
    ]


def _confirmed_table(rows: Sequence[dict[str, Any]], facts: Facts) -> Markup:
    tested = any(row.get("locked") for row in rows)
    head = ["policy", "search", "confirmed", "95 % interval", *(("locked test", "95 % interval") if tested else ())]
    body = []
    for row in rows:
        role = f" (reference: {row['role']})" if row["role"] else ""
        searched = "" if row["searched"] is None else f"{row['searched']:.3f}"
        cells = [f"{row['policy']}{role}", searched, _summary(row["score"]), _interval(row["interval"])]
        body.append([*cells, *((_summary(row["locked"]), _interval(row["locked_interval"])) if tested else ())])
    return table([head, *body], class_="confirmed")


def _summary(found: dict[str, float | None] | None) -> str:
    return "" if found is None else format_score(Summary(mean=found["mean"], std=found["std"]))


def _interval(found: dict[str, Any] | None) -> str:
    return "" if found is None else format_interval(Interval(**found))


def _key_numbers(facts: Facts) -> Markup:
    """The best trial, no augmentation, and what it cost."""
    pairs: list[tuple[str, str | Markup]] = []
    if facts.best is not None:
        pairs.append((f"Best trial of the search, {facts.best.id}", facts.policy(facts.best)))
        pairs += _scores("Its", facts, facts.best)
    if facts.baseline is not None and (facts.best is None or facts.baseline.id != facts.best.id):
        pairs += _scores("No augmentation:", facts, facts.baseline)
    pairs += cost(facts)
    return definitions(pairs)


def _scores(whose: str, facts: Facts, trial: TrialResult) -> list[tuple[str, str | Markup]]:
    shown = dict.fromkeys((facts.record.metric, "balanced_accuracy", "auroc"))
    return [
        (f"{whose} {name.replace('_', ' ')}", f"{interval.estimate:.3f} {format_interval(interval)}")
        for name, interval in score_intervals(trial, facts.record).items()
        if name in shown
    ]


def cost(facts: Facts) -> list[tuple[str, str | Markup]]:
    """What the search cost, and what it would have cost without sharing."""
    spent = sum(fold.seconds for trial in facts.trials for fold in trial.folds)
    saved = sum(
        stage.seconds for trial in facts.trials for fold in trial.folds for stage in fold.stages if stage.reused
    )
    peak = max((fold.peak_bytes for trial in facts.trials for fold in trial.folds), default=0)
    found: list[tuple[str, str | Markup]] = [("Computed, all trials", duration(spent))]
    if saved:
        found.append(("Saved by sharing stages", duration(saved)))
    if peak:
        found.append(("Most memory of a process", f"{peak / 2**20:,.0f} MiB"))
    return found


def command(text: str) -> Markup:
    """A command, broken between words alone."""
    words = [tag("span", word, class_="word") for word in text.split(" ")]
    return tag("pre", *(part for word in words for part in (word, " ")))


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def reproduce(facts: Facts) -> Markup:
    """The exact command, the versions, the seeds and the data."""
    record, data = facts.record, facts.record.data
    counts = ", ".join(f"{name} {count}" for name, count in zip(data.classes, data.counts, strict=True))
    patients = counted(data.patients, "patient") if data.patients_known else "patients unknown"
    pairs: list[tuple[str, str | Markup]] = [
        ("Data digest", data.digest),
        ("Data", data.source),
        ("Images", f"{sum(data.counts)} ({counts}), {patients}"),
        ("Space digest", record.space.digest),
        ("Seed", str(record.seed)),
        ("CPU threads a trial", str(record.threads)),
        ("Splits", _protocol(facts)),
        ("Began", moment(record.created)),
        ("Last trial ended", moment(max((trial.ended or 0.0 for trial in facts.trials), default=0.0))),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    recipe = facts.recipe
    return joined(
        (
            tag("p", "The search again, into an empty storage:"),
            command(recipe.command),
            _folded("The space (space.yaml)", recipe.space_yaml),
            tag("p", "Its best configuration (best.yaml):") if facts.best_yaml else None,
            tag("pre", facts.best_yaml) if facts.best_yaml else None,
            tag("p", "That configuration alone, with the same scores:") if facts.best_yaml else None,
            command(recipe.single) if facts.best_yaml else None,
            tag("ul", *(tag("li", note) for note in recipe.notes)),
            definitions(pairs),
            tag("p", f"Versions: {versions}.", class_="soft"),
        )
    )


def _folded(heading: str, text: str | None) -> Markup | None:
    return None if text is None else tag("details", tag("summary", heading), tag("pre", text))


def _protocol(facts: Facts) -> str:
    protocol = facts.record.protocol
    kind = {"folds": f"{protocol.folds} folds of patients", "sites": "each site in turn", "split": "a fixed split"}
    repeats = f", {protocol.repeats} repeats" if protocol.repeats > 1 else ""
    return f"{kind[protocol.kind]}{repeats}; {facts.record.folds} evaluations a trial"


def moment(seconds: float) -> str:
    """A time as a date; nothing for none."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds else "-"


def leaderboard(facts: Facts) -> Markup:
    """The trials, best first; what failed says why."""
    ranked = {trial.id: place for place, trial in enumerate(facts.ranked, start=1)}
    trials = [*facts.ranked, *(trial for trial in facts.trials if trial.id not in ranked)]
    if not trials:
        return tag("p", "No trial has been proposed yet.", class_="none")
    columns = _columns(facts)
    listed = trials[: MOST_LISTED + MOST_FOLDED]
    rows = [_line(facts, columns, trial, str(ranked.get(trial.id) or _state(trial, facts))) for trial in listed]
    head, more = columns.headings(), rows[MOST_LISTED:]
    folded = None
    if more:
        left_out = len(trials) - len(rows)
        tail = f" (without the last {left_out}, which result.json has)" if left_out else ""
        table_of_rest = table([head, *more], class_="leaderboard")
        folded = tag("details", tag("summary", f"{len(more)} further trials{tail}"), table_of_rest)
    failed = [trial for trial in facts.trials if trial.state == "failed"][:MOST_FOLDED]
    reasons = [[trial.id, facts.policy(trial), trial.error or ""] for trial in failed]
    return joined(
        (
            tag("p", f"Means ± standard deviations over folds; {facts.metric} with 95 % intervals over patients."),
            table([head, *rows[:MOST_LISTED]], class_="leaderboard"),
            folded,
            tag("h3", "Failed trials") if failed else None,
            table([["trial", "policy", "error"], *reasons]) if failed else None,
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """What the leaderboard has columns for: scores, the search's own first, and measures of synthetic images."""

    scores: tuple[str, ...]
    fidelity: tuple[str, ...]

    def headings(self) -> list[str]:
        first, *others = (name.replace("_", " ") for name in self.scores)
        measured = [{"kid": "KID"}.get(name, name.replace("_", " ")) for name in self.fidelity]
        return ["", "trial", "policy", "folds", first, "95 % interval", *others, *measured, "computed"]


def _columns(facts: Facts) -> _Columns:
    objectives = [each.name for each in objectives_of(facts.record) if each.name != SECONDS]
    known = {name for trial in facts.trials for fold in trial.folds[:1] for name in fold.scores}
    measured = {name for trial in facts.trials for fold in trial.folds[:1] for name in fold.fidelity}
    return _Columns(
        scores=tuple(dict.fromkeys((*objectives, *(name for name in _SCORES if name in known)))),
        fidelity=tuple(name for name in _FIDELITY if name in measured),
    )


def _line(facts: Facts, columns: _Columns, trial: TrialResult, place: str) -> list[str]:
    scores, fidelity = trial.scores, trial.fidelity
    first, *others = (format_score(scores.get(name)) if trial.folds else "" for name in columns.scores)
    means = [None if (found := fidelity.get(name)) is None else found.mean for name in columns.fidelity]
    return [
        place,
        trial.id,
        facts.policy(trial),
        f"{len(trial.folds)}/{facts.record.folds}",
        first,
        format_interval(trial.intervals.get(columns.scores[0])),
        *others,
        *("" if mean is None else f"{mean:.3f}" for mean in means),
        duration(sum(fold.seconds for fold in trial.folds)),
    ]


def _state(trial: TrialResult, facts: Facts) -> str:
    infeasible = trial.state in ("completed", "pruned") and not trial.feasible(facts.record.max_copy_rate)
    return "infeasible" if infeasible else trial.state


def warnings(facts: Facts) -> Markup:
    """What limits every number of the report."""
    notes = [CLINICAL, *cautions(facts.record, confirmed=facts.verdict is not None)]
    return tag("div", tag("ul", *(tag("li", note) for note in notes)), class_="caution")
