"""Figures as HTML: interactive where scripts run, and as still pictures in print and without scripts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence

from search.report.charts import Chart, Figure
from search.report.interactive import specification
from search.report.markup import Markup, joined, table, tag


def figures_html(figures: Sequence[Figure], stills: Mapping[str, bytes]) -> Markup:
    """The figures that show something, then what there is no figure of.

    Args:
        figures: of the report.
        stills: a PNG file's content for each figure that has charts, by its name.
    """
    shown = [_figure(each, stills.get(each.name)) for each in figures if not each.is_empty]
    absent = [tag("li", tag("b", f"{each.heading}: "), each.caption) for each in figures if each.is_empty]
    return joined(
        (
            tag("div", *shown, class_="figures"),
            tag("h3", "Not shown") if absent else None,
            tag("ul", *absent, class_="none") if absent else None,
        )
    )


def _figure(figure: Figure, still: bytes | None) -> Markup:
    charts = [_chart(f"{figure.name}-{index}", chart) for index, chart in enumerate(figure.charts)]
    pictures = [
        tag("div", image(each.png, each.meaning, class_="picture"), class_="scroll", tabindex="0")
        for each in figure.pictures
    ]
    is_wide = len(charts) != 1 or bool(pictures or figure.rows)
    return tag(
        "figure",
        tag("h3", figure.heading),
        tag("div", *charts, class_="charts") if charts else None,
        image(still, figure.heading, class_="still") if still is not None else None,
        *pictures,
        tag("figcaption", figure.caption),
        table(figure.rows) if figure.rows else None,
        id=f"figure-{figure.name}",
        class_="wide" if is_wide else "",
    )


def _chart(name: str, chart: Chart) -> Markup:
    return tag(
        "div",
        tag("h4", chart.heading) if chart.heading else None,
        tag("div", class_="plot", data_chart=f"data-{name}"),
        data_script(specification(chart), name=f"data-{name}"),
        class_="chart",
    )


def data_script(data: object, *, name: str) -> Markup:
    """Data for a script; no text in them can end the element."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(f'<script type="application/json" id="{name}">{safe}</script>')


def image(png: bytes, meaning: str, *, class_: str) -> Markup:
    """A picture within the page."""
    return tag("img", class_=class_, alt=meaning, src="data:image/png;base64," + base64.b64encode(png).decode())
