"""The flags of the subcommand ``stages``."""

from __future__ import annotations

import argparse
from pathlib import Path

from search.flags import Parser, path, stage_size
from search.settings import parse_duration


def stages_parser() -> Parser:
    """The flags of ``stages``."""
    parser = Parser(
        prog="search/run.py stages",
        description="List the finished stages that the searches of a storage share: trained generators, pools of "
        "images, classifiers. Whatever is removed is computed again where it is needed.",
        allow_abbrev=False,
    )
    parser.add_argument("--storage", type=path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
    parser.add_argument("--verify", action="store_true", help="read every file and remove damaged stages; exit code 1")
    parser.add_argument("--prune", action="store_true", help="remove stages, none that a running search uses, by:")
    parser.add_argument("--stage-limit", type=stage_size, metavar="SIZE", help="keep 20GB, those used last")
    parser.add_argument("--older-than", type=_duration, metavar="TIME", help="remove what was not used for 30d, 12h")
    parser.add_argument("--all", action="store_true", help="remove everything")
    parser.add_argument("--json", action="store_true", help="print the same for machines")
    return parser


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration with a unit; write 12h or 30d") from None
