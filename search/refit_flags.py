"""The flags of the subcommand ``refit``."""

from __future__ import annotations

from search.flags import Parser, add_which


def refit_parser() -> Parser:
    """The flags of ``refit``."""
    parser = Parser(
        prog="search/run.py refit",
        description="Train the best trial's policy once more, on all images of the search without the locked test set, "
        "and keep the classifier: in STORAGE/NAME/model, and as a registered model in MLflow. It costs about one fold "
        "and goes on where it was stopped. Not for clinical use.",
        allow_abbrev=False,
    )
    add_which(parser)
    parser.add_argument("--trial", metavar="ID", help="another trial's policy, kept in model-ID and not registered")
    return parser
