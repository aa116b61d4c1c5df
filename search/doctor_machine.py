"""Checks of the machine that need the standard library alone, as they tell whether more can be imported."""

from __future__ import annotations

import os
import platform
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from search.doctor_finding import Finding, fine, wary, wrong
from search.sizes import format_bytes

PROJECT = "genmix-search"
_ROOT = Path(__file__).resolve().parent.parent
_OWN = ("spaces", "trainables", "mlflow_tracking", "search")
_LITTLE_MEMORY = 4e9
_SHOWN = ("torch", "ray", "mlflow", "optuna")


def python() -> Finding:
    """Whether this Python is of a version that the project supports."""
    wanted: str = _declared().get("requires-python", "")
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if wanted and not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return wrong(f"{found}; expected {wanted}: make an environment with such a Python")
    return fine(found)


def packages() -> Finding:
    """Whether all packages are installed in the versions that the project declares, and none hides its own."""
    declared = list(_declared().get("dependencies", []))
    foreign = foreign_modules(_ROOT)
    if foreign:
        return wrong(f"{'; '.join(foreign)}; uninstall what they belong to, or run python search/run.py")
    if not declared:
        return wary(f"what is needed is not known, as neither pyproject.toml nor {PROJECT} is here; pip install -e .")
    installed = {_canonical(each.name): each.version for each in metadata.distributions()}
    problems = unmet(declared, installed)
    if problems:
        return wrong(f"{'; '.join(problems)}: pip install -e {_ROOT}")
    if "spaces" in installed:
        return wary("the published package 'spaces' is installed, whose name is that of one here: pip uninstall spaces")
    shown = ", ".join(f"{name} {installed[name]}" for name in _SHOWN if name in installed)
    return fine(f"{len(declared)} in the versions that are supported ({shown})")


def unmet(declared: Iterable[str], installed: Mapping[str, str]) -> list[str]:
    """What is missing or of another version, in words.

    Args:
        declared: requirements, as in ``pyproject.toml``.
        installed: version by canonical name.
    """
    problems = []
    for text in declared:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            problems.append(f"'{text}' is no requirement")
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = installed.get(_canonical(wanted.name))
        if found is None:
            problems.append(f"{wanted.name} is not installed")
        elif not wanted.specifier.contains(found, prereleases=True):
            problems.append(f"{wanted.name} is {found}, expected {wanted.specifier}")
    return problems


def foreign_modules(root: Path) -> list[str]:
    """The project's packages that are found somewhere else than beside this file, in words."""
    found = {name: util.find_spec(name) for name in _OWN}
    places = {name: Path(spec.origin).resolve() for name, spec in found.items() if spec is not None and spec.origin}
    return [f"'{name}' is that of {place.parent}" for name, place in places.items() if not place.is_relative_to(root)]


def processors() -> Finding:
    """The cores and the memory that this process may use, which a container may limit."""
    cores, limit = len(os.sched_getaffinity(0)), quota(_read("/sys/fs/cgroup/cpu.max"))
    memory = memory_limit(_read("/proc/meminfo"), _read("/sys/fs/cgroup/memory.max"))
    text = f"{cores} cores" + (f", {format_bytes(memory)} of memory" if memory is not None else "")
    if limit is not None and limit < cores - 0.5:
        return wary(
            f"{text}; the container may use {limit:g} of the cores only: give --concurrency {max(1, int(limit))} "
            f"--cpus-per-trial 1"
        )
    if memory is not None and memory < _LITTLE_MEMORY:
        return wary(f"{text}, which is little: give --concurrency 1, or more memory")
    return fine(text)


def quota(text: str) -> float | None:
    """How many cores a container may use, from ``cpu.max`` ("150000 100000"); None: all of them."""
    parts = text.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1])


def memory_limit(meminfo: str, limit: str) -> int | None:
    """Bytes of memory, from ``/proc/meminfo`` and a container's ``memory.max``; None if neither says."""
    lines = dict(line.partition(":")[::2] for line in meminfo.splitlines())
    total = lines.get("MemTotal", "").split()[:1]
    known = [int(total[0]) * 1024] if total and total[0].isdigit() else []
    known += [int(limit)] if limit.strip().isdigit() else []
    return min(known, default=None)


def _declared() -> Mapping[str, Any]:
    """``requires-python`` and ``dependencies``: of the sources where they are there, else of what is installed."""
    path = _ROOT / "pyproject.toml"
    if path.is_file():
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        return {name: project[name] for name in ("requires-python", "dependencies")}
    try:
        found = metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        return {}
    return {"requires-python": found.metadata["Requires-Python"] or "", "dependencies": found.requires or []}


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
