"""The subcommand ``refit``: train the best trial's policy on all images of a search, keep and register the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from mlflow_tracking.connect import TrackingError, TrackingOutage, shown
from mlflow_tracking.models import NotTracked, Registered, register
from mlflow_tracking.names import CONFIRMATION_FILE
from mlflow_tracking.remote import search_id
from search.attempt import driving
from search.commands import predict_command, refit_command, sync_command
from search.console import open_console
from search.outcome import policy, rank
from search.storage import check_tracking, check_writable, find_search
from search.versions import versions
from search.winner import bench, chosen_trial, config_of
from spaces.wording import counted
from trainables import refit as refitting
from trainables.errors import FinalTrialError, StopRequested
from trainables.files import read_json
from trainables.ledger import Ledger
from trainables.model_folder import MODEL
from trainables.pooled_intervals import score_intervals
from trainables.results import TrialResult


def refit(storage: Path, name: str | None, trial_id: str | None) -> int:
    """Refit a search's best trial, or another one. Returns the exit code: 1 if its training diverged.

    Args:
        storage: the folder of the searches.
        name: of the search; None: the latest.
        trial_id: of the trial; None: the best one, whose model is registered in MLflow.

    Raises:
        InputError: before anything is computed; or the tracking server went away, when the model is on disk.
    """
    console = open_console()
    search = find_search(storage, name)
    trial = chosen_trial(search, trial_id)
    check_writable(storage)
    check_tracking(search)
    with driving(search, console):
        return refit_trial(search, trial, console)


def refit_trial(search: Ledger, trial: TrialResult, console: Console) -> int:
    """Train a policy on all images of a search, and say where the model is. Returns the exit code.

    The caller drives the search. A model that is there already is only registered, if it is not; so nothing is lost
    when this is called again.

    Args:
        search: the search.
        trial: whose policy; that of the best trial is registered in MLflow.
        console: where it is said.

    Raises:
        InputError: the search's images have gone; or the tracking server, when the model is on disk.
    """
    folder, scored, wanted = model_folder(search, trial), len(trial.folds), search.search().folds
    if scored < wanted:
        has = f"only {scored} of {counted(wanted, 'fold')}" if scored else "no fold"
        console.print(f"{trial.id} has {has} scored, so that little is known of its model.", style="yellow")
    try:
        is_new = train(search, trial, folder, console)
    except FinalTrialError as error:
        console.print(f"The refit of {trial.id} failed: {error}", style="red")
        return 1
    except Stopped as stopped:
        console.print(f"The refit is not finished. Go on: {refit_command(search)}{_trial_flag(search, trial)}")
        return stopped.exit_code
    was = "" if is_new else ", which was there already"
    console.print(f"Model of {trial.id}, trained on all images of {search.folder.name}{was}: {folder}")
    if is_best(search, trial):
        registered = _register(search, folder)
        console.print(f"In MLflow: {registered.uri}")
    model = search.folder.name if is_best(search, trial) else str(folder)
    console.print(f"Use it: {predict_command(search, model)}")
    console.print("It is a research model, not for clinical use.", style="yellow")
    return 0


class Stopped(Exception):  # noqa: N818 - a signal, not an error
    """A training was left on a signal, whose exit code it holds; it goes on from there."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def train(search: Ledger, trial: TrialResult, folder: Path, console: Console) -> bool:
    """Train a policy on all images of a search and write the model, nothing else.

    Returns: whether it was trained now; False where the folder had it.

    Raises:
        Stopped: on a signal.
        FinalTrialError: the training led nowhere.
        InputError: the search's images have gone.
    """
    record = search.search()
    with bench(search, console, doing=f"refitting {trial.id}") as found:
        try:
            return refitting.refit(
                config_of(search, trial),
                record.protocol,
                found.environment,
                folder=folder,
                about=_about(search, trial),
                versions=versions(),
                slice_rule=record.source.slice_rule if record.source else None,
            )
        except StopRequested:
            raise Stopped(found.stop.exit_code or 130) from None


def model_folder(search: Ledger, trial: TrialResult) -> Path:
    """Where a trial's model lies; only the best one's is found by the search's name."""
    return search.folder / (MODEL if is_best(search, trial) else f"{MODEL}-{trial.id}")


def is_best(search: Ledger, trial: TrialResult) -> bool:
    """Whether a trial is the best of its search."""
    ranked = rank(search.trials(), search.search())
    return bool(ranked) and ranked[0].id == trial.id


def _trial_flag(search: Ledger, trial: TrialResult) -> str:
    return "" if is_best(search, trial) else f" --trial {trial.id}"


def _about(search: Ledger, trial: TrialResult) -> Mapping[str, Any]:
    """What a model says of the search that it comes from."""
    record = search.search()
    scored = search.trial(trial.id, predictions=not trial.intervals)
    path = search.folder / CONFIRMATION_FILE
    return {
        "name": search.folder.name,
        "id": search_id(record),
        "trial": trial.id,
        "policy": policy(trial.config, record.space),
        "config": dict(trial.config),
        "budget": record.budget,
        "metric": record.metric,
        "scores": {name: asdict(summary) for name, summary in trial.scores.items()},
        "intervals": {name: asdict(interval) for name, interval in score_intervals(scored, record).items()},
        "scored_on": f"{len(trial.folds)} of {record.folds} evaluations of the search, not on this model",
        "verdict": read_json(path)["sentences"] if path.exists() else None,
    }


def _register(search: Ledger, folder: Path) -> Registered:
    record = search.search()
    try:
        return register(record, folder)
    except NotTracked as error:
        raise TrackingError(
            f"The model is in {folder}, and was not registered: {error}. Write the search there by: "
            f"{sync_command(search)}; then give the same command again."
        ) from None
    except TrackingOutage as error:
        raise TrackingError(
            f"The model is in {folder}, and could not be registered in MLflow: '{shown(record.tracking_uri)}' went "
            f"away ({error}). Give the same command again to register it: {refit_command(search)}"
        ) from None
