"""A server that hangs or answers with errors holds up neither the search nor its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlflow_tracking.live import LiveProjector
from mlflow_tracking.projector import Projector
from tests.mlflow_tracking.made_up import REAL, add_trial, new_ledger

HANG = 0
"""In place of a status: no answer at all."""


@contextmanager
def server(*, health: int, others: int) -> Iterator[str]:
    """A server that answers ``/health`` with one status and everything else with another."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status = health if self.path == "/health" else others
            if status == HANG:
                released.wait(60)
                return
            body = b"{}"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the class above
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        released.set()
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.parametrize(
    ("health", "others", "said"),
    [
        (HANG, HANG, "no answer within 3 s"),
        (500, 500, "/health answers 500"),
        (200, 500, "500"),
    ],
)
def test_the_end_of_a_search_waits_three_seconds_for_a_server_that_has_failed(
    tmp_path: Path, health: int, others: int, said: str
) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, REAL)
    messages: list[str] = []
    told = threading.Event()

    def hear(message: str) -> None:
        messages.append(message)
        told.set()

    with server(health=health, others=others) as uri:
        live = LiveProjector(Projector(ledger, uri), on_message=hear)
        live.start()
        assert told.wait(60)
        start = time.monotonic()
        assert not live.stop(interrupted=False)
        assert time.monotonic() - start < 5
    assert len(messages) == 1
    assert said in messages[0]


def test_the_end_of_a_search_waits_no_longer_than_it_says_for_a_call_that_hangs(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, REAL)
    with server(health=200, others=HANG) as uri:
        live = LiveProjector(Projector(ledger, uri), on_message=lambda message: None)
        live.start()
        time.sleep(0.5)  # within the first call
        start = time.monotonic()
        assert not live.stop(interrupted=True, timeout=2.0)
        assert 1.5 < time.monotonic() - start < 4
