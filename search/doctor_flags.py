"""The flags of the subcommand ``doctor``."""

from __future__ import annotations

from pathlib import Path

from search.flags import TRACKING, Parser, count, default_tracking_uri, path, path_text, slice_rule
from spaces.budget import BUDGETS


def doctor_parser() -> Parser:
    """The flags of ``doctor``."""
    parser = Parser(
        prog="search/run.py doctor",
        description="Check what a search needs: Python, packages, processors, storage, tracking server, and where they "
        "are named a Ray cluster and images. One line each, with what to do; exit code 1 if anything is in the way.",
        allow_abbrev=False,
    )
    parser.add_argument("--storage", type=path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
    parser.add_argument("--data", type=path, metavar="PATH", help="images to read: folder or .npz (none)")
    parser.add_argument(
        "--labels", type=path_text, metavar="FILE.csv", help="labels file, inside the data folder or a path"
    )
    parser.add_argument("--slice", type=slice_rule, metavar="middle|N", help="which slice of 3-D files to take")
    parser.add_argument("--skip-bad-images", action="store_true", help="go on without unreadable images")
    parser.add_argument("--folds", type=count, metavar="K", help="cross-validation folds (the budget's)")
    parser.add_argument("--tracking-uri", metavar="URI", default=default_tracking_uri(), help=f"({TRACKING})")
    parser.add_argument("--address", metavar="HOST:PORT", help="Ray cluster to join, or 'auto' (none)")
    parser.add_argument("--budget", metavar="NAME", default="quick", help=f"{', '.join(BUDGETS)} (quick)")
    return parser
