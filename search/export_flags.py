"""The flags of the subcommand ``export``."""

from __future__ import annotations

from search.flags import Parser, add_which


def export_parser() -> Parser:
    """The flags of ``export``."""
    parser = Parser(
        prog="search/run.py export",
        description="Write a search as an Optuna study, for optuna-dashboard and Optuna's own plots. A study of that "
        "name that is there already is written anew.",
        allow_abbrev=False,
    )
    add_which(parser)
    parser.add_argument("--optuna", metavar="URL", required=True, help="Optuna storage, such as sqlite:///study.db")
    parser.add_argument("--study", metavar="NAME", help="the study's name (the search's)")
    return parser
