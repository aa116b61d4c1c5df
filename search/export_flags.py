"""The flags of the subcommand ``export``."""

from __future__ import annotations

from pathlib import Path

from search.flags import Parser


def export_parser() -> Parser:
    """The flags of ``export``."""
    parser = Parser(
        prog="search/run.py export",
        description="Write a search as an Optuna study, for optuna-dashboard and Optuna's own plots. A study of that "
        "name that is there already is written anew.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="the search (the latest)")
    parser.add_argument("--storage", type=Path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
    parser.add_argument("--optuna", metavar="URL", required=True, help="Optuna storage, such as sqlite:///study.db")
    parser.add_argument("--study", metavar="NAME", help="the study's name (the search's)")
    return parser
