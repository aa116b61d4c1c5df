"""The flags of the subcommand ``predict``."""

from __future__ import annotations

from pathlib import Path

from search.flags import TRACKING, Parser, default_tracking_uri, path, slice_rule


def predict_parser() -> Parser:
    """The flags of ``predict``."""
    parser = Parser(
        prog="search/run.py predict",
        description="Write what a refitted model says of images: path, a probability for each class, the likeliest "
        "class, and what is wrong with an image that cannot be read (exit code 1). Not for clinical use.",
        allow_abbrev=False,
    )
    parser.add_argument("model", help="a search that was refitted, a model's folder, or models:/NAME/VERSION of MLflow")
    parser.add_argument(
        "images", nargs="+", type=path, metavar="IMAGES", help="files, folders (with a labels.csv or not), .npz"
    )
    parser.add_argument(
        "--out", default="predictions.csv", metavar="FILE", help="the table to write; - prints it (predictions.csv)"
    )
    parser.add_argument(
        "--slice", type=slice_rule, metavar="middle|N", help="of volumes (the one that the model was trained on)"
    )
    parser.add_argument("--storage", type=path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
    parser.add_argument(
        "--tracking-uri", default=default_tracking_uri(), metavar="URI", help=f"where MLflow is ({TRACKING})"
    )
    return parser
