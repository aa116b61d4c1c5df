"""Searches side by side: which settings differ, what each found, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from search.out_file import write_out
from search.outcome import format_interval, format_score
from search.report import sections
from search.report.charts import Figure
from search.report.course import compared_courses
from search.report.document import document
from search.report.facts import Facts, read_facts
from search.report.figure_html import figures_html
from search.report.markup import Markup, joined, table, tag
from search.report.still import png
from spaces.parameter import format_value
from trainables.ledger import Ledger, SearchRecord
from trainables.results import TrialResult


def write_comparison(ledgers: Sequence[Ledger], path: Path) -> None:
    """Write a page that puts searches side by side.

    Args:
        ledgers: at least two.
        path: of the HTML file, or a device or a pipe.
    """
    searches = [read_facts(ledger) for ledger in ledgers]
    figure = compared_courses(searches)
    stills = {figure.name: png(figure.charts)} if figure.charts else {}
    write_out(path, comparison_html(searches, figure, stills))


def comparison_html(searches: Sequence[Facts], figure: Figure, stills: Mapping[str, bytes]) -> str:
    """The page: what each search found, its best score against computation, and the settings that differ.

    Args:
        searches: at least two.
        figure: of their best scores.
        stills: a PNG file's content for the figure, by its name.
    """
    names = [facts.record.name for facts in searches]
    cautions = list(dict.fromkeys([*_incomparable(searches), sections.CLINICAL]))
    return document(
        f"{' and '.join(names)}: comparison",
        tag("header", tag("h1", " and ".join(names)), tag("p", "Searches side by side.", class_="soft")),
        tag(
            "main",
            tag("div", tag("ul", *(tag("li", each) for each in cautions)), class_="caution"),
            _section("Verdicts", _verdicts(searches)),
            _section("Best trials", table(_results(searches), class_="results")),
            _section("Course", figures_html([figure], stills)),
            _section("Settings that differ", _settings(searches)),
        ),
        tag("footer", "Written by genmix-search from the records of these searches."),
        has_charts=bool(figure.charts),
    )


def _section(heading: str, *content: Markup) -> Markup:
    return tag("section", tag("h2", heading), *content)


def _incomparable(searches: Sequence[Facts]) -> Iterator[str]:
    """Why scores of these searches must not be held against each other."""
    records = [facts.record for facts in searches]
    same: Sequence[tuple[str, Callable[[SearchRecord], object]]] = (
        ("data", lambda record: record.data.digest),
        ("metric", lambda record: record.metric),
        ("splits", lambda record: (record.protocol.kind, record.protocol.folds, record.protocol.repeats, record.seed)),
        ("budget", lambda record: record.budget),
    )
    different = [name for name, of in same if len({of(record) for record in records}) > 1]
    if different:
        yield (
            f"These searches differ in their {' and '.join(different)}: a difference between their scores may come "
            f"from that alone."
        )
    yield "The best of many trials is chosen on the folds that score it; only confirmed scores are free of that."


def _verdicts(searches: Sequence[Facts]) -> Markup:
    rows = []
    for facts in searches:
        said = str(facts.verdict["sentences"][0]) if facts.verdict else f"Not confirmed: {facts.confirm}"
        rows.append([facts.record.name, said])
    return table([["search", "verdict"], *rows])


def _results(searches: Sequence[Facts]) -> list[list[str]]:
    head = [
        "search", "best trial", "score", "95 % interval", "no augmentation", "95 % interval", "confirmed",
        "95 % interval", "trials", "computed",
    ]  # fmt: skip
    return [head, *(_result(facts) for facts in searches)]


def _result(facts: Facts) -> list[str]:
    best = facts.ranked[0] if facts.ranked else None
    row = facts.verdict["rows"][0] if facts.verdict else {}
    score, interval = row.get("score"), row.get("interval")
    spent = sum(fold.seconds for trial in facts.trials for fold in trial.folds)
    return [
        facts.record.name,
        "-" if best is None else f"{best.id} {facts.policy(best)}",
        *_scored(facts, best),
        *_scored(facts, facts.baseline),
        "-" if not score or score["mean"] is None else f"{score['mean']:.3f}",
        "" if not interval else f"[{interval['low']:.3f}, {interval['high']:.3f}]",
        str(len(facts.trials)),
        sections.duration(spent),
    ]


def _scored(facts: Facts, trial: TrialResult | None) -> tuple[str, str]:
    if trial is None:
        return "-", ""
    metric = facts.record.metric
    return format_score(trial.score(metric)), format_interval(trial.intervals.get(metric))


def _settings(searches: Sequence[Facts]) -> Markup:
    """What the searches were given, where that differs."""
    given = [_given(facts.record) for facts in searches]
    names = list(dict.fromkeys(name for each in given for name in each))
    rows = [[name, *(each.get(name, "-") for each in given)] for name in names]
    different = [row for row in rows if len(set(row[1:])) > 1]
    if not different:
        return tag("p", "None: the searches were given the same.")
    return joined((table([["setting", *(facts.record.name for facts in searches)], *different]),))


def _given(record: SearchRecord) -> dict[str, str]:
    protocol = record.protocol
    found = {
        "space": record.space.name,
        "budget": record.budget,
        "data digest": record.data.digest,
        "images": str(sum(record.data.counts)),
        "classes": ", ".join(record.data.classes),
        "metric": ", ".join((record.metric, *record.further_metrics)),
        "splits": protocol.kind,
        "folds": str(protocol.folds),
        "repeats": str(protocol.repeats),
        "validation": f"{protocol.validation:g}",
        "seed": str(record.seed),
        "sampler": record.sampler,
        "scheduler": record.scheduler,
        "trials": str(record.trials),
        "CPU threads a trial": str(record.threads),
        "copy rate at most": "no limit" if record.max_copy_rate is None else f"{record.max_copy_rate:g}",
        "sharing": format_value(record.sharing),
        "warm start": ", ".join(record.warm_start) or "none",
    }
    for dimension in record.space.dimensions:
        when = dimension.when
        under = "" if when is None else f" ({', '.join(map(format_value, when.values))})"
        found[f"{dimension.name}{under}"] = dimension.parameter.domain()
    return found | {f"version of {name}": version for name, version in record.versions.items()}
