"""The flags of the subcommand ``ui``."""

from __future__ import annotations

import argparse

from search.flags import Parser, add_which


def port(text: str) -> int:
    """A port, as argparse wants a type."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port from 1 to 65535")
    return int(text)


def ui_parser() -> Parser:
    """The flags of ``ui``."""
    parser = Parser(
        prog="search/run.py ui",
        description="Show a search's trials in MLflow: serve its database on this machine alone until Ctrl-C, and "
        "print the page. Where the search writes to a server, the page is there already.",
        allow_abbrev=False,
    )
    add_which(parser)
    parser.add_argument("--port", type=port, metavar="N", help="of the page (5000, or the next that is free)")
    return parser
