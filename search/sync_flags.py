"""The flags of the subcommand ``sync``."""

from __future__ import annotations

from pathlib import Path

from search.flags import Parser


def sync_parser() -> Parser:
    """The flags of ``sync``."""
    parser = Parser(
        prog="search/run.py sync",
        description="Write to an MLflow server or database what it lacks of a search: its trials, pictures and "
        "confirmations, from nothing if need be. What is there already is not written twice, and the search's record "
        "stays as it is.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="the search (the latest)")
    parser.add_argument("--storage", type=Path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow server or database (that of the search)")
    return parser
