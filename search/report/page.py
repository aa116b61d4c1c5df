"""A search's report as HTML, from what is known of the search alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.report import sections
from search.report.charts import Figure
from search.report.document import document
from search.report.facts import Facts
from search.report.figure_html import figures_html
from search.report.markup import Markup, tag

_PARTS = ("Verdict", "Reproduce", "Leaderboard", "Figures", "Cautions")


def report_html(facts: Facts, figures: Sequence[Figure], stills: Mapping[str, bytes]) -> str:
    """The report: verdict, how to repeat it, leaderboard, figures, cautions.

    Args:
        facts: of the search.
        figures: in their order.
        stills: a PNG file's content for each figure that has charts, by its name.

    Returns:
        A whole HTML file that loads nothing from anywhere.
    """
    first = [figure for figure in figures if figure.name == "confirmed" and not figure.is_empty]
    others = [figure for figure in figures if figure not in first]
    return document(
        f"{facts.record.name}: report",
        sections.header(facts),
        tag("nav", *(tag("a", part, href=f"#{part.lower()}") for part in _PARTS), aria_label="Parts"),
        tag(
            "main",
            _section("Verdict", sections.verdict(facts), figures_html(first, stills) if first else None),
            _section("Reproduce", sections.reproduce(facts)),
            _section("Leaderboard", sections.leaderboard(facts)),
            _section("Figures", figures_html(others, stills)),
            _section("Cautions", sections.warnings(facts)),
        ),
        tag("footer", f"Written by genmix-search from the record of {facts.record.name}."),
        has_charts=any(figure.charts for figure in figures),
    )


def _section(heading: str, *content: Markup | None) -> Markup:
    return tag("section", tag("h2", heading), *content, id=heading.lower())
