"""The table of a paper beside what a search found, and which of the paper's orders hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.table_claims import Comparison, Judgement, judge
from spaces.budget import budget_named
from spaces.generators import TextualInversionConfig
from spaces.paper_table import CLASSIFIER_NAME, PaperTable, Row
from spaces.parameter import Choice, Value
from spaces.presets import TABLES
from spaces.protocol import Protocol
from spaces.space import GENERATOR_NAME, Space
from trainables.ledger import SearchRecord
from trainables.metrics.interval import Interval
from trainables.pooled_intervals import score_intervals
from trainables.results import Summary, TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row under one classifier.

    Args:
        row: the method.
        trial: the trial that computed it; None without one.
        remark: why there is no final score, in a few words; empty where there is one.
        scores: mean and standard deviation over folds and repeats, of a completed trial.
        intervals: of the scores, by bootstrap over patients.
    """

    row: Row
    trial: TrialResult | None
    remark: str
    scores: Mapping[str, Summary]
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What was found with one classifier.

    Args:
        classifier: its name.
        published: the paper's classifiers whose values stand beside it: itself, or all where it stands in for them.
        cells: one for each row, in the table's order.
        judgements: what became of the claims, by each score that they are about.
    """

    classifier: str
    published: tuple[str, ...]
    cells: tuple[Cell, ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledTable:
    """A paper's table with the results of a search, a part for each classifier."""

    table: PaperTable
    evaluations: int
    parts: tuple[Part, ...]


def fill_table(record: SearchRecord, trials: Sequence[TrialResult]) -> FilledTable | None:
    """Put the trials of a search into the rows of its paper's table.

    Args:
        record: the search.
        trials: all of it.

    Returns:
        The table; None where the search's space is not that of a table.
    """
    table = TABLES.get(record.space.name)
    if table is None:
        return None
    default = str(budget_named(record.budget).settings[CLASSIFIER_NAME])
    names = _options(record.space, CLASSIFIER_NAME) or (default,)
    parts = tuple(_part(table, str(name), default, record, trials) for name in names)
    noted = dataclasses.replace(table, notes=(*_on_repeats(record.protocol), *table.notes))
    return FilledTable(table=noted, evaluations=record.folds - record.protocol.test_repeats, parts=parts)


def _on_repeats(protocol: Protocol) -> tuple[str, ...]:
    """What repeats that do not split afresh mean for the claims."""
    if protocol.kind == "split":
        return (
            "Every evaluation tests the same validation part, so that nothing tells how a difference would be on other "
            "patients: differences have no interval and no p value, and no claim can be told.",
        )
    if protocol.kind == "sites" and protocol.repeats > 1:
        return (
            "The repeats of a site test the same patients: their differences are averaged, and the sites are what is "
            "tested.",
        )
    return ()


def _part(
    table: PaperTable, classifier: str, default: str, record: SearchRecord, trials: Sequence[TrialResult]
) -> Part:
    chosen = [trial for trial in trials if trial.config.get(CLASSIFIER_NAME, default) == classifier]
    cells = tuple(_cell(row, table, record, chosen) for row in table.rows)
    done = {cell.row.label: cell.trial for cell in cells if cell.trial is not None and not cell.remark}
    missing = {cell.row.label: cell.remark.partition(",")[0] for cell in cells if cell.remark}
    judgements = tuple(
        judge(claim, done, score, missing=missing, record=record) for claim in table.claims for score in table.claimed
    )
    published = (classifier,) if classifier in table.classifiers else table.classifiers
    return Part(classifier=classifier, published=published, cells=cells, judgements=judgements)


def _cell(row: Row, table: PaperTable, record: SearchRecord, trials: Sequence[TrialResult]) -> Cell:
    """The completed trial of a row, or the last one with what came of it."""
    mine = [trial for trial in trials if row.is_of(trial.config)]
    trial = next((each for each in mine if each.state == "completed"), mine[-1] if mine else None)
    remark = _remark(trial, record) if trial is not None else _absence(row, table, record.space)
    if trial is None or remark:
        return Cell(row=row, trial=trial, remark=remark, scores={}, intervals={})
    return Cell(row=row, trial=trial, remark="", scores=trial.scores, intervals=score_intervals(trial, record))


def _remark(trial: TrialResult, record: SearchRecord) -> str:
    if trial.state == "completed":
        return ""
    states = {"failed": "failed", "pruned": "stopped early", "unfinished": "unfinished"}
    return f"{states[trial.state]}, {len(trial.folds)} of {record.folds}"


def _absence(row: Row, table: PaperTable, space: Space) -> str:
    """Why a row has no trial: its generator had no pipeline, --set left it out, or its turn has not come."""
    if any(name in space.names and value not in _options(space, name) for name, value in row.settings.items()):
        generator = row.settings.get(GENERATOR_NAME)
        left, whole = (set(_options(each, GENERATOR_NAME)) for each in (space, table.space))
        only_it = whole - left == {TextualInversionConfig.name}
        return "no pipeline" if only_it and generator == TextualInversionConfig.name else "left out"
    return "not started" if all(name in space.names for name in row.settings) else "left out"


def _options(space: Space, name: str) -> tuple[Value, ...]:
    """What a choice can be, under any condition; nothing where the space does not have it."""
    if name not in space.names:
        return ()
    parameters = [each.parameter for each in space.variants(name)]
    return tuple(option for each in parameters if isinstance(each, Choice) for option in each.options)


def table_data(filled: FilledTable) -> dict[str, Any]:
    """The table as plain data, for ``result.json``."""
    table = filled.table
    return {
        "title": table.title,
        "source": table.source,
        "evaluations": filled.evaluations,
        "notes": list(table.notes),
        "parts": [
            {
                "classifier": part.classifier,
                "published_for": list(part.published),
                "rows": [_cell_data(cell, part, table) for cell in part.cells],
                "claims": [_judgement_data(each) for each in part.judgements],
            }
            for part in filled.parts
        ],
    }


def _cell_data(cell: Cell, part: Part, table: PaperTable) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for name in table.scores if not cell.remark else ():
        summary, interval = cell.scores.get(name), cell.intervals.get(name)
        scores[name] = {
            "mean": summary.mean if summary else None,
            "std": summary.std if summary else None,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
        }
    return {
        "row": cell.row.label,
        "trial": cell.trial.id if cell.trial else None,
        "remark": cell.remark or None,
        "scores": scores,
        "published": {name: dict(cell.row.published.get(name, {})) for name in part.published},
    }


def _judgement_data(judgement: Judgement) -> dict[str, Any]:
    return {
        "claim": judgement.text,
        "score": judgement.score,
        "verdict": judgement.verdict,
        "tested": judgement.tested,
        "observed": judgement.observed or None,
        "comparisons": [_comparison_data(each) for each in judgement.comparisons],
    }


def _comparison_data(comparison: Comparison) -> dict[str, Any]:
    found = dataclasses.asdict(comparison.test) if comparison.test is not None else None
    return {
        "text": comparison.text,
        "verdict": comparison.verdict,
        "missing": comparison.missing or None,
        "p_holm": comparison.p_holm,
        "test": found,
    }
