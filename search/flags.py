"""The flags of the command line and the types of their values."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from search.settings import SettingsError, parse_duration
from search.sizes import parse_bytes
from spaces.budget import BUDGETS
from spaces.errors import nearest

SAMPLERS = ("reuse", "tpe", "random", "grid")
SCHEDULERS = ("racing", "asha", "fifo")
PROGRESS = ("auto", "plain", "quiet", "json")
DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
TRACKING = f"$MLFLOW_TRACKING_URI, or {DEFAULT_TRACKING_URI}"
_MOST_DIGITS, _SHOWN = 9, 60
_LONGEST_PATH, _LONGEST_NAME = 4095, 255


def default_tracking_uri() -> str:
    """Where MLflow is if no flag says it: as for MLflow itself, its own variable counts before a database here."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


class Parser(argparse.ArgumentParser):
    """Reports a wrong flag as one sentence, with the nearest valid flags."""

    def error(self, message: str) -> NoReturn:
        """Raises: SettingsError, instead of printing the usage and leaving."""
        prefix = "unrecognized arguments: "
        words = message.removeprefix(prefix).split()
        if message.startswith(prefix) and words:
            given = words[0]
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            message = f"{given} is no option; {nearest(given, flags)}"
        raise SettingsError(f"{message}. Run with --help to see what there is.")


def count(text: str) -> int:
    """A whole number from 1, as argparse wants a type."""
    if not text.isdecimal() or len(text) > _MOST_DIGITS or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text[:_SHOWN]}' is no whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text[:_SHOWN]}' is no whole number") from None


def path_text(text: str) -> str:
    """A path as it was given, as argparse wants a type: one that a file can have."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text[:_SHOWN]!r} has characters that do not print, and cannot be a path")
    encoded = text.encode("utf-8", "surrogateescape")
    if not encoded or len(encoded) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in encoded.split(b"/")):
        raise argparse.ArgumentTypeError(f"'{text[:_SHOWN]}' is {'too long' if text else 'too short'} for a path")
    return text


def path(text: str) -> Path:
    """A path, as argparse wants a type."""
    return Path(path_text(text))


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0")
    return value


def _proportion(text: str) -> float:
    value = _share(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 to 1")
    return value


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration with a unit; write 90s, 15m, 2h or 1d") from None


def stage_size(text: str) -> int:
    """Bytes, as argparse wants a type."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def slice_rule(text: str) -> str | int:
    """Which slice of a volume, as argparse wants a type."""
    if text == "middle":
        return text
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"'{text[:_SHOWN]}' is neither middle nor a whole number from 0")
    return int(text)


def search_parser(subcommands: Mapping[str, str]) -> Parser:
    """The flags of a search; ``subcommands`` are names and purposes, for the help."""
    parser = Parser(
        prog="search/run.py",
        description="Search how to augment a small medical-image training set. Without a subcommand it searches.",
        epilog="Subcommands: " + "; ".join(f"{name}: {purpose}" for name, purpose in subcommands.items()),
        allow_abbrev=False,
    )
    _add_what(parser.add_argument_group("what is searched"))
    _add_data(parser.add_argument_group("on which data"))
    parser.add_argument("--version", action="store_true", help="print the program's version and stop")
    where = parser.add_argument_group("where and how it runs")
    _add_where(where)
    add_resources(where)
    return parser


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--space", type=path_text, metavar="NAME|FILE.yaml", help="a named space or a file of your own (genmix)"
    )
    group.add_argument(
        "--config", type=path, metavar="best.yaml", help="evaluate one configuration again, as the search that found it"
    )
    group.add_argument("--set", metavar="NAME=VALUE", action="append", help="fix a dimension, and its parents with it")
    group.add_argument("--list-spaces", action="store_true", help="print the named spaces and stop")
    group.add_argument("--describe", action="store_true", help="print the space, its bounds and meanings, and stop")
    group.add_argument("--budget", metavar="NAME", help=f"{', '.join(BUDGETS)} (quick: a demonstration)")
    group.add_argument(
        "--trials",
        type=count,
        metavar="N",
        help="how many configurations, reference policies among them (the budget's)",
    )
    group.add_argument(
        "--metric", metavar="SCORE[,SCORE]", help="the score to improve, or several to trade (balanced_accuracy)"
    )
    group.add_argument(
        "--max-copy-rate", type=_proportion, metavar="X", help="no trial is best that copies more, 0 to 1 (no limit)"
    )
    group.add_argument("--sampler", metavar="NAME", help=f"{', '.join(SAMPLERS)} (reuse)")
    group.add_argument("--scheduler", metavar="NAME", help=f"{', '.join(SCHEDULERS)}: stop poor trials early (racing)")
    group.add_argument(
        "--warm-start", metavar="NAME", action="append", help="tell the sampler of an earlier search of the same data"
    )
    group.add_argument("--seed", type=_seed, metavar="N", help="everything random descends from it (0)")


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--data", type=path, metavar="PATH", help="folder or .npz (without it: an embedded phantom)")
    group.add_argument(
        "--labels",
        type=path_text,
        metavar="FILE.csv",
        help="labels file, inside the data folder or a path (labels.csv)",
    )
    group.add_argument("--folds", type=count, metavar="K", help="cross-validation folds (the budget's)")
    group.add_argument("--repeats", type=count, metavar="N", help="of the whole cross-validation, on fresh splits (1)")
    group.add_argument(
        "--leave-site-out", action="store_const", const=True, help="test on each site of the column 'site' in turn"
    )
    group.add_argument(
        "--split-file",
        type=path_text,
        metavar="FILE.csv|labels",
        help="fixed parts: train and val are searched on, test is locked",
    )
    group.add_argument(
        "--lock-test", type=_proportion, metavar="X", help="share of the patients that no trial sees (0)"
    )
    group.add_argument(
        "--validation", type=_proportion, metavar="X", help="share of training patients that early stopping reads"
    )
    group.add_argument(
        "--no-images", action="store_const", const=True, help="keep patients' images out of tracking and reports"
    )
    group.add_argument("--positive", metavar="CLASS", help="the diseased class of two, for sensitivity and specificity")
    group.add_argument("--slice", type=slice_rule, metavar="middle|N", help="which slice of 3-D files to take")
    group.add_argument(
        "--skip-bad-images", action="store_const", const=True, help="go on without unreadable images; they are listed"
    )


def _add_where(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--storage", type=path, metavar="FOLDER", default=Path("searches"), help="where searches are kept (./searches)"
    )
    group.add_argument("--name", metavar="NAME", help="the search's name (space, date and time)")
    group.add_argument(
        "--no-sharing", action="store_const", const=True, help="let every trial compute all its stages by itself"
    )
    group.add_argument("--resume", nargs="?", const="", metavar="NAME", help="go on with a search, or the latest")
    group.add_argument("--tracking-uri", metavar="URI", help=f"MLflow server or database ({TRACKING})")
    group.add_argument("--no-confirm", action="store_true", help="do not end the search in a confirmation")


def add_resources(group: argparse._ArgumentGroup) -> None:
    """Flags that say what trials may use; they hold for one run of the program only."""
    group.add_argument("--time-budget", type=_duration, metavar="TIME", help="stop after 90s, 15m, 2h, ...; resumable")
    group.add_argument("--concurrency", type=count, metavar="N", help="trials at once (by cores or GPUs)")
    group.add_argument("--cpus-per-trial", type=count, metavar="N", help="(cores / concurrency)")
    group.add_argument(
        "--gpus-per-trial", type=_share, metavar="X", help="may be a fraction (by memory: a quarter or a whole one)"
    )
    group.add_argument(
        "--checkpoint-every", type=_duration, metavar="TIME", help="how often trainings are saved midway (60s)"
    )
    group.add_argument(
        "--stage-limit", type=stage_size, metavar="SIZE", help="keep 20GB of finished stages, those used last (all)"
    )
    group.add_argument(
        "--progress", choices=PROGRESS, default="auto", help="auto: bars, or lines without a terminal; json: events"
    )
    group.add_argument("--address", metavar="HOST:PORT", help="join a Ray cluster, or 'auto'")


def show_parser() -> Parser:
    """The flags of ``show``."""
    parser = Parser(prog="search/run.py show", description="Print a search's leaderboard again.", allow_abbrev=False)
    add_which(parser)
    return parser


def confirm_parser() -> Parser:
    """The flags of ``confirm``."""
    parser = Parser(
        prog="search/run.py confirm",
        description="Evaluate the best of a search and the reference policies again, with fresh seeds on fresh splits "
        "and on the locked test set. A confirmation that was stopped goes on.",
        allow_abbrev=False,
    )
    add_which(parser)
    parser.add_argument("--top", type=count, metavar="N", help="how many of the best trials (3)")
    parser.add_argument("--repeats", type=count, metavar="N", help="of the whole cross-validation, at most 5 (2)")
    parser.add_argument("--again", action="store_true", help="confirm once more, on other splits")
    add_resources(parser.add_argument_group("what it may use"))
    return parser


def add_which(parser: Parser) -> None:
    """Which search is meant: its name, and the storage that it lies in."""
    parser.add_argument("name", nargs="?", help="the search (the latest)")
    parser.add_argument("--storage", type=path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
