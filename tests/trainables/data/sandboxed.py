"""Functions for worker processes that misbehave, each made by a factory as ``Sandbox`` wants it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Work: TypeAlias = Callable[[Mapping[str, Any]], tuple[Mapping[str, Any], Sequence[bytes]]]


def misbehaving() -> Work:
    return _misbehave


def _misbehave(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[bytes]]:
    """Do as ``do`` says; ``once`` names a file that remembers that it was done."""
    once = content.get("once")
    if once is not None and Path(once).exists():
        return {"done": "the second time"}, ()
    if once is not None:
        os.mkdir(once)  # noqa: PTH102 - workers write no files, and folders are none
    do = content.get("do")
    if do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif do == "leave":
        os._exit(7)
    elif do == "hang":
        time.sleep(3600)
    elif do == "spin":
        while True:
            pass
    elif do == "eat":
        bytearray(2**33)
    elif do == "raise":
        raise ValueError("no such thing")
    elif do == "write":
        Path(content["file"]).write_bytes(b"x")
    elif do == "sleep":
        time.sleep(content["pause"])
    return {"done": content.get("number"), "pid": os.getpid()}, (bytes(content.get("size", 0)),)


def unusable() -> Work:
    raise ImportError("no module named x")


def dying() -> Work:
    os._exit(3)


def crashing_decoder() -> Work:
    """A decoder like the real one, that some file names make misbehave."""
    from trainables.data.decoding import decoded

    def decode(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[bytes]]:
        name = Path(str(content.get("path"))).stem
        if name in ("crash", "hang", "eat"):
            _misbehave({"do": "spin" if name == "hang" else name})
        head, blobs = decoded(content)
        return head, [bytes(each) for each in blobs]

    return decode
