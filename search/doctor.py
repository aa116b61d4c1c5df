"""The subcommand ``doctor``: whether this machine, and what it reaches, can run a search; one line for each part."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.text import Text

from search.console import open_console
from search.doctor_finding import Finding, State, fine, wrong
from search.doctor_machine import packages, processors, python
from search.doctor_storage import kind_of_storage, room, shared_memory, storage_works
from spaces.budget import Budget, budget_named
from trainables.data.source import Source

EXIT_WRONG = 1
PATIENCE = 60.0
"""Seconds in which a check must end."""
_STYLES: Mapping[State, str] = {"ok": "green", "warn": "yellow", "fail": "red"}

Checks = Mapping[str, Callable[[], Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorWish:
    """What is to be checked beside this machine.

    Args:
        storage: the folder of the searches.
        tracking_uri: the MLflow server or database.
        data: images to read, and how; None: none.
        folds: of the search that is meant; None: the budget's.
        address: the Ray cluster to join; None: none.
        budget: of the search that is meant.
    """

    storage: Path
    tracking_uri: str
    data: Source | None = None
    folds: int | None = None
    address: str | None = None
    budget: str = "quick"


def doctor(wish: DoctorWish) -> int:
    """Check everything and say what was found. Returns the exit code: 1 if anything is in the way of a search.

    Raises: ConfigError if there is no such budget.
    """
    return examine(checks_for(wish, budget_named(wish.budget)), open_console())


def checks_for(wish: DoctorWish, budget: Budget) -> Checks:
    """All checks by name, in the order in which they are made: those that need no heavy library first."""
    checks: dict[str, Callable[[], Finding]] = {
        "Python": python,
        "packages": packages,
        "processors": processors,
        "storage": lambda: storage_works(wish.storage),
        "file system": lambda: kind_of_storage(wish.storage),
        "room": lambda: room(wish.storage, budget),
        "shared memory": shared_memory,
        "GPUs": lambda: _services().gpus(),
        "torchvision": lambda: _services().torchvision(),
        "tracking": lambda: _services().tracking(wish.tracking_uri),
        "pretrained": lambda: _services().pretrained(budget),
    }
    address, data = wish.address, wish.data
    if data is not None:
        checks["data"] = lambda: _services().images(data, folds=wish.folds or budget.folds)
    if address is not None:
        checks["Ray"] = lambda: _services().cluster(address, wish.storage)
    else:
        checks["Ray"] = lambda: fine("this machine alone (--address HOST:PORT|auto checks a cluster)")
    return checks


def examine(checks: Checks, console: Console, *, patience: float = PATIENCE) -> int:
    """Make the checks one after the other, whatever becomes of each, and print a line for each.

    Args:
        checks: by name.
        console: where they are printed.
        patience: seconds in which a check must end.

    Returns:
        The exit code: 1 if any failed.
    """
    width = max(map(len, checks))
    states = []
    for name, check in checks.items():
        found = _made(check, patience)
        states.append(found.state)
        console.print(Text.assemble((f"{found.state:4}", _STYLES[found.state]), f"  {name:{width}}  {found.text}"))
        sys.stdout.flush()
    count = {state: states.count(state) for state in _STYLES}
    console.print(f"{len(states)} checks: {count['ok']} ok, {count['warn']} to know, {count['fail']} in the way.")
    return EXIT_WRONG if count["fail"] else 0


def _made(check: Callable[[], Finding], patience: float) -> Finding:
    """What a check finds; that it took too long, or failed itself, is a finding too."""
    answer: Future[Finding] = Future()

    def run() -> None:
        try:
            answer.set_result(check())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="doctor").start()
    try:
        return answer.result(patience)
    except FutureTimeout as error:
        if answer.done():
            return _failed(error)
        return wrong(f"no answer within {patience:.0f} s; what it looks at hangs, or is very slow")
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> Finding:
    text = " ".join(str(error).split())
    return wrong(f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__)


def _services() -> ModuleType:
    """The checks that need PyTorch, MLflow or Ray, imported when the first lines have been printed."""
    return import_module("search.doctor_services")
