"""Where a browser shows a search's trials."""

from __future__ import annotations

import shlex

from mlflow_tracking import names
from mlflow_tracking.connect import is_server, shown, sqlite_path

LOCAL_UI = "http://127.0.0.1:5000"


def page_address(tracking_uri: str, experiment_id: str) -> str:
    """The page that lists a search's trials, best first, with their scores and parameters.

    An experiment opens on an overview without runs, and its runs page shows no scores; this goes to the runs page in
    the view that is stored with the experiment, in the look for training rather than for language models. The page
    completes its address with the view's filter and order.

    Args:
        tracking_uri: an HTTP server, or a database, which ``mlflow ui`` shows at its usual address.
        experiment_id: the search's experiment.
    """
    base = shown(tracking_uri).rstrip("/") if is_server(tracking_uri) else LOCAL_UI
    return f"{base}/#/experiments/{experiment_id}/runs?viewStateShareKey={names.VIEW_KEY}&workflowType=machine_learning"


def ui_command(tracking_uri: str) -> str | None:
    """The command that serves the page of a database; None for a server, which serves it already.

    It names the database always: by itself MLflow takes a folder ``mlruns`` beside it for its store, and stops.
    """
    if is_server(tracking_uri):
        return None
    path = sqlite_path(tracking_uri)
    uri = f"sqlite:///{path}" if path is not None else shown(tracking_uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
