"""A search run as a user runs it, in processes of its own, that can be waited for, hurt, killed and resumed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

from tests.benchmarks import crash_processes
from trainables.ledger import SHARED, Ledger

ROOT = Path(__file__).resolve().parent.parent.parent
_Found = TypeVar("_Found")
_TAIL = 1500
"""Characters of a search's output that an error repeats."""


class Broken(Exception):  # noqa: N818 - what it says of the search, not of this program
    """The search did not do what it must."""


class EndedEarlier(Broken):
    """The search came to a good end before what was waited for."""


class CrashSearch:
    """One search and all attempts at it; leaving the block ends whatever of it still runs.

    Args:
        work: a folder for everything of it, created if need be.
        arguments: what is searched, as for ``search/run.py``, without name, storage and tracking.
        storage: where the search lies; None: in ``work``.
        tracking_uri: None: an SQLite file in ``work``.
        attempts: arguments that every attempt is given, the first and the resumed ones.
        environment: further variables of its processes.
        wrap: what its command lines are made into.
    """

    NAME = "crash"

    def __init__(
        self,
        work: Path,
        arguments: Sequence[str],
        *,
        storage: Path | None = None,
        tracking_uri: str | None = None,
        attempts: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
        wrap: Callable[[Sequence[str]], Sequence[str]] = list,
    ) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work = work
        self.storage = (storage or work / "searches").resolve()
        self.tracking_uri = tracking_uri or f"sqlite:///{work.resolve()}/mlflow.db"
        self.ledger = Ledger(self.storage / self.NAME)
        self._arguments = [*arguments, "--name", self.NAME]
        self._attempts = list(attempts)
        self._environment = dict(environment)
        self._wrap = wrap
        self._scratch = Path(tempfile.mkdtemp(prefix="gmc"))  # short: Ray's sockets lie below it
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._since = 0.0

    def __enter__(self) -> CrashSearch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.kill()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """The search's own folder."""
        return self.ledger.folder

    @property
    def stages(self) -> Path:
        """The stage store."""
        return self.storage / SHARED / "stages"

    @property
    def pid(self) -> int:
        """The driver's process, which is also the session of all processes of the attempt."""
        assert self._process is not None
        return self._process.pid

    @property
    def attempt(self) -> int:
        """How often it was started or resumed."""
        return self._count

    def start(self) -> None:
        """Begin the search."""
        self._run(*self._arguments, "--tracking-uri", self.tracking_uri)

    def resume(self) -> None:
        """Go on with it; with one that was killed before it was on record, begin it."""
        if (self.folder / "search.json").exists():
            self._run("--resume", self.NAME)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.start()

    def _run(self, *arguments: str) -> None:
        self._count, self._since = self._count + 1, time.time()
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",
            "TMPDIR": str(self._scratch),
            "RAY_TMPDIR": str(self._scratch),
            **self._environment,
        }
        run = [sys.executable, str(ROOT / "search" / "run.py"), "--storage", str(self.storage)]
        with self._log().open("wb") as log:
            self._process = subprocess.Popen(
                self._wrap([*run, *arguments, *self._attempts]),
                cwd=self.work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _log(self) -> Path:
        return self.work / f"attempt-{self._count}.log"

    def log(self) -> str:
        """What the last attempt has printed."""
        return self._log().read_text(encoding="utf-8", errors="replace") if self._log().exists() else ""

    def has_ended(self) -> bool:
        """Whether the driver of the last attempt is gone."""
        return self._process is None or self._process.poll() is not None

    def wait_until(
        self, condition: Callable[[], _Found | None], what: str, *, limit: float = 300.0, every: float = 0.02
    ) -> _Found:
        """Poll until ``condition`` gives something else than None, and return that.

        Raises: Broken if the search ends before, or ``limit`` seconds pass.
        """
        deadline = time.monotonic() + limit
        while (found := condition()) is None:
            if self.has_ended():
                kind = EndedEarlier if self._code() == 0 else Broken
                raise kind(f"the search ended (exit {self._code()}) before {what}:{self._end_of_log()}")
            if time.monotonic() > deadline:
                raise Broken(f"after {limit:.0f} s still not {what}:{self._end_of_log()}")
            time.sleep(every)
        return found

    def freeze(self) -> None:
        """Stop all its processes where they stand, so that what is read then is of one moment."""
        crash_processes.freeze(self.pid)

    def thaw(self) -> None:
        """Let them go on."""
        crash_processes.thaw(self.pid)

    def kill(self) -> int:
        """SIGKILL to the driver and all that it started; returns to how many processes."""
        if self._process is None:
            return 0
        count = crash_processes.kill(self.pid)
        self._process.wait(30)
        return count

    def wait(self, limit: float) -> int:
        """Wait for the driver's end, and return its exit code. Raises: Broken if it takes longer than ``limit``."""
        assert self._process is not None
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Broken(f"the search has not ended within {limit:.0f} s:{self._end_of_log()}") from None

    def finish(self, limit: float, *, code: int = 0) -> None:
        """Wait for the end. Raises: Broken if that takes longer, or another exit code comes."""
        found = self.wait(limit)
        if found != code:
            raise Broken(f"the search ended with exit code {found}, not {code}:{self._end_of_log()}")

    def strays(self, patience: float = 10.0) -> list[int]:
        """Processes of an attempt that has ended which are still there after some seconds."""
        deadline = time.monotonic() + patience
        while (left := crash_processes.in_session(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def _end_of_log(self) -> str:
        return f"\n{self.log()[-_TAIL:].strip() or '(it printed nothing)'}"

    def folds(self) -> int:
        """How many folds are on record."""
        return sum(1 for _ in self.folder.glob("trials/*/fold_*.json"))

    def ended(self) -> int:
        """How many trials have ended."""
        return sum(1 for _ in self.folder.glob("trials/*/state.json"))

    def share(self, trials: int, folds: int) -> float:
        """How much of a search of so many trials is done, 0 to 1."""
        done = 0.0
        for trial in self.folder.glob("trials/t*"):
            done += 1 if (trial / "state.json").exists() else sum(1 for _ in trial.glob("fold_*.json")) / folds
        return done / trials

    def training(self, *, done: int = 1) -> tuple[str, dict[str, Any]] | None:
        """A trial that trains its generator in this attempt and has done so many steps, and what it said of that."""
        for path in sorted((self.folder / "trials").glob("*/progress.json")):
            trial = path.parent.name
            said = None if (path.parent / "state.json").exists() else self.ledger.progress(trial)
            if said is None or said["stage"] != "generator" or said["time"] < self._since:
                continue
            if done <= said["done"] < said["total"]:
                return trial, said
        return None
