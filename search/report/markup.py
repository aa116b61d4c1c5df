"""HTML in which every text is escaped: names of classes, paths and errors are the user's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


_VOID = frozenset({"img", "meta", "br"})


def tag(name: str, /, *content: str | Markup | None, **attributes: str) -> Markup:
    """An element; content that is no Markup is escaped, None left out.

    Args:
        name: of the element.
        content: what stands in it.
        attributes: ``class_`` is written ``class``, other underscores become hyphens.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value, quote=True)}"' for key, value in attributes.items()
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(content)}</{name}>")


def joined(parts: Iterable[str | Markup | None]) -> Markup:
    """Parts one after the other, escaped where they are no Markup."""
    known = (part for part in parts if part is not None)
    return Markup("".join(part if isinstance(part, Markup) else escape(part, quote=False) for part in known))


def table(rows: Sequence[Sequence[str | Markup]], *, class_: str = "") -> Markup:
    """A table that scrolls sideways where it is too wide; its headings are the first row."""
    head, *body = rows
    headings = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    lines = [tag("tr", *(tag("td", cell) for cell in row)) for row in body]
    attributes = {"class_": class_} if class_ else {}
    whole = tag("table", tag("thead", headings), tag("tbody", *lines), **attributes)
    return tag("div", whole, class_="scroll", tabindex="0")


def definitions(pairs: Iterable[tuple[str, str | Markup]]) -> Markup:
    """Terms and what they are."""
    return tag("dl", *(tag("div", tag("dt", term), tag("dd", meaning)) for term, meaning in pairs))
