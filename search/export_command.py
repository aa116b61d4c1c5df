"""The subcommand ``export``: a search as an Optuna study. Nothing reads it back: the ledger stays the truth."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, inspect

from mlflow_tracking.connect import shown
from search.console import open_console
from search.objectives import Objective, objectives_of, trial_value
from search.outcome import policy
from search.sampling.columns import told_as
from search.settings import SettingsError
from search.storage import find_search
from spaces.parameter import Choice, Float, Parameter, Value
from spaces.space import Space
from trainables.ledger import Ledger, SearchRecord
from trainables.results import TrialResult

OF_SEARCH = "genmix_search"
"""A study's attribute: the search that it shows. Studies without it are somebody else's, and stay as they are."""
_STATES = {
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "unfinished": TrialState.RUNNING,
}


def export(storage: Path, name: str | None, url: str, study: str | None) -> int:
    """Write a search as an Optuna study. Returns the exit code, 0.

    Args:
        storage: the folder of the searches.
        name: of the search; None: the latest.
        url: an Optuna storage.
        study: the study's name; None: the search's.

    Raises: SettingsError if there is no such search, or the Optuna storage cannot be used.
    """
    ledger = find_search(storage, name)
    record = ledger.search()
    called = study or record.name
    written = write_study(ledger, url, called)
    console = open_console()
    console.print(f"{shown(url)} has the {written} trials of {record.name} as the study '{called}'.")
    console.print(f"Look at it: optuna-dashboard {shlex.quote(shown(url))}")
    return 0


def write_study(ledger: Ledger, url: str, name: str) -> int:
    """Write the trials of a search into an Optuna storage. Returns how many there are.

    Args:
        ledger: the search.
        url: the Optuna storage.
        name: of the study; one that shows the same search is replaced.

    Raises: SettingsError if the storage cannot be used, or has another study of that name.
    """
    record = ledger.search()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = objectives_of(record)
    try:
        _check_tables(url)
        opened = optuna.storages.RDBStorage(url)
        if name in optuna.get_all_study_names(opened):
            attributes = optuna.load_study(study_name=name, storage=opened).user_attrs
            if attributes.get(OF_SEARCH) != record.name:
                raise SettingsError(
                    f"--optuna {shown(url)} has a study '{name}' that does not show this search; give another name "
                    f"with --study."
                )
            optuna.delete_study(study_name=name, storage=opened)
        directions = ["maximize" if each.maximize else "minimize" for each in objectives]
        study = optuna.create_study(storage=opened, study_name=name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([each.name for each in objectives])
        for key, value in {OF_SEARCH: record.name, "budget": record.budget, "data": record.data.digest}.items():
            study.set_user_attr(key, value)
        trials = ledger.trials()
        study.add_trials([_frozen(trial, record, objectives) for trial in trials])
    except SettingsError:
        raise
    except Exception as error:  # of SQLAlchemy, of a database's driver, of Optuna
        reason = " ".join(str(error).replace(url, shown(url)).split())[:300]
        if not reason or _hidden(url) & _words(reason):
            reason = type(error).__name__
        raise SettingsError(
            f"--optuna {shown(url)} cannot be used ({reason}); give an Optuna storage such as sqlite:///study.db."
        ) from error
    return len(trials)


def _check_tables(url: str) -> None:
    """Raises: SettingsError if a database is in use, and not Optuna's; nothing is written."""
    engine = create_engine(url)
    try:
        tables = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    others = sorted(set(tables) - {"alembic_version"})
    if tables and "studies" not in tables:
        raise SettingsError(
            f"--optuna {shown(url)} has tables of another program, such as '{(others or tables)[0]}'; give a new "
            f"database, such as sqlite:///study.db, or one of Optuna."
        )


def _hidden(url: str) -> set[str]:
    """The words of the password of an address, as they stand there and as a driver reads them."""
    return (_words(url) | _words(unquote(url))) - _words(shown(url))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _frozen(trial: TrialResult, record: SearchRecord, objectives: Sequence[Objective]) -> FrozenTrial:
    values = [trial_value(trial, each) for each in objectives]
    state = _STATES[trial.state]
    if state == TrialState.COMPLETE and None in values:
        state = TrialState.FAIL
    known = _distributions(record.space, trial.config)
    attributes: dict[str, Any] = {
        "trial": trial.id,
        "policy": policy(trial.config, record.space),
        "reference": trial.reference,
        "error": trial.error,
        "config": json.dumps(trial.config),
        **{name: summary.mean for name, summary in {**trial.scores, **trial.fidelity}.items()},
    }
    main = objectives[0].name
    reported = {fold.fold: fold.scores.get(main) for fold in trial.folds} if len(objectives) == 1 else {}
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=values if state == TrialState.COMPLETE else None,
        datetime_start=datetime.fromtimestamp(trial.created),
        datetime_complete=datetime.fromtimestamp(trial.ended) if trial.ended is not None else None,
        params={told: trial.config[name] for told, (name, _) in known.items()},
        distributions={told: distribution for told, (_, distribution) in known.items()},
        user_attrs={key: value for key, value in attributes.items() if value is not None},
        system_attrs={},
        intermediate_values={step: value for step, value in reported.items() if value is not None},
    )


def _distributions(space: Space, config: Mapping[str, Value]) -> dict[str, tuple[str, BaseDistribution]]:
    """The dimensions of a configuration, by the name that Optuna gets; a value outside the space is left out."""
    found = {}
    for dimension in space.dimensions:
        parameter, value = dimension.parameter, config.get(dimension.name)
        if value is not None and dimension.exists(config) and parameter.contains(value):
            found[told_as(dimension, space)] = dimension.name, _distribution(parameter)
    return found


def _distribution(parameter: Parameter) -> BaseDistribution:
    """A parameter as a reader of plots wants it: the options of a choice are shown as they are."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if isinstance(parameter, Float):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return IntDistribution(parameter.low, parameter.high, log=parameter.log)
