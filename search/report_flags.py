"""The flags of the subcommand ``report``."""

from __future__ import annotations

from search.flags import Parser, add_which, path


def report_parser() -> Parser:
    """The flags of ``report``."""
    parser = Parser(
        prog="search/run.py report",
        description="Write a search's report again: one HTML file that needs no network, and its figures as PNG files. "
        "With --compare, one page that puts searches side by side.",
        allow_abbrev=False,
    )
    add_which(parser)
    parser.add_argument("--compare", nargs="+", metavar="NAME", help="put these searches, and NAME, side by side")
    parser.add_argument("--out", type=path, metavar="FILE", help="the HTML file (in the storage)")
    return parser
