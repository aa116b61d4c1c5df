"""The subcommand ``ui``: MLflow's pages over a search's database, on loopback, at the page of its trials."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from mlflow_tracking.address import page_address
from mlflow_tracking.connect import client_for, is_server, probe, shown
from mlflow_tracking.names import SEARCH_ID
from mlflow_tracking.remote import search_id
from search.commands import sync_command
from search.console import open_console
from search.settings import SettingsError
from search.storage import check_tracking, find_search
from trainables.ledger import Ledger

_HOST = "127.0.0.1"
_FIRST_PORT, _PORTS = 5000, 50
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


def ui(storage: Path, name: str | None, port: int | None) -> int:
    """Serve the pages until Ctrl-C, SIGTERM or SIGHUP. Returns the exit code: 0, or that of a server that ends so.

    Args:
        storage: the folder of the searches.
        name: of the search; None: the latest.
        port: to serve on; None: the first that is free from 5000 on.

    Raises: SettingsError if there is no such search, nothing of it in MLflow, or the port is taken.
    """
    console = open_console()
    search = find_search(storage, name)
    record, experiment = search.search(), _experiment(search)
    if is_server(record.tracking_uri):
        console.print(f"Trials in MLflow: {page_address(record.tracking_uri, experiment)}")
        return 0
    chosen = _free_port(port)
    uri = f"http://{_HOST}:{chosen}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(chosen), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": record.tracking_uri}
    server = subprocess.Popen(  # noqa: S603 - no word of it comes from outside
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the server must not be left behind
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as it is under nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        _wait_for(server, uri)
        console.print(f"Trials in MLflow: {page_address(uri, experiment)}")
        console.print("Ctrl-C ends it.")
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)


def _experiment(search: Ledger) -> str:
    record = search.search()
    check_tracking(search)
    ours = f"tags.`{SEARCH_ID}` = '{search_id(record)}'"
    found = client_for(record.tracking_uri).search_experiments(filter_string=ours, max_results=1)
    if not found:
        raise SettingsError(
            f"'{record.name}' is not in {shown(record.tracking_uri)} yet; write it there by: {sync_command(search)}"
        )
    return str(found[0].experiment_id)


def _free_port(wanted: int | None) -> int:
    """Raises: SettingsError if the port asked for, or every one that is tried, is taken."""
    for port in [wanted] if wanted is not None else range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        with socket.socket() as probing, suppress(OSError):
            probing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probing.bind((_HOST, port))
            return port
    raise SettingsError(f"--port {wanted or _FIRST_PORT} is taken on this machine; give another one.")


def _wait_for(server: subprocess.Popen[bytes], uri: str) -> None:
    """Raises: SettingsError if the server ends, or does not answer in time."""
    deadline = time.monotonic() + _START_SECONDS
    while probe(uri, timeout=1.0) is not None:
        if server.poll() is not None or time.monotonic() > deadline:
            raise SettingsError(f"MLflow's server did not start at {uri}; try: mlflow server --host {_HOST}")
        time.sleep(0.2)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and all that it has started."""
    for number, patience in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(patience)
            return
