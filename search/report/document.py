"""The whole of a page: one file that asks the network for nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from search.report.markup import Markup, joined, tag

_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser lets the page load: nothing but what is in it."""


def document(title: str, *body: Markup | None, has_charts: bool) -> str:
    """A page with its styles and scripts in it.

    Args:
        title: of the window.
        body: parts, one after the other.
        has_charts: whether plotly.js is needed, which is most of a page's size.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Markup(f"<style>{_beside('page.css')}</style>"),
    )
    scripts = (Markup(f"<script>{_plotly()}</script>"), Markup(f"<script>{_beside('page.js')}</script>"))
    return (
        "<!doctype html>\n"
        + tag("html", head, tag("body", joined(body), *(scripts if has_charts else ())), lang="en")
        + "\n"
    )


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("</script", "<\\/script")
