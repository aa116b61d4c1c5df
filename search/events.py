"""Progress for machines: one JSON object a line on standard output, everything for people on standard error.

Each has ``event`` and ``time`` (seconds since the epoch):

- ``start``: ``search``, ``folder``, ``trials`` (wanted), ``ended``;
- ``progress``, every few seconds: ``completed``, ``pruned``, ``failed``, ``running`` (trial, fold, stage, done, total),
  ``best`` (trial, score), ``seconds_left``;
- ``trial``, once for each that ends: ``trial``, ``state``, ``scores`` (means over its folds), ``config``, ``error``;
- ``end``: ``exit_code``, ``folder``, ``best``.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def write_event(event: str, **fields: Any) -> None:
    """Write one event; undefined values are null."""
    print(json.dumps({"event": event, "time": time.time(), **fields}, ensure_ascii=False), file=sys.stdout, flush=True)
