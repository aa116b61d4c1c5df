"""Where a browser shows a search's trials."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import quote

from mlflow_tracking import names
from mlflow_tracking.connect import is_server, shown, sqlite_path

LOCAL_UI = "http://127.0.0.1:5000"


def page_address(tracking_uri: str, experiment_id: str, metric: str) -> str:
    """The page that lists a search's trials, best first.

    An experiment opens on an overview without runs; this goes to its runs, filtered to trials.

    Args:
        tracking_uri: an HTTP server, or a database, which ``mlflow ui`` shows at its usual address.
        experiment_id: the search's experiment.
        metric: the score to order by.

    Returns:
        A complete address.
    """
    base = shown(tracking_uri).rstrip("/") if is_server(tracking_uri) else LOCAL_UI
    order = quote(f"metrics.`{names.score(metric)}`", safe="")
    condition = quote(f"tags.`{names.KIND}` = '{names.KIND_TRIAL}'", safe="")
    query = f"searchFilter={condition}&orderByKey={order}&orderByAsc=false"
    return f"{base}/#/experiments/{experiment_id}/runs?{query}"


def ui_command(tracking_uri: str) -> str | None:
    """The command that serves the page of a database; None for a server, which serves it already."""
    if is_server(tracking_uri):
        return None
    path = sqlite_path(tracking_uri)
    if path is not None and path == Path("mlflow.db").absolute():
        return "mlflow ui"
    uri = f"sqlite:///{path}" if path is not None else shown(tracking_uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
