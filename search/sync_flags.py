"""The flags of the subcommand ``sync``."""

from __future__ import annotations

from search.flags import Parser, add_which


def sync_parser() -> Parser:
    """The flags of ``sync``."""
    parser = Parser(
        prog="search/run.py sync",
        description="Write to an MLflow server or database what it lacks of a search: its trials, pictures and "
        "confirmations, from nothing if need be. What is there already is not written twice, and the search's record "
        "stays as it is.",
        allow_abbrev=False,
    )
    add_which(parser)
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow server or database (that of the search)")
    return parser
