"""The flags of the subcommand ``report``."""

from __future__ import annotations

from pathlib import Path

from search.flags import Parser


def report_parser() -> Parser:
    """The flags of ``report``."""
    parser = Parser(
        prog="search/run.py report",
        description="Write a search's report again: one HTML file that needs no network, and its figures as PNG files. "
        "With --compare, one page that puts searches side by side.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="the search (the latest)")
    parser.add_argument("--storage", type=Path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
    parser.add_argument("--compare", nargs="+", metavar="NAME", help="put these searches, and NAME, side by side")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the HTML file (in the storage)")
    return parser
