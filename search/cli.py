"""The command line. It imports nothing heavy until the arguments are known to be good."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from search.chosen_space import absolute, chosen_space
from search.flags import DEFAULT_TRACKING_URI, SAMPLERS, SCHEDULERS, confirm_parser, search_parser, show_parser
from search.pretrained import PRETRAINED, WEIGHTS, fetch, fetch_weights, leave_missing, leave_missing_weights
from search.settings import MOST_AT_ONCE, NewSearch, Resources, Resumption, SettingsError, check_name
from spaces.budget import Budget, budget_named
from spaces.config import PATIENCE, stops_early
from spaces.describe import describe_space, list_spaces
from spaces.errors import InputError, SpaceError, nearest
from spaces.paper_table import configurations
from spaces.presets import PRESETS, TABLES
from spaces.protocol import OWN_SPLITS, Protocol
from spaces.space import Space
from trainables.metrics.catalogue import SCORES, SECONDS

EXIT_FAILED_TRIALS = 1
EXIT_BAD_INPUT = 2
DEFAULT_CHECKPOINT_SECONDS = 60.0
DEFAULT_VALIDATION = 0.15
_FIXED_WHEN_RESUMED = (
    "space", "set", "budget", "data", "labels", "slice", "positive", "skip_bad_images", "folds", "repeats",
    "leave_site_out", "split_file", "lock_test", "validation", "no_images", "seed", "metric", "sampler", "scheduler",
    "warm_start", "no_sharing", "max_copy_rate", "name",
)  # fmt: skip


def _show(arguments: Sequence[str]) -> int:
    given = show_parser().parse_args(arguments)
    from search.show import show

    return show(given.storage, given.name)


def _confirm(arguments: Sequence[str]) -> int:
    given = confirm_parser().parse_args(arguments)
    from search.confirm import REPEATS, TOP, Wish, confirm_search

    wish = Wish(top=given.top or TOP, repeats=given.repeats or REPEATS, again=given.again)
    return confirm_search(given.storage, given.name, wish, _resources(given))


def _stages(arguments: Sequence[str]) -> int:
    from search.stages_flags import stages_parser

    given = stages_parser().parse_args(arguments)
    from search.stages_command import StagesWish, stages

    return stages(
        StagesWish(
            storage=given.storage,
            verify=given.verify,
            prune=given.prune,
            limit=given.stage_limit,
            older_than=given.older_than,
            everything=given.all,
            as_json=given.json,
        )
    )


SUBCOMMANDS: Mapping[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "show": ("print a search's leaderboard again", _show),
    "confirm": ("evaluate the best of a search again, on fresh splits", _confirm),
    "stages": ("list, verify and prune the finished stages that searches share", _stages),
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
    given = search_parser({name: purpose for name, (purpose, _) in SUBCOMMANDS.items()}).parse_args(arguments)
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
        print(describe_space(settings.space, settings.budget, missing=_missing(settings, named)))
        print(f"\n{_cost(settings)}", flush=True)
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


def _cost(settings: NewSearch) -> str:
    """What the search would cost here; it is simulated, nothing is computed."""
    from search.cost_estimate import estimate, known_durations

    if settings.protocol.kind == "sites":
        return "What it costs depends on how many sites there are; without --leave-site-out it is said here."
    durations = known_durations(settings.storage, settings.budget, images=_training_images(settings))
    if durations is None:
        return f"What it costs is not known: nothing was measured under the budget {settings.budget.name} here yet."
    protocol, resources = settings.protocol, settings.resources
    cores = len(os.sched_getaffinity(0)) // (resources.cpus_per_trial or 1)
    slots = resources.concurrency or min(settings.trials, cores, MOST_AT_ONCE)
    return estimate(
        settings.space,
        settings.budget,
        trials=settings.trials,
        folds=protocol.folds * protocol.repeats,
        concurrency=max(1, slots),
        sampler=settings.sampler,
        durations=durations,
        sharing=settings.sharing,
        seed=settings.seed,
    ).in_words()


def _training_images(settings: NewSearch) -> int | None:
    """How many images a fold trains on, from the number of lines of the labels; None where these are not a file."""
    if settings.data is None:
        return None
    labels = settings.data / (settings.labels or "labels.csv")
    try:
        with labels.open("rb") as file:
            rows = sum(1 for _ in file) - 1
    except OSError:
        return None
    folds = settings.protocol.folds
    return max(1, rows * (folds - 1) // folds)


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
        stage_limit=given.stage_limit,
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
    space, notes = chosen_space(given.space or "genmix", given.set or [], budget)
    table = TABLES.get(space.name)
    sampler = "tpe" if given.no_sharing else "reuse"
    metrics = _metrics(given.metric or (table.metric if table else "balanced_accuracy"))
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
        folds_given=given.folds is not None,
        split_file=_parts(given.split_file),
        lock_test=given.lock_test or None,
        show_images=not given.no_images,
        confirm=not given.no_confirm,
        seed=given.seed or 0,
        metric=metrics[0],
        further_metrics=metrics[1:],
        sampler=_one_of("--sampler", given.sampler or (table.sampler if table else sampler), SAMPLERS),
        scheduler=_one_of("--scheduler", given.scheduler or (table.scheduler if table else "racing"), SCHEDULERS),
        warm_start=tuple(check_name(name) for name in dict.fromkeys(given.warm_start or ())),
        sharing=not given.no_sharing,
        max_copy_rate=given.max_copy_rate,
        storage=given.storage,
        name=check_name(given.name) if given.name is not None else None,
        tracking_uri=given.tracking_uri or DEFAULT_TRACKING_URI,
        resources=_resources(given),
    )
    for flag, value in {"--labels": settings.labels, "--split-file": settings.split_file}.items():
        if value is not None and settings.data is None:
            raise SettingsError(f"{flag} was given without --data; name the folder of images with --data.")
    if settings.warm_start and settings.sampler not in ("reuse", "tpe"):
        raise SettingsError(
            f"--warm-start was given with the sampler '{settings.sampler}', which learns from no trial; use --sampler "
            f"reuse or tpe, or leave it out."
        )
    if settings.further_metrics and settings.scheduler == "asha":
        raise SettingsError(
            f"--scheduler asha compares trials by one score, and --metric names {1 + len(settings.further_metrics)}; "
            f"use racing or fifo."
        )
    if not settings.sharing and settings.sampler == "reuse":
        raise SettingsError(
            "--no-sharing leaves the sampler 'reuse' nothing to reuse; use --sampler tpe, random or grid with it."
        )
    if settings.split_file is not None and settings.lock_test is not None:
        raise SettingsError(
            "--lock-test and --split-file were both given; the part 'test' of the file is locked. Leave one out."
        )
    return settings, notes


def _parts(given: str | None) -> str | None:
    """A split file's path, found from every folder; "labels" means the labels' own column."""
    return given if given in (None, OWN_SPLITS) else absolute(given)


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
    if validation and not needed:
        raise SettingsError(
            f"--validation {validation:g} cuts patients from training whom nothing reads; --set {PATIENCE}=10 lets the "
            f"classifier stop early, or leave it out."
        )
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


def _metrics(text: str) -> tuple[str, ...]:
    """The names of one score or several; scores per class (sensitivity_CLASS) are checked once the data is read."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in (*SCORES, SECONDS) and not name.startswith(("sensitivity_", "specificity_")):
            raise SettingsError(f"--metric '{name}' does not exist; {nearest(name, (*SCORES, SECONDS))}.")
    if len(set(names)) < len(names):
        raise SettingsError(f"--metric {text} names a score twice; name each once.")
    if names[0] == SECONDS:
        raise SettingsError(
            f"--metric {text} begins with what trials cost; name the score to improve before it, as in "
            f"balanced_accuracy,{SECONDS}."
        )
    return names
