"""The command line. It imports nothing heavy until the arguments are known to be good."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from search.description import described
from search.flags import confirm_parser, search_parser, show_parser
from search.new_search import named_dimensions, new_search, resources, resumption, with_models
from search.settings import EXIT_STORAGE_FULL, SettingsError
from spaces.describe import list_spaces
from spaces.errors import InputError, nearest
from spaces.presets import PRESETS
from trainables.errors import lacks_room

EXIT_BAD_INPUT = 2


def _show(arguments: Sequence[str]) -> int:
    given = show_parser().parse_args(arguments)
    from search.show import show

    return show(given.storage, given.name)


def _confirm(arguments: Sequence[str]) -> int:
    given = confirm_parser().parse_args(arguments)
    from search.confirm import REPEATS, TOP, Wish, confirm_search

    wish = Wish(top=given.top or TOP, repeats=given.repeats or REPEATS, again=given.again)
    return confirm_search(given.storage, given.name, wish, resources(given))


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


def _sync(arguments: Sequence[str]) -> int:
    from search.sync_flags import sync_parser

    given = sync_parser().parse_args(arguments)
    from search.sync_command import sync

    return sync(given.storage, given.name, given.tracking_uri)


def _doctor(arguments: Sequence[str]) -> int:
    from search.doctor_flags import doctor_parser

    given = doctor_parser().parse_args(arguments)
    from search.doctor import DoctorWish, doctor
    from trainables.data.source import Source

    images = Source(
        data=str(given.data), labels=given.labels, slice_rule=given.slice, skip_bad_images=given.skip_bad_images
    )
    return doctor(
        DoctorWish(
            storage=given.storage,
            data=images if given.data is not None else None,
            folds=given.folds,
            tracking_uri=given.tracking_uri,
            address=given.address,
            budget=given.budget,
        )
    )


def _ui(arguments: Sequence[str]) -> int:
    from search.ui_flags import ui_parser

    given = ui_parser().parse_args(arguments)
    from search.ui_command import ui

    return ui(given.storage, given.name, given.port)


def _export(arguments: Sequence[str]) -> int:
    from search.export_flags import export_parser

    given = export_parser().parse_args(arguments)
    from search.export_command import export

    return export(given.storage, given.name, given.optuna, given.study)


def _report(arguments: Sequence[str]) -> int:
    from search.report_flags import report_parser

    given = report_parser().parse_args(arguments)
    from search.report_command import ReportWish, report

    return report(ReportWish(storage=given.storage, name=given.name, compare=given.compare or (), out=given.out))


def _refit(arguments: Sequence[str]) -> int:
    from search.refit_flags import refit_parser

    given = refit_parser().parse_args(arguments)
    from search.refit_command import refit

    return refit(given.storage, given.name, given.trial)


def _predict(arguments: Sequence[str]) -> int:
    from search.predict_flags import predict_parser

    given = predict_parser().parse_args(arguments)
    from search.predict_command import PredictWish, predict_images

    return predict_images(
        PredictWish(
            model=given.model,
            images=given.images,
            out=given.out,
            slice_rule=given.slice,
            storage=given.storage,
            tracking_uri=given.tracking_uri,
        )
    )


def _synthesize(arguments: Sequence[str]) -> int:
    from search.synthesize_flags import synthesize_parser

    given = synthesize_parser().parse_args(arguments)
    from search.synthesize_command import SynthesizeWish, synthesize

    return synthesize(
        SynthesizeWish(
            storage=given.storage,
            name=given.name,
            trial=given.trial,
            out=given.out,
            count=given.count,
            of_class=given.of_class,
            file_format=given.format,
            seed=given.seed,
        )
    )


SUBCOMMANDS: Mapping[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "show": ("print a search's leaderboard again", _show),
    "confirm": ("evaluate the best of a search again, on fresh splits", _confirm),
    "stages": ("list, verify and prune the finished stages that searches share", _stages),
    "sync": ("bring an MLflow server up to date with a search", _sync),
    "report": ("write a search's report again, or put searches side by side", _report),
    "refit": ("train the best policy on all images, and keep the classifier", _refit),
    "predict": ("apply a refitted classifier to images", _predict),
    "synthesize": ("write synthetic images of the best trial's generator", _synthesize),
    "ui": ("show a search's trials in MLflow", _ui),
    "export": ("write a search as an Optuna study", _export),
    "doctor": ("check machine, storage, tracking server, cluster and data", _doctor),
}


def main(arguments: Sequence[str]) -> int:
    """Run the program.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0 done, 1 done but trials failed, 2 unusable input, 75 storage full, 130 or 143 stopped by a
        signal.
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
        print(f"{type(error).__name__}: {_printable(str(error))}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not lacks_room(error):
            raise
        print(f"The storage is full ({error}). Make room, and give the same command again.", file=sys.stderr)
        return EXIT_STORAGE_FULL
    except KeyboardInterrupt:
        is_search = not arguments or arguments[0] not in SUBCOMMANDS
        print("Stopped before anything began." if is_search else "Stopped.", file=sys.stderr)
        return 130


def _printable(text: str) -> str:
    """Text that says what it is and does nothing to a terminal: names of files and values come from anywhere."""
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


def _search(arguments: Sequence[str]) -> int:
    given = search_parser({name: purpose for name, (purpose, _) in SUBCOMMANDS.items()}).parse_args(arguments)
    if given.version:
        from search.versions import PACKAGE, versions

        print(f"{PACKAGE} {versions()[PACKAGE]}", flush=True)
        return 0
    if given.list_spaces:
        print(list_spaces(PRESETS), flush=True)
        return 0
    if given.resume is not None:
        wanted = resumption(given)
        from search.runner import resume_search

        return resume_search(wanted).exit_code
    settings, notes = new_search(given)
    for note in notes:
        print(note)
    named = named_dimensions(given.set or ())
    if given.describe:
        print(described(settings, named), flush=True)
        return 0
    settings, missing = with_models(settings, named, trials_given=given.trials is not None)
    for note in missing:
        print(note)
    from search.runner import start_search

    return start_search(settings).exit_code
