"""The other end of ``sandbox``: a process that answers requests within limits until nobody listens any more.

It has to stay light: it imports what its function needs, and neither PyTorch nor a scheduler.
"""

from __future__ import annotations

import importlib
import json
import resource
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

from trainables.errors import lacks_memory

Work: TypeAlias = Callable[[Any], tuple[Any, Sequence[bytes | memoryview]]]
"""From a request's content to plain data and the bytes that go with it."""

_FURTHER_SIGNS = ("failed to allocate memory", "bad_alloc", "bad allocation")
"""In the messages of ITK and C++ that say that memory is lacking."""


def serve(descriptor: int, factory: str) -> None:
    """Answer requests that come through a socket, until it is closed.

    Args:
        descriptor: of the socket.
        factory: "package.module:name" of what returns the function to call.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for over in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(over, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(descriptor)
    try:
        work = _made(factory)
    except Exception as error:
        _send(connection, {"unusable": f"{type(error).__name__}: {error}"}, ())
        return
    # what reads has no reason to write a file
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    _send(connection, {"ready": True}, ())
    while True:
        try:
            order = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        head, blobs = _answer(work, order)
        try:
            _send(connection, head, blobs)
        except OSError:
            return


def _made(factory: str) -> Work:
    module, _, name = factory.partition(":")
    work: Work = getattr(importlib.import_module(module), name)()
    return work


def _send(connection: Connection, head: Any, blobs: Sequence[bytes | memoryview]) -> None:
    connection.send_bytes(json.dumps(head).encode())
    for blob in blobs:
        connection.send_bytes(blob)


def _answer(work: Work, order: Any) -> tuple[Any, Sequence[bytes | memoryview]]:
    """Call the function. The timers' default action ends the process, even where the interpreter is stuck."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = _address_space() + int(order["memory"])
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    signal.setitimer(signal.ITIMER_PROF, order["processor"])
    signal.setitimer(signal.ITIMER_REAL, order["clock"])
    try:
        content, blobs = work(order["content"])
    except Exception as error:
        blobs = ()
        if lacks_memory(error) or any(sign in str(error).lower() for sign in _FURTHER_SIGNS):
            content = {"failure": "memory", "detail": f"{int(order['memory']) // 2**20} MB"}
        else:
            content = {"failure": "error", "detail": f"{type(error).__name__}: {error}"}
        return content, blobs
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return {"content": content, "blobs": len(blobs)}, blobs


def _address_space() -> int:
    """Bytes of address space that this process has now; RLIMIT_AS counts these, not what is resident."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()
