"""Whether every node of a Ray cluster can compute trials of a search: same storage, versions, code and images."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.node_report import MISSING, NONCE, PYTHON, NodeReport, look, look_and_answer, read_text
from search.settings import SettingsError

_PATIENCE = 60.0
"""Seconds in which a node must answer."""
_PROBE = ".nodes-"
_OLD = 24 * 3600.0
_DRIVER_ALONE = ("genmix-search", "optuna", "mlflow")
"""Packages that no node needs: trials get this project's code from the driver, and propose and track nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAnswer:
    """A node, and its report or why there is none.

    Args:
        address: its IP address.
        host: its host name.
        report: what it sees.
        failure: in words that follow "it", where there is no report.
        written: whether the driver found what the node wrote into the storage.
    """

    address: str
    host: str
    report: NodeReport | None = None
    failure: str = ""
    written: bool = False

    @property
    def name(self) -> str:
        """How messages call the node."""
        return f"{self.address} ({self.host})"


def check_nodes(
    storage: Path, cohort_folder: Path | None, versions: Mapping[str, str], *, patience: float = _PATIENCE
) -> None:
    """Let every node with CPUs of the connected Ray cluster look at storage and code, and compare with what is here.

    Args:
        storage: the folder of searches; it must exist.
        cohort_folder: the decoded images of the search, in the storage; None if there are none yet.
        versions: of Python, of which the first two numbers count, and of packages. What follows a "+", as in
            2.9.0+cu128, may differ, and so may packages that the driver alone needs.
        patience: seconds in which a node must answer.

    Raises:
        SettingsError: the folder cannot be used here, or nodes cannot compute this search; each is named with what was
            found there, what was expected and what to do.
    """
    storage, versions = storage.resolve(), {name: versions[name] for name in versions if name not in _DRIVER_ALONE}
    cohort_folder = None if cohort_folder is None else cohort_folder.resolve()
    with _probe(storage) as probe:
        here = look(storage, cohort_folder, tuple(versions), probe=probe.folder)
        if here.lacking is not None:
            raise SettingsError(f"--storage {storage} cannot hold searches ({here.lacking}); name another folder.")
        answers = _ask(probe, storage, cohort_folder, tuple(versions), patience)
    text = judgement(answers, here, storage, versions)
    if text is not None:
        raise SettingsError(text)


def judgement(
    answers: Sequence[NodeAnswer], here: NodeReport, storage: Path, versions: Mapping[str, str]
) -> str | None:
    """What must be mended before the search can begin, a line for each thing; None if nothing.

    Args:
        answers: of all nodes.
        here: what the driver itself sees.
        storage: the folder of searches.
        versions: of packages, as they must be.
    """
    nodes_of: dict[str, list[str]] = {}
    for answer in answers:
        for sentence in _differences(answer, here, storage, versions):
            nodes_of.setdefault(sentence, []).append(answer.name)
    if not nodes_of:
        return None
    bad = {name for names in nodes_of.values() for name in names}
    lines = [f"- {_listed(names)}: {sentence}" for sentence, names in nodes_of.items()]
    return "\n".join([f"{len(bad)} of the cluster's {len(answers)} nodes cannot compute this search:", *lines])


def _differences(answer: NodeAnswer, here: NodeReport, storage: Path, versions: Mapping[str, str]) -> Iterator[str]:
    """What of a node's answer must be mended."""
    there = answer.report
    if there is None:
        yield f"it {answer.failure}."
        return
    trouble = _storage_trouble(answer, there, here, storage)
    if trouble is not None:
        yield trouble
    elif there.cohort != here.cohort:
        seen = "cannot be read there" if there.cohort is None else "have other bytes there"
        yield (
            f"the decoded images in {storage} {seen}; make the folder readable for the user of the Ray processes, and "
            f"mount it there without a cache of its own."
        )
    for name, version in versions.items():
        found = there.versions.get(name, MISSING)
        if _counting(name, found) != _counting(name, version):
            have = "is missing there" if found == MISSING else f"has version {found} there"
            yield f"{name} {have}, and version {version} where the search was started; install that there."
    if there.sources != here.sources:
        yield (
            f"another version of this project is loaded there, from {there.sources_at}; remove it, or bring it to the "
            f"version of {here.sources_at}."
        )


def _storage_trouble(answer: NodeAnswer, there: NodeReport, here: NodeReport, storage: Path) -> str | None:
    """What is wrong with the folder as a node sees it, in one sentence."""
    mount = f"mount the folder of the machine where the search was started ({here.file_system}) there, or name a folder"
    advice = f"{mount} that all nodes share with --storage"
    if not there.there:
        return f"the folder {storage} cannot be seen there; {advice}."
    if there.nonce != here.nonce:
        return f"{storage} is another folder there ({there.file_system}), without this search's files; {advice}."
    if not there.exclusive:
        return (
            f"{storage} lacks exclusive create there ({there.file_system}): a file that exists can be created again; "
            f"name a folder on NFS 4, Lustre or another shared file system that has it with --storage."
        )
    if there.lacking is not None:
        return (
            f"{storage} cannot be used there ({there.lacking}; {there.file_system}); let the user of the Ray processes "
            f"write there, or name another shared folder with --storage."
        )
    if not answer.written:
        return f"what is written into {storage} there does not arrive here ({there.file_system}); {advice}."
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """A folder in the storage that is there during the check; nodes answer in files of their own in it."""

    folder: Path
    nonce: str

    def answered(self, node: str) -> bool:
        """Whether what a node has written is seen here."""
        return read_text(self.folder / node) == self.nonce


@contextmanager
def _probe(storage: Path) -> Iterator[_Probe]:
    probe = _Probe(folder=storage / f"{_PROBE}{secrets.token_hex(8)}", nonce=secrets.token_hex(16))
    _remove_old(storage)
    try:
        probe.folder.mkdir()
        (probe.folder / NONCE).write_text(probe.nonce, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"--storage {storage} cannot be written ({error.strerror}); name a folder that can."
        ) from None
    try:
        yield probe
    finally:
        shutil.rmtree(probe.folder, ignore_errors=True)


def _remove_old(storage: Path) -> None:
    """Remove what checks have left that were killed."""
    for folder in storage.glob(f"{_PROBE}*"):
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - _OLD:
                shutil.rmtree(folder, ignore_errors=True)


def _ask(
    probe: _Probe, storage: Path, cohort_folder: Path | None, names: Sequence[str], patience: float
) -> list[NodeAnswer]:
    """Let each node look; all at the same time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look_and_answer)
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0}
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(
            node_id, storage, cohort_folder, names, probe.folder
        ): node_id
        for node_id in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=patience)
    answers = []
    for reference, node_id in asked.items():
        node = nodes[node_id]
        report, failure = _result(reference) if reference in answered else (None, _silence(patience))
        if report is None:
            ray.cancel(reference, force=True)
        answers.append(
            NodeAnswer(
                address=node["NodeManagerAddress"],
                host=node["NodeManagerHostname"],
                report=report,
                failure=failure,
                written=report is not None and probe.answered(node_id),
            )
        )
    return sorted(answers, key=lambda answer: answer.name)


def _result(reference: Any) -> tuple[NodeReport | None, str]:
    """A task's report, or why there is none."""
    import ray
    from ray.exceptions import NodeDiedError, RuntimeEnvSetupError, TaskUnschedulableError

    try:
        return ray.get(reference), ""
    except (NodeDiedError, TaskUnschedulableError):
        return None, "left the cluster while it was asked; start it again, or go on without it by trying once more"
    except RuntimeEnvSetupError as error:
        return None, f"cannot unpack this project's code ({_last_line(error)}); see the Ray logs there"
    except Exception as error:
        return None, f"cannot run this project's code ({_last_line(error)}); see the Ray logs there"


def _silence(patience: float) -> str:
    return (
        f"does not answer within {patience:g} s; check that its Ray processes run and that the ports of the driver are "
        f"open to it, or stop it"
    )


def _last_line(error: Exception) -> str:
    """The last line of an error of a remote task says what it is; those before it are where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _counting(name: str, version: str) -> str:
    """What of a version changes numbers: 3.11 of Python 3.11.2, and 2.9.0 of 2.9.0+cu128, as the devices differ."""
    return ".".join(version.split(".")[:2]) if name == PYTHON else version.partition("+")[0]


def _listed(names: Sequence[str]) -> str:
    return f"nodes {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else f"node {names[0]}"
