"""The command line. It imports nothing heavy until the arguments are known to be good."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from search.pretrained import PRETRAINED, WEIGHTS, fetch, fetch_weights, leave_missing, leave_missing_weights
from search.settings import NewSearch, Resources, Resumption, SettingsError, check_name, parse_duration
from spaces.budget import BUDGETS, Budget, budget_named
from spaces.config import PATIENCE, check_space, settable_names, stops_early, with_setting
from spaces.describe import describe_space, list_spaces
from spaces.errors import InputError, SpaceError, nearest
from spaces.generators import SCRATCH
from spaces.paper_table import adapted, configurations, with_pipeline
from spaces.presets import PRESETS, TABLES
from spaces.protocol import Protocol
from spaces.space import Space
from spaces.space_file import space_from_yaml
from trainables.metrics.catalogue import SCORES

EXIT_FAILED_TRIALS = 1
EXIT_BAD_INPUT = 2
SAMPLERS = ("tpe", "random", "grid")
SCHEDULERS = ("asha", "fifo")
DEFAULT_CHECKPOINT_SECONDS = 60.0
DEFAULT_VALIDATION = 0.15
DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
_FIXED_WHEN_RESUMED = (
    "space", "set", "budget", "data", "labels", "slice", "positive", "skip_bad_images", "folds", "repeats",
    "leave_site_out", "split_file", "lock_test", "validation", "no_images", "seed", "metric", "sampler", "scheduler",
    "max_copy_rate", "name",
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Reports a wrong flag as one sentence, with the nearest valid flags."""

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            given = message.removeprefix(prefix).split()[0]
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            message = f"{given} is no option; {nearest(given, flags)}"
        raise SettingsError(f"{message}. Run with --help to see what there is.")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number") from None


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
        raise argparse.ArgumentTypeError(f"'{text}' is no duration; write 90s, 15m, 2h or 1d") from None


def _slice(text: str) -> str | int:
    if text == "middle":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither 'middle' nor the number of a slice") from None


def _search_parser() -> _Parser:
    parser = _Parser(
        prog="search/run.py",
        description="Search how to augment a small medical-image training set. Without a subcommand it searches.",
        epilog="Subcommands: " + "; ".join(f"{name}: {purpose}" for name, (purpose, _) in SUBCOMMANDS.items()),
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what is searched")
    what.add_argument("--space", metavar="NAME|FILE.yaml", help="a named space or a file of your own (genmix)")
    what.add_argument("--set", metavar="NAME=VALUE", action="append", help="fix a dimension, and its parents with it")
    what.add_argument("--list-spaces", action="store_true", help="print the named spaces and stop")
    what.add_argument("--describe", action="store_true", help="print the space, its bounds and meanings, and stop")
    what.add_argument("--budget", metavar="NAME", help=f"{', '.join(BUDGETS)} (quick: a demonstration)")
    what.add_argument("--trials", type=_count, metavar="N", help="how many configurations (the budget's)")
    what.add_argument("--metric", metavar="SCORE", help="the score to improve (balanced_accuracy)")
    what.add_argument(
        "--max-copy-rate", type=_proportion, metavar="X", help="no trial is best that copies more, 0 to 1 (no limit)"
    )
    what.add_argument("--sampler", metavar="NAME", help=f"{', '.join(SAMPLERS)} (tpe)")
    what.add_argument("--scheduler", metavar="NAME", help=f"{', '.join(SCHEDULERS)}: stop poor trials early (asha)")
    what.add_argument("--seed", type=_seed, metavar="N", help="everything random descends from it (0)")
    data = parser.add_argument_group("on which data")
    data.add_argument("--data", type=Path, metavar="PATH", help="folder or .npz (without it: an embedded phantom)")
    data.add_argument("--labels", metavar="FILE.csv", help="labels file, inside the data folder or a path (labels.csv)")
    data.add_argument("--folds", type=_count, metavar="K", help="cross-validation folds (the budget's)")
    data.add_argument("--repeats", type=_count, metavar="N", help="of the whole cross-validation, on fresh splits (1)")
    data.add_argument(
        "--leave-site-out", action="store_const", const=True, help="test on each site of the column 'site' in turn"
    )
    data.add_argument(
        "--split-file", metavar="FILE.csv|labels", help="fixed parts: train and val are searched on, test is locked"
    )
    data.add_argument("--lock-test", type=_proportion, metavar="X", help="share of the patients that no trial sees (0)")
    data.add_argument(
        "--validation", type=_proportion, metavar="X", help="share of training patients that early stopping reads"
    )
    data.add_argument(
        "--no-images", action="store_const", const=True, help="keep patients' images out of tracking and reports"
    )
    data.add_argument("--positive", metavar="CLASS", help="the diseased class of two, for sensitivity and specificity")
    data.add_argument("--slice", type=_slice, metavar="middle|N", help="which slice of 3-D files to take")
    data.add_argument(
        "--skip-bad-images", action="store_const", const=True, help="go on without unreadable images; they are listed"
    )
    where = parser.add_argument_group("where and how it runs")
    where.add_argument("--storage", type=Path, metavar="FOLDER", default=Path("searches"), help="(./searches)")
    where.add_argument("--name", metavar="NAME", help="the search's name (space, date and time)")
    where.add_argument("--resume", nargs="?", const="", metavar="NAME", help="go on with a search, or the latest")
    where.add_argument("--tracking-uri", metavar="URI", help=f"MLflow server or database ({DEFAULT_TRACKING_URI})")
    where.add_argument("--no-confirm", action="store_true", help="do not end the search in a confirmation")
    _add_resources(where)
    return parser


def _add_resources(group: argparse._ArgumentGroup) -> None:
    """Flags that say what trials may use; they hold for one run of the program only."""
    group.add_argument("--time-budget", type=_duration, metavar="TIME", help="stop after 90s, 15m, 2h, ...; resumable")
    group.add_argument("--concurrency", type=_count, metavar="N", help="trials at once (by cores or GPUs)")
    group.add_argument("--cpus-per-trial", type=_count, metavar="N", help="(cores / concurrency)")
    group.add_argument("--gpus-per-trial", type=_share, metavar="X", help="may be a fraction (1 where any)")
    group.add_argument(
        "--checkpoint-every", type=_duration, metavar="TIME", help="how often trainings are saved midway (60s)"
    )
    group.add_argument("--address", metavar="HOST:PORT", help="join a Ray cluster, or 'auto'")


def _show(arguments: Sequence[str]) -> int:
    parser = _Parser(prog="search/run.py show", description="Print a search's leaderboard again.", allow_abbrev=False)
    parser.add_argument("name", nargs="?", help="the search (the latest)")
    parser.add_argument("--storage", type=Path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
    given = parser.parse_args(arguments)
    from search.show import show

    return show(given.storage, given.name)


def _confirm(arguments: Sequence[str]) -> int:
    parser = _Parser(
        prog="search/run.py confirm",
        description="Evaluate the best of a search and the reference policies again, with fresh seeds on fresh splits "
        "and on the locked test set. A confirmation that was stopped goes on.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="the search (the latest)")
    parser.add_argument("--storage", type=Path, default=Path("searches"), metavar="FOLDER", help="(./searches)")
    parser.add_argument("--top", type=_count, metavar="N", help="how many of the best trials (3)")
    parser.add_argument("--repeats", type=_count, metavar="N", help="of the whole cross-validation, at most 5 (2)")
    parser.add_argument("--again", action="store_true", help="confirm once more, on other splits")
    _add_resources(parser.add_argument_group("what it may use"))
    given = parser.parse_args(arguments)
    from search.confirm import REPEATS, TOP, Wish
    from search.runner import confirm_search

    wish = Wish(top=given.top or TOP, repeats=given.repeats or REPEATS, again=given.again)
    return confirm_search(given.storage, given.name, wish, _resources(given))


SUBCOMMANDS: Mapping[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "show": ("print a search's leaderboard again", _show),
    "confirm": ("evaluate the best of a search again, on fresh splits", _confirm),
}


def main(arguments: Sequence[str]) -> int:
    """Run the program.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0 done, 1 done but trials failed, 2 unusable input, 130 or 143 stopped by a signal.
    """
    try:
        if arguments and arguments[0] in SUBCOMMANDS:
            return SUBCOMMANDS[arguments[0]][1](arguments[1:])
        if arguments and not arguments[0].startswith("-"):
            raise SettingsError(
                f"'{arguments[0]}' is no subcommand, and options begin with '--'. {nearest(arguments[0], SUBCOMMANDS)}."
            )
        return _search(arguments)
    except InputError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("Stopped before the search began.", file=sys.stderr)
        return 130


def _search(arguments: Sequence[str]) -> int:
    given = _search_parser().parse_args(arguments)
    if given.list_spaces:
        print(list_spaces(PRESETS), flush=True)
        return 0
    if given.resume is not None:
        resumption = _resumption(given)
        from search.runner import resume_search

        return resume_search(resumption)
    settings, notes = _new_search(given)
    for note in notes:
        print(note)
    named = {assignment.partition("=")[0].strip() for assignment in given.set or ()}
    if given.describe:
        print(describe_space(settings.space, settings.budget, missing=_missing(settings, named)), flush=True)
        return 0
    if PRETRAINED in named:
        fetch(settings.space)
    space, missing = leave_missing(settings.space, settings.budget, named=named)
    if WEIGHTS in named:
        fetch_weights(space)
    space, more = leave_missing_weights(space, settings.budget, named=named)
    for note in (*missing, *more):
        print(note)
    from search.runner import start_search

    if space.name in TABLES and not given.trials:
        settings = replace(settings, trials=configurations(space))
    return start_search(replace(settings, space=space))


def _missing(settings: NewSearch, named: set[str]) -> tuple[str, ...]:
    """What of the space cannot start here, a line each; nothing is downloaded for that."""
    try:
        return leave_missing(settings.space, settings.budget, named=named)[1]
    except SpaceError as error:
        return (str(error),)


def _resources(given: argparse.Namespace) -> Resources:
    return Resources(
        concurrency=given.concurrency,
        cpus_per_trial=given.cpus_per_trial,
        gpus_per_trial=given.gpus_per_trial,
        address=given.address,
        time_budget=given.time_budget,
        checkpoint_seconds=given.checkpoint_every or DEFAULT_CHECKPOINT_SECONDS,
    )


def _resumption(given: argparse.Namespace) -> Resumption:
    fixed = [name for name in _FIXED_WHEN_RESUMED if getattr(given, name) is not None]
    if fixed:
        flag = "--" + fixed[0].replace("_", "-")
        raise SettingsError(
            f"{flag} is fixed when a search starts, so it cannot be given with --resume; leave it out, or start a new "
            f"search without --resume."
        )
    return Resumption(
        name=check_name(given.resume) if given.resume else None,
        storage=given.storage,
        trials=given.trials,
        tracking_uri=given.tracking_uri,
        confirm=not given.no_confirm,
        resources=_resources(given),
    )


def _new_search(given: argparse.Namespace) -> tuple[NewSearch, list[str]]:
    budget = budget_named(given.budget or "quick")
    space, notes = _space(given.space or "genmix", given.set or [], budget)
    table = TABLES.get(space.name)
    settings = NewSearch(
        space=space,
        budget=budget,
        data=given.data,
        labels=given.labels,
        slice_rule=given.slice,
        positive=given.positive,
        skip_bad_images=bool(given.skip_bad_images),
        trials=given.trials or (configurations(space) if table else budget.trials),
        protocol=_protocol(given, space, budget),
        split_file=_absolute(given.split_file) if given.split_file else None,
        lock_test=given.lock_test or None,
        show_images=not given.no_images,
        confirm=not given.no_confirm and table is None,
        seed=given.seed or 0,
        metric=_metric(given.metric or (table.metric if table else "balanced_accuracy")),
        sampler=_one_of("--sampler", given.sampler or (table.sampler if table else "tpe"), SAMPLERS),
        scheduler=_one_of("--scheduler", given.scheduler or (table.scheduler if table else "asha"), SCHEDULERS),
        max_copy_rate=given.max_copy_rate,
        storage=given.storage,
        name=check_name(given.name) if given.name is not None else None,
        tracking_uri=given.tracking_uri or DEFAULT_TRACKING_URI,
        resources=_resources(given),
    )
    for flag, value in {"--labels": settings.labels, "--split-file": settings.split_file}.items():
        if value is not None and settings.data is None:
            raise SettingsError(f"{flag} was given without --data; name the folder of images with --data.")
    if settings.split_file is not None and settings.lock_test is not None:
        raise SettingsError(
            "--lock-test and --split-file were both given; the part 'test' of the file is locked. Leave one out."
        )
    return settings, notes


def _protocol(given: argparse.Namespace, space: Space, budget: Budget) -> Protocol:
    """What each trial is scored on, as far as it can be said without the data."""
    if given.folds == 1:
        raise SettingsError("--folds 1 leaves nothing to train on; give at least 2.")
    if given.leave_site_out and (given.folds is not None or given.split_file is not None):
        raise SettingsError(
            "--leave-site-out was given with --folds or --split-file; each of them divides the images. Leave one out."
        )
    needed = stops_early(space, budget)
    validation = (DEFAULT_VALIDATION if needed else 0.0) if given.validation is None else given.validation
    if needed and not validation:
        raise SettingsError(
            f"--validation 0 leaves nothing for early stopping to read; give a share, or --set {PATIENCE}=0."
        )
    return Protocol(
        kind="sites" if given.leave_site_out else "folds",
        folds=1 if given.leave_site_out else given.folds or budget.folds,
        repeats=given.repeats or (TABLES[space.name].repeats[budget.name] if space.name in TABLES else 1),
        validation=validation,
    )


def _one_of(flag: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise SettingsError(f"{flag} '{value}' does not exist; {nearest(value, valid)}.")
    return value


def _metric(name: str) -> str:
    """A score's name; scores per class (sensitivity_CLASS) can be checked only once the data is read."""
    if name not in SCORES and not name.startswith(("sensitivity_", "specificity_")):
        raise SettingsError(f"--metric '{name}' does not exist; {nearest(name, SCORES)}.")
    return name


def _space(name: str, fixed: Sequence[str], budget: Budget) -> tuple[Space, list[str]]:
    loaded = _load_space(name).with_choices(PRETRAINED, _absolute).with_choices(WEIGHTS, _absolute)
    space = whole = loaded.with_defaults(budget.settings, generators=budget.generators)
    notes: list[str] = []
    for assignment in fixed:
        dimension, equals, value = assignment.partition("=")
        if not equals:
            raise SpaceError(f"--set {assignment} has no '='; write --set generator.name=egan.")
        space, added = _fix(space, dimension.strip(), value.strip(), whole)
        notes += [f"--set {note}." for note in added]
    table = TABLES.get(space.name)
    if table is not None:
        space, added = adapted(table, space, budget, named={each.partition("=")[0].strip() for each in fixed})
        notes += added
    space = space.narrowed()
    check_space(space, budget)
    return space, notes


def _fix(space: Space, dimension: str, value: str, whole: Space) -> tuple[Space, tuple[str, ...]]:
    """Fix one dimension; a dimension that earlier options removed is told from one that never was."""
    if dimension in whole.names and dimension not in space.names:
        raise SpaceError(
            f"--set {dimension}={value} names a dimension that does not exist under the --set options before it; "
            f"leave one of them out."
        )
    if dimension == PRETRAINED and space.name in TABLES:
        return with_pipeline(space, _absolute(value)), ()
    if dimension not in whole.names and dimension in settable_names():
        return with_setting(space, dimension, _absolute(value) if dimension == WEIGHTS else value), ()
    try:
        return space.fix(dimension, _absolute(value) if dimension in (PRETRAINED, WEIGHTS) else value)
    except SpaceError as error:
        raise SpaceError(f"--set {dimension}={value}: {error}") from None


def _absolute(value: str) -> str:
    """The path of what lies on this machine from anywhere: trials are computed, and resumed, in other folders."""
    path = Path(value).expanduser()
    return str(path.resolve()) if value not in ("", SCRATCH) and path.exists() else value


def _load_space(name: str) -> Space:
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise SpaceError(f"--space '{name}' does not exist; {nearest(name, PRESETS)}, or the path of a .yaml file.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason: Any = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SpaceError(f"--space {name} cannot be read ({reason}); give the path of a .yaml file.") from None
    return space_from_yaml(text, source=name)
