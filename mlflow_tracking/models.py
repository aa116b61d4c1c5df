"""A search's model in MLflow: logged, registered under the search's name, fetched again without running its code."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version

from mlflow_tracking import names
from mlflow_tracking.connect import OUTAGES, TrackingError, TrackingOutage, client_for, probe, shown, sqlite_path, why
from mlflow_tracking.remote import Written, open_remote
from trainables.ledger import SearchRecord
from trainables.model_folder import CARD, MODEL, WARNING, read_card

_FAILURES: tuple[type[Exception], ...] = (*OUTAGES, ValueError)
"""What a download raises: MLflow takes apart some addresses that are none by a ValueError."""


class NotTracked(RuntimeError):  # noqa: N818 - it is written there when the search is
    """The server has no run of a search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version of a registered model: its address, and whether it was made now."""

    uri: str
    is_new: bool


def register(
    search: SearchRecord, folder: Path, *, make_client: Callable[[str], MlflowClient] = client_for
) -> Registered:
    """Log a model below a search's run and register it under the search's name; nothing where that has been done.

    Args:
        search: its record, whose tracking address is written to.
        folder: the model's.
        make_client: opens the client.

    Raises:
        NotTracked: the server has no run of the search.
        TrackingOutage: it cannot be reached or refuses; what was written is found when this is called again.
        DataError: the folder holds no model.
    """
    card, uri = read_card(folder), search.tracking_uri
    try:
        client = make_client(uri)
        remote = open_remote(client, uri, search, written=Written())
        if remote.search is None:
            raise NotTracked(f"'{shown(uri)}' has no run of the search '{search.name}' to log its model to")
        model = _logged(client, remote.experiment_id, card) or _log(
            client, remote.experiment_id, remote.search.id, folder, card
        )
        return _version(client, search.name, model, card)
    except OUTAGES as error:
        raise TrackingOutage(probe(uri) or why(error)) from error


def _logged(client: MlflowClient, experiment_id: str, card: Mapping[str, Any]) -> LoggedModel | None:
    """The same model, if the server has all of it."""
    key = card["training"]["key"]
    found = client.search_logged_models([experiment_id], filter_string=f"tags.`{names.MODEL}` = '{key}'")
    return next((each for each in found if each.status.name == "READY"), None)


def _log(client: MlflowClient, experiment_id: str, run_id: str, folder: Path, card: Mapping[str, Any]) -> LoggedModel:
    with tempfile.TemporaryDirectory() as place:
        packed = Path(place) / MODEL
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's about its own code, and advice on inferred signatures
            from mlflow_tracking.packed_model import pack

            pack(folder, card, packed)
        model = client.create_logged_model(
            experiment_id, name=MODEL, source_run_id=run_id, tags=_tags(card), model_type="classifier"
        )
        client.log_model_artifacts(model.model_id, str(packed))
        return client.finalize_logged_model(model.model_id, "READY")


def _tags(card: Mapping[str, Any]) -> dict[str, str]:
    return {
        names.MODEL: card["training"]["key"],
        names.SEARCH_ID: card["search"]["id"],
        names.TRIAL: card["search"]["trial"],
        names.DATA_DIGEST: card["data"]["digest"],
        names.PHANTOM: "yes" if card["data"]["phantom"] else "no",
        names.CLINICAL_USE: "no",
    }


def _version(client: MlflowClient, name: str, model: LoggedModel, card: Mapping[str, Any]) -> Registered:
    """The registered version of a logged model, made if there is none."""
    try:
        client.create_registered_model(name, tags={names.CLINICAL_USE: "no"}, description=WARNING)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = _tags(card)
    for each in client.search_model_versions(f"name = '{name}'"):
        if all(each.tags.get(tag) == tags[tag] for tag in (names.MODEL, names.SEARCH_ID)):
            return Registered(uri=f"models:/{name}/{each.version}", is_new=False)
    made = client.create_model_version(
        name,
        source=str(model.artifact_location),  # of "models:/ID" a database would ask the server that is set globally
        run_id=model.source_run_id,
        model_id=model.model_id,
        tags=tags,
        description=_description(card),
        await_creation_for=0,
    )
    return Registered(uri=f"models:/{name}/{made.version}", is_new=True)


def _description(card: Mapping[str, Any]) -> str:
    search = card["search"]
    mean = (search["scores"].get(search["metric"]) or {}).get("mean")
    score = f"; {search['metric']} {mean:.3f} over the folds of the search" if mean is not None else ""
    images = sum(card["training"]["images"].values())
    told = f"{search['trial']}: {search['policy']}, trained on all {images} images{score}."
    return names.shortened(" ".join([told, *(search["verdict"] or ()), WARNING]))


def fetch(address: str, tracking_uri: str, into: Path) -> Path:
    """Download a model that ``register`` logged; only its weights and its ``model.json`` are used, no code of it.

    Args:
        address: "models:/NAME/VERSION", "models:/NAME/latest", "models:/NAME@ALIAS", "models:/ID", "runs:/ID/PATH" or
            any other address of artifacts.
        tracking_uri: the server or database.
        into: an empty folder.

    Returns:
        The model's folder.

    Raises:
        TrackingError: there is no such model, or it is none of this program.
    """
    database = sqlite_path(tracking_uri)
    if database is not None and not database.exists():
        raise TrackingError(
            f"The model '{address}' cannot be had: there is no database {database}. Say with --tracking-uri where the "
            f"model was registered."
        )
    try:
        client = client_for(tracking_uri)
        location = _location(client, address) if address.startswith("models:/") else address
        root = Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=location, dst_path=str(into), tracking_uri=tracking_uri, registry_uri=tracking_uri
            )
        )
    except _FAILURES as error:
        wrong = why(error) if isinstance(error, OUTAGES) else "it is no address of artifacts"
        raise TrackingError(
            f"The model '{shown(address)}' cannot be had from '{shown(tracking_uri)}' ({wrong}); expected "
            f"models:/NAME/VERSION of that server. Name the server with --tracking-uri."
        ) from None
    for folder in (root, root / "artifacts" / MODEL):
        if (folder / CARD).is_file():
            return folder
    raise TrackingError(
        f"The model '{address}' of '{shown(tracking_uri)}' has no {CARD}; expected one that search/run.py refit logged."
    )


def _location(client: MlflowClient, address: str) -> str:
    """Where the artifacts of a model lie. MLflow's own resolution would ask whatever server is set globally."""
    found = get_model_name_and_version(client, address)
    if len(found) == 2:
        location = str(client.get_model_version_download_uri(*found))
        if not location.startswith("models:/"):
            return location
        found = (location.removeprefix("models:/"),)
    return str(client.get_logged_model(found[0]).artifact_location)
