"""Searches from Python: what the command line does, with the result as values."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.flags import search_parser
from search.new_search import named_dimensions, new_search, resumption, with_models
from search.settings import SettingsError
from spaces.errors import nearest
from spaces.parameter import Value
from trainables.ledger import Ledger, SearchRecord
from trainables.results import TrialResult

_COMMA_LISTS = ("metric",)
_NOT_OPTIONS = ("help", "version", "list_spaces", "describe", "set", "resume")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search has come to.

    Args:
        folder: STORAGE/NAME, with ``result.json``, ``best.yaml`` and the record of every trial.
        record: what was searched, on which data, with which seed.
        trials: all of them, in the order in which they were proposed.
        best: the trial that leads; None while none is complete.
        exit_code: how running it ended, as the command line says it; None where it was loaded.
    """

    folder: Path
    record: SearchRecord
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    exit_code: int | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each trial, as ``pandas.DataFrame`` takes them.

        ``trial``, ``state``, ``reference``, its configuration under the dotted names, each score's mean under its name
        and its standard deviation over folds under ``NAME_std``, likewise the fidelity; None where undefined.
        """
        return [_row(trial) for trial in self.trials]


def run_search(
    space: str | Path | None = None,
    *,
    data: str | Path | None = None,
    fixed: Mapping[str, Value] | None = None,
    resume: str | None = None,
    **options: Any,
) -> SearchResult:
    """Run a search, or go on with one.

    Args:
        space: a named space, or the path of a YAML file; None: genmix, or the one configuration of ``config``.
        data: folder or archive of images; None: the embedded phantom.
        fixed: dimensions and settings to fix, as ``--set`` does.
        resume: the name of a search to go on with; ``space``, ``data`` and ``fixed`` are left as they are then.
        **options: every option of the command line, with underscores: ``budget="standard"``, ``lock_test=0.2``,
            ``trials=50``, ``storage="searches"``, ``time_budget="2h"``; flags are True; ``metric`` and ``warm_start``
            may be lists.

    Returns:
        The search as it is when it ends, whether or not all trials are complete: see ``exit_code``.

    Raises:
        InputError: it cannot be run as asked; the sentence says what to do.
    """
    given = search_parser({}).parse_args(_arguments(options))
    given.resume = resume
    if resume is not None:
        wanted = resumption(given)
        from search.runner import resume_search

        finished = resume_search(wanted)
    else:
        given.space = None if space is None else str(space)
        given.data = None if data is None else Path(data)
        given.set = [f"{name}={_word(value)}" for name, value in (fixed or {}).items()] or None
        settings, _ = new_search(given)
        settings, _ = with_models(settings, named_dimensions(given.set or ()), trials_given=given.trials is not None)
        from search.runner import start_search

        finished = start_search(settings)
    return _result(finished.ledger, finished.exit_code)


def load_result(name: str | None = None, *, storage: str | Path = "searches") -> SearchResult:
    """What a search has come to, also while it runs.

    Args:
        name: of the search; None: the one started last.
        storage: the folder of the searches.

    Raises:
        SettingsError: there is none.
    """
    from search.storage import find_search

    return _result(find_search(Path(storage), name), None)


def _result(ledger: Ledger, exit_code: int | None) -> SearchResult:
    from search.outcome import rank

    record, trials = ledger.search(), ledger.trials()
    best = next(iter(rank(trials, record)), None)
    return SearchResult(folder=ledger.folder, record=record, trials=tuple(trials), best=best, exit_code=exit_code)


def _arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line, so that the same rules hold for both."""
    known = {
        action.dest: action
        for action in search_parser({})._actions
        if action.dest not in (*_NOT_OPTIONS, "space", "data")
    }
    words: list[str] = []
    for name, value in options.items():
        if name not in known:
            raise SettingsError(f"run_search has no option '{name}'; {nearest(name, known)}.")
        words += _words(known[name], value)
    return words


def _words(action: argparse.Action, value: object) -> list[str]:
    """An option's words. A list is one word of a flag that takes commas, and repeats a flag that may be repeated."""
    flag, values = action.option_strings[0], [value]
    if isinstance(value, list | tuple):
        if action.dest in _COMMA_LISTS:
            values = [",".join(map(_word, value)) or None]
        elif isinstance(action, argparse._AppendAction):
            values = list(value)
        else:
            raise SettingsError(f"run_search takes one value for '{action.dest}', and was given {value}; give one.")
    if action.nargs == 0:
        return [flag] if value else []
    return [f"{flag}={_word(each)}" for each in values if each is not None]


def _word(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _row(trial: TrialResult) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial.id, "state": trial.state, "reference": trial.reference, **trial.config}
    for name, summary in {**trial.scores, **trial.fidelity}.items():
        row |= {name: summary.mean, f"{name}_std": summary.std}
    return row
