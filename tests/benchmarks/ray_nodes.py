"""Ray clusters of several nodes on this machine, each of which can be killed or cut off as a machine is.

    with Nodes(cpus=1) as nodes:              # a head
        worker = nodes.add()                  # and a worker: nodes.add(hidden=FOLDER) sees an empty folder there
        subprocess.run(nodes.driver([sys.executable, "search/run.py", "--address", nodes.address, ...]),
                       env=nodes.environment)
        nodes.kill(worker)                    # all its processes at once
        nodes.cut(worker)                     # with Nodes(namespaces=True): its cable is drawn

Nodes have loopback addresses of their own, or as root network namespaces joined by veth pairs. Every cluster has its
own token, temporary folder and ports, and ends only processes of its own: others' clusters on this machine go on.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_MARK = "GENMIX_RAY_NODE"
_START_SECONDS = 180
_OBJECT_STORE_BYTES = 100 * 2**20


def cannot_have_namespaces() -> str | None:
    """Why no network namespaces can be made here, in words for a skipped test; None if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None:
        return "network namespaces need the command 'ip' of iproute2"
    name = f"gm{secrets.token_hex(3)}"
    commands = (
        ["ip", "netns", "add", name],
        ["ip", "-n", name, "link", "add", "name", "b", "type", "bridge"],
        ["ip", "-n", name, "link", "add", "name", "v", "type", "veth", "peer", "name", "w"],
    )
    try:
        for command in commands:
            tried = subprocess.run(command, capture_output=True, text=True, check=False)
            if tried.returncode != 0:
                return f"'{' '.join(command)}' says: {tried.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None


class Nodes:
    """A running head, and the workers that ``add`` has joined to it; used in a ``with`` statement.

    Args:
        cpus: of each node, the head too; as many tasks of one CPU run there.
        namespaces: give each node a network namespace of its own (root only) instead of a loopback address.
        environment: further variables of all nodes, as ``RAY_health_check_period_ms``.

    Attributes:
        address: HOST:PORT of the head.
        environment: variables of a driver that joins: this process's own, and where the token is.
        token: the file of the token.
        temporary: Ray's temporary folder; the nodes' logs are in it.
    """

    def __init__(
        self, *, cpus: int = 1, namespaces: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        self._cpus = cpus
        self._namespaces = namespaces
        self._id = secrets.token_hex(3)
        # short: the name of a Unix socket in it must not be longer than 107 bytes
        self.temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.token = self.temporary / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        joining = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), "RAY_USAGE_STATS_ENABLED": "0"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {**inherited, **joining}
        self._node_environment = {**self.environment, **(environment or {})}
        self._network = f"127.{random.randint(1, 250)}.{random.randint(0, 250)}" if not namespaces else "10.77.0"
        self._count = 0
        self.address = ""

    def __enter__(self) -> Self:
        try:
            head = self._prepare()
            self._start(head, ["--head", "--port=0", "--include-dashboard=false"])
            self.address = (self.temporary / "ray_current_cluster").read_text().strip()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, *, cpus: int | None = None, hidden: Path | None = None) -> int:
        """Join another node.

        Args:
            cpus: other than those of all nodes.
            hidden: a folder in whose place that node sees an empty one (root only).

        Returns:
            The node's number: 1 for the first worker. The head is 0.
        """
        number = self._prepare()
        self._start(number, [f"--address={self.address}"], cpus=cpus, hidden=hidden)
        return number

    def kill(self, number: int) -> None:
        """End all processes of a node at once, as a power cut does."""
        for _ in range(100):
            pids = self.pids(number)
            if not pids:
                return
            for pid in pids:
                _kill(pid)
            time.sleep(0.05)
        raise RuntimeError(f"processes of node {number} do not end: {self.pids(number)}")

    def cut(self, number: int) -> None:
        """Draw a node's cable: it runs on, and nobody reaches it."""
        _ip("-n", self._namespace(0), "link", "set", f"v{number}", "down")

    def join(self, number: int) -> None:
        """Put the cable in again."""
        _ip("-n", self._namespace(0), "link", "set", f"v{number}", "up")

    def host(self, number: int) -> str:
        """The address of a node."""
        return f"{self._network}.{number + 2}"

    def pids(self, number: int) -> list[int]:
        """Ids of a node's processes, those of its tasks too."""
        mark = f"{_MARK}={self._id}-{number}".encode()
        parents = _parents()
        found = {pid for pid in parents if mark in _variables(pid)}
        more = found
        while more:  # processes that have given themselves a name have lost their variables
            more = {pid for pid, parent in parents.items() if parent in more} - found
            found = found | more
        return sorted(found)

    def driver(self, command: Sequence[str]) -> list[str]:
        """A command line as it must be given so that it runs beside the head."""
        return [*self._inside(0), *command]

    def close(self) -> None:
        """End all nodes and remove what they left."""
        for number in reversed(range(self._count)):
            self.kill(number)
            if self._namespaces:
                subprocess.run(["ip", "netns", "del", self._namespace(number)], capture_output=True, check=False)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _prepare(self) -> int:
        """A number for another node, and its network."""
        number, self._count = self._count, self._count + 1
        if not self._namespaces:
            return number
        own, head, address = self._namespace(number), self._namespace(0), f"{self.host(number)}/24"
        _ip("netns", "add", own)
        _ip("-n", own, "link", "set", "lo", "up")
        if number == 0:
            _ip("-n", head, "link", "add", "name", "nodes", "type", "bridge")
            _ip("-n", head, "addr", "add", address, "dev", "nodes")
            _ip("-n", head, "link", "set", "nodes", "up")
            return number
        _ip("-n", head, "link", "add", "name", f"v{number}", "type", "veth", "peer", "name", "eth", "netns", own)
        _ip("-n", head, "link", "set", f"v{number}", "master", "nodes", "up")
        _ip("-n", own, "addr", "add", address, "dev", "eth")
        _ip("-n", own, "link", "set", "eth", "up")
        return number

    def _start(self, number: int, role: list[str], *, cpus: int | None = None, hidden: Path | None = None) -> None:
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", *role,
            f"--node-ip-address={self.host(number)}", f"--num-cpus={cpus or self._cpus}", "--num-gpus=0",
            f"--object-store-memory={_OBJECT_STORE_BYTES}", f"--temp-dir={self.temporary}",
            "--include-log-monitor=false", "--disable-usage-stats",
        ]  # fmt: skip
        if hidden is not None:
            hide = 'mount -t tmpfs none "$0" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", hide, str(hidden), *command]
        started = subprocess.run(
            [*self._inside(number), *command],
            env={**self._node_environment, _MARK: f"{self._id}-{number}"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_START_SECONDS, check=False,
        )  # fmt: skip
        if started.returncode != 0:
            raise RuntimeError(f"node {number} did not start: {started.stdout}{started.stderr}")

    def _inside(self, number: int) -> list[str]:
        return ["ip", "netns", "exec", self._namespace(number)] if self._namespaces else []

    def _namespace(self, number: int) -> str:
        return f"ray-{self._id}-{number}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"'ip {' '.join(arguments)}' says: {done.stderr.strip()}")


def _parents() -> dict[int, int]:
    """The parent of each process that runs."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(folder.name)] = int(parent)
    return found


def _variables(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
