"""A paper's table and what became of its claims, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from search.table_claims import Comparison, Judgement
from search.tables import Cell, FilledTable, Part

_WIDE = 150
"""Columns from which a score and its interval stand on one line."""
_HOW = (
    "Mean ± standard deviation over all {evaluations} evaluations of a row; in brackets 95 % intervals of all "
    "out-of-fold predictions together, by bootstrap over patients."
)
_TESTED = (
    "Claims are tested by differences over the evaluations that rows share: corrected resampled t-test (Nadeau & "
    "Bengio 2003), p adjusted for the comparisons of a claim (Holm), level .05; the intervals of differences are not "
    "adjusted."
)


def print_table(console: Console, filled: FilledTable) -> None:
    """Print the table, a part for each classifier, then which claims hold."""
    for part in filled.parts:
        console.print(_scores(filled, part, wide=console.width >= _WIDE))
        console.print(_claims(part))
    for sentence in _notes(filled):
        console.print(sentence)


def table_markdown(filled: FilledTable) -> str:
    """The same in Markdown, for the notes of a tracking server."""
    blocks = [f"## {filled.table.title} ({filled.table.source})"]
    for part in filled.parts:
        blocks.append(f"### {_heading(part)}")
        blocks.append(_markdown(_headings(filled, part), (_texts(filled, part, cell, " ") for cell in part.cells)))
        blocks.append(_markdown(_CLAIM_HEADINGS, (row for each in part.judgements for row in _marked_claim(each))))
    return "\n\n".join([*blocks, *_notes(filled)]) + "\n"


def _marked_claim(judgement: Judgement) -> Iterator[list[str]]:
    """A claim's rows, the first of them bold."""
    for index, row in enumerate(_claim_rows(judgement)):
        yield [f"**{text}**" if text and index == 0 else text.strip() for text in row]


def _markdown(headings: list[str], rows: Iterator[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        "| " + " | ".join(text.replace("\n", " ").replace("|", "\\|") for text in line) + " |" for line in lines
    )


def _notes(filled: FilledTable) -> list[str]:
    return [_HOW.format(evaluations=filled.evaluations), _TESTED, *filled.table.notes]


def _heading(part: Part) -> str:
    """The classifier, and whose place it takes."""
    if part.published and part.classifier not in part.published:
        return f"{part.classifier}, in place of the paper's {' and '.join(part.published)}"
    return part.classifier


def _published_columns(filled: FilledTable, part: Part) -> list[tuple[str, str]]:
    """Classifier and score of each column of the paper's values."""
    return [
        (classifier, score)
        for score in filled.table.scores
        for classifier in part.published
        if any(score in cell.row.published.get(classifier, {}) for cell in part.cells)
    ]


def _headings(filled: FilledTable, part: Part) -> list[str]:
    several = len(part.published) > 1
    paper = [
        f"paper's\n{_words(score)}" + (f",\n{classifier}" if several else "")
        for classifier, score in _published_columns(filled, part)
    ]
    return ["method", *paper, *map(_words, filled.table.scores), "trial"]


def _texts(filled: FilledTable, part: Part, cell: Cell, between: str) -> list[str]:
    """One row: method, the paper's values, ours."""
    columns = _published_columns(filled, part)
    values = [cell.row.published.get(classifier, {}).get(score) for classifier, score in columns]
    paper = ["" if value is None else f"{value:.{_digits(filled)}f}" for value in values]
    if cell.remark:
        ours = [cell.remark, *[""] * (len(filled.table.scores) - 1)]
    else:
        ours = [_score(cell, name, between) for name in filled.table.scores]
    return [cell.row.label, *paper, *ours, cell.trial.id if cell.trial is not None else ""]


def _digits(filled: FilledTable) -> int:
    """As many as the paper has."""
    values = [value for row in filled.table.rows for scores in row.published.values() for value in scores.values()]
    return 3 if all(round(value, 3) == value for value in values) else 4


def _score(cell: Cell, name: str, between: str) -> str:
    """A score as "0.812 ± 0.034 [0.771, 0.846]"."""
    summary, interval = cell.scores.get(name), cell.intervals.get(name)
    if summary is None or summary.mean is None:
        return "undefined"
    text = f"{summary.mean:.3f}" + (f" ± {summary.std:.3f}" if summary.std is not None else "")
    return text + (f"{between}[{interval.low:.3f}, {interval.high:.3f}]" if interval is not None else "")


def _scores(filled: FilledTable, part: Part, *, wide: bool) -> Table:
    table = Table(title=f"{filled.table.title}: {_heading(part)} ({filled.table.source})", title_justify="left")
    headings = _headings(filled, part)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if 0 < index < len(headings) - 1 else "left", overflow="fold")
    for cell in part.cells:
        table.add_row(*_texts(filled, part, cell, " " if wide else "\n"))
    return table


_CLAIM_HEADINGS = ["claim", "difference", "p (Holm)", "verdict"]


def _claims(part: Part) -> Table:
    table = Table(title=f"Claims: {part.classifier}", title_justify="left")
    for heading in _CLAIM_HEADINGS:
        table.add_column(heading, overflow="fold", no_wrap=heading in ("difference", "verdict"))
    for judgement in part.judgements:
        for index, row in enumerate(_claim_rows(judgement)):
            table.add_row(*row, style="bold" if index == 0 else None)
        table.add_section()
    return table


def _claim_rows(judgement: Judgement) -> Iterator[list[str]]:
    """The claim with its verdict, each of its comparisons, and what was observed."""
    total = len(judgement.comparisons)
    tested = "" if judgement.tested == total else f", {judgement.tested} of {total} comparisons could be made"
    yield [f"{judgement.text} (by {_words(judgement.score)}{tested})", "", "", judgement.verdict]
    for comparison in judgement.comparisons:
        yield _comparison_row(comparison)
    if judgement.observed:
        yield [f"  {judgement.observed}", "", "", ""]


def _comparison_row(comparison: Comparison) -> list[str]:
    test = comparison.test
    if test is None or test.mean is None:
        return [f"  {comparison.text}", comparison.missing, "", ""]
    interval = "" if test.low is None or test.high is None else f" [{test.low:+.3f}, {test.high:+.3f}]"
    p_value = "undefined" if comparison.p_holm is None else f"{comparison.p_holm:.3f}".replace("0.000", "<0.001")
    return [f"  {comparison.text}", f"{test.mean:+.3f}{interval}", p_value, comparison.verdict]


def _words(name: str) -> str:
    return {"auroc": "AUROC", "macro_f1": "macro F1"}.get(name, name.replace("_", " "))
