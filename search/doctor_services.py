"""Checks that need PyTorch, MLflow or Ray."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from mlflow_tracking.connect import TrackingError, check_server, has_password, shown, sqlite_path
from search.doctor_finding import Finding, fine, wary, wrong
from search.doctor_storage import existing, network_of
from search.pretrained import leave_missing
from search.settings import Resources, SettingsError
from search.sizes import format_bytes
from search.versions import versions
from spaces.budget import Budget
from spaces.presets.genmix import GENMIX
from spaces.protocol import Protocol
from spaces.wording import counted
from trainables.data.decoding import Bad, decode_rows
from trainables.data.evaluations import evaluations
from trainables.data.labels import LabelTable
from trainables.data.positive import positive_class
from trainables.data.readers import format_of
from trainables.data.source import Source
from trainables.errors import DataError

_MOST_IMAGES = 300
"""Read of a large data set, spread over it, so that the check is quick."""
_FLAT = (".png", ".jpg", ".jpeg")
"""Formats without volumes."""
_DRIVER = Path("/proc/driver/nvidia/version")


def gpus() -> Finding:
    """Which GPUs PyTorch finds, and whether they compute."""
    import torch

    if not torch.cuda.is_available():
        if _DRIVER.exists():
            return wrong(
                f"an NVIDIA driver is here, but PyTorch {torch.__version__} does not find a GPU; install a build for "
                f"its CUDA version, and see that CUDA_VISIBLE_DEVICES is not empty"
            )
        return fine("none: trials compute on processors")
    found = []
    for device in range(torch.cuda.device_count()):
        torch.ones(8, 8, device=f"cuda:{device}").sum().item()
        free, total = torch.cuda.mem_get_info(device)
        found.append(f"{torch.cuda.get_device_name(device)}, {format_bytes(free)} of {format_bytes(total)} free")
    return fine("; ".join(found))


def torchvision() -> Finding:
    """Whether an installed torchvision works: transformers and diffusers crash on one that does not."""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return fine("not installed, and not needed")
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return wrong(f"{version} cannot be imported ({reason}), which breaks diffusers: pip uninstall torchvision")
    return fine(f"{version}, which is not needed")


def tracking(uri: str) -> Finding:
    """Whether runs can be written; a database that is not there yet is not created for that."""
    if has_password(uri):
        return wrong(
            "the address holds a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or PGPASSWORD) "
            "instead"
        )
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return _new_database(path)
    try:
        check_server(uri)
    except TrackingError as error:
        return wrong(str(error))
    kind = None if path is None else network_of(path.parent)
    if kind is not None:
        return wary(f"{path} lies on {kind}, where SQLite may be damaged; use a local folder, or mlflow server")
    return fine(f"{shown(uri)} can be written" + ("" if path is None else ", from this machine alone"))


def _new_database(path: Path) -> Finding:
    if not path.parent.is_dir():
        return wrong(f"{path} lies in a folder that does not exist; create it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        return wrong(f"{path.parent} cannot be written ({error.strerror}); name a database elsewhere")
    kind = network_of(path.parent)
    if kind is not None:
        return wary(f"{path} would lie on {kind}, where SQLite may be damaged; use a local folder, or mlflow server")
    return fine(f"{path} will be created")


def pretrained(budget: Budget) -> Finding:
    """Which pretrained models of the space genmix are on this machine."""
    _, missing = leave_missing(GENMIX, budget, named=())
    if missing:
        first = missing[0].removeprefix("Left out of the space: ")
        leave = "1 thing leaves" if len(missing) == 1 else f"{len(missing)} things leave"
        return wary(f"{leave} the space genmix, the first: {first}")
    return fine("those of the space genmix are here")


def images(source: Source, *, folds: int) -> Finding:
    """Whether a search could read labels and images and divide them into so many folds; of many images, a sample."""
    try:
        table = source.table()
        with tempfile.TemporaryDirectory(prefix="genmix-doctor-") as cache:
            sample = _sample(table, folds)
            readable = replace(source, slice_rule=source.slice_rule or "middle", skip_bad_images=True)
            cohort = readable.decode(sample, cache=Path(cache))
            bad, alike = cohort.bad_images, cohort.near_duplicates
            volumes = _volumes(sample, {name for name, _ in bad}) if source.slice_rule is None else []
    except DataError as error:
        return wrong(str(error))
    text = _contents(table, len(sample.rows))
    if bad and not source.skip_bad_images:
        return wrong(f"{text}; {_first(bad, 'cannot be read')}: mend or leave them out, or give --skip-bad-images")
    try:
        evaluations(cohort, Protocol(folds=folds), seed=0)
    except DataError as error:
        return wrong(f"{text}; {error}")
    if bad:
        return wary(f"{text}; {_first(bad, 'left out')}")
    if volumes:
        return wary(
            f"{text}; {counted(len(volumes), 'volume')}, {volumes[0]} the first: give --slice middle or --slice N"
        )
    if not table.patients_known:
        return wary(f"{text}: each image counts as a patient, so add a column 'patient' if any has several")
    if alike:
        return wary(
            f"{text}; {counted(len(alike), 'pair')} of different patients nearly equal, {alike[0][0]} and "
            f"{alike[0][1]} the first: give both one name in the column 'patient' if they show one"
        )
    return fine(text)


def _contents(table: LabelTable, n_read: int) -> str:
    """How many images and patients there are, and what the search would make of the classes."""
    counts = ", ".join(f"{name} {sum(row.label == name for row in table.rows)}" for name in table.classes)
    patients = counted(len({row.patient for row in table.rows}), "patient") if table.patients_known else "no patients"
    text = f"{counted(len(table.rows), 'image')} ({counts}), {patients}"
    if len(table.classes) == 2:
        positive = table.classes[positive_class(table.classes)]
        text += f", sensitivity that of '{positive}' (--positive chooses)"
    return text if n_read == len(table.rows) else f"{text}; {n_read} of them were read"


def _sample(table: LabelTable, folds: int) -> LabelTable:
    """About ``_MOST_IMAGES``, spread evenly over each class, and of each class as many patients as there are folds."""
    if len(table.rows) <= _MOST_IMAGES:
        return table
    each = max(1, _MOST_IMAGES // len(table.classes))
    ids: set[str] = set()
    for name in table.classes:
        of_class = [row for row in table.rows if row.label == name]
        ids |= {row.id for row in of_class[:: max(1, len(of_class) // each)]}
        first_of_patient: dict[str, str] = {}
        for row in of_class:
            first_of_patient.setdefault(row.patient, row.id)
        ids |= set(list(first_of_patient.values())[:folds])
    return table.part(ids, inside=True)


def _volumes(table: LabelTable, bad: Collection[str]) -> list[str]:
    """The images that a search reads only if it is told which slice."""
    may_be = {row.id for row in table.rows if row.path is not None and format_of(row.path) not in _FLAT}
    if not may_be:
        return []
    read = decode_rows(table.part(may_be, inside=True), None, None)
    return [each.id for each in read if isinstance(each, Bad) and each.id not in bad]


def _first(bad: Sequence[tuple[str, str]], what: str) -> str:
    return f"{len(bad)} {what}, {bad[0][0]} the first ({bad[0][1]})"


def cluster(address: str, storage: Path) -> Finding:
    """Whether the Ray cluster can be joined, and every node of it can compute trials of this storage."""
    import ray

    from search.cluster_checks import check_nodes
    from search.ray_start import join_cluster

    resources = Resources(
        concurrency=None,
        cpus_per_trial=None,
        gpus_per_trial=None,
        address=address,
        time_budget=None,
        checkpoint_seconds=60.0,
    )
    try:
        allotment = join_cluster(resources, trials=1000, threads=None)
    except SettingsError as error:
        return wrong(str(error))
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        hosts = ", ".join(f"{node['NodeManagerAddress']} ({_has(node['Resources'])})" for node in nodes)
        check_nodes(existing(storage), None, versions())
    except SettingsError as error:
        return wrong(str(error).replace("\n", "; "))
    finally:
        ray.shutdown()
    seen = "1 node sees" if len(nodes) == 1 else f"{len(nodes)} nodes see"
    return fine(f"{seen} {existing(storage)}: {hosts}; trials at once: {allotment.concurrency}")


def _has(resources: dict[str, float]) -> str:
    gpus = f", {resources['GPU']:g} GPUs" if resources.get("GPU") else ""
    return f"{resources.get('CPU', 0):g} CPUs{gpus}"
