"""The flags of the subcommand ``synthesize``."""

from __future__ import annotations

import argparse

from search.flags import Parser, add_which, path

FORMATS = ("mha", "png")
MOST = 100_000
"""Images in one folder."""
_DIGITS = 9


def synthesize_parser() -> Parser:
    """The flags of ``synthesize``."""
    parser = Parser(
        prog="search/run.py synthesize",
        description="Write synthetic images by the best trial's generator, trained on all images of the search without "
        "the locked test set, with a labels.csv and a manifest that mark them as synthetic. They show no patient, but "
        "a generator may have copied some: the manifest says how many. Not for clinical use.",
        allow_abbrev=False,
    )
    add_which(parser)
    parser.add_argument("--out", type=path, required=True, metavar="FOLDER", help="a new or empty folder")
    parser.add_argument("--count", type=_count, default=200, metavar="N", help="images, of all classes together (200)")
    parser.add_argument("--class", dest="of_class", metavar="NAME", help="of this class alone (all, as in the data)")
    parser.add_argument("--format", choices=FORMATS, default="mha", help="of the files: mha keeps intensities (mha)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other images for another number (0)")
    parser.add_argument("--trial", metavar="ID", help="another trial's generator")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > _DIGITS or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"'{text[:60]}' is no whole number from 1 to {MOST}")
    return int(text)
