"""Ray, started on this machine alone or joined where it runs, with this project's code on every node."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.allotment import Allotment, allot_cluster
from search.cluster_address import connect
from search.settings import Resources

_PACKAGES = ("spaces", "trainables", "mlflow_tracking", "search")
_ROOT = Path(__file__).resolve().parent.parent
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
_ON_EVERY_NODE = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_LOOK_SECONDS = 60.0


def start_ray(allotment: Allotment) -> None:
    """Start Ray on this machine alone, on loopback."""
    _set_environment()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    ray.init(
        num_cpus=max(allotment.concurrency * allotment.cpus, 1),
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=_OBJECT_STORE_BYTES,
        **_QUIET,
    )


def join_cluster(resources: Resources, *, trials: int, threads: int | None) -> Allotment:
    """Connect to a running Ray cluster, ship this project's code to its nodes, and share them among trials.

    Args:
        resources: ``address`` is HOST:PORT of the head, or "auto" for the cluster that this machine belongs to.
        trials: how many there are to run.
        threads: CPU threads of a trial where a resumed search has fixed them.

    Raises:
        SettingsError: it cannot be joined, or no node is large enough for a trial.
    """
    _set_environment()
    with _code() as folder:
        environment = {"working_dir": str(folder), "env_vars": _ON_EVERY_NODE}
        connect(str(resources.address), runtime_env=environment, **_QUIET)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        gpu_bytes = 0 if resources.gpus_per_trial is not None else _smallest_gpu(nodes)
        return allot_cluster(
            [node["Resources"] for node in nodes], resources, trials=trials, threads=threads, gpu_bytes=gpu_bytes
        )
    except BaseException:
        ray.shutdown()
        raise


@contextmanager
def ray_left_at_the_end() -> Iterator[None]:
    """Leave Ray with the block: a cluster that was joined and refused must not be what a later search runs on."""
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _code() -> Iterator[Path]:
    """A folder with the project's packages and nothing else, to be sent to the nodes."""
    with tempfile.TemporaryDirectory(prefix="genmix-code-") as folder:
        for package in _PACKAGES:
            shutil.copytree(_ROOT / package, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__"))
        yield Path(folder)


def _smallest_gpu(nodes: list[Mapping[str, Any]]) -> int:
    """Bytes of the smallest GPU that any node has; 0 where there is none, or none says."""
    looks = [
        ray.remote(_gpu_bytes)
        .options(
            num_cpus=0,
            num_gpus=0.01,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        .remote()
        for node in nodes
        if node["Resources"].get("GPU")
    ]
    seen, _ = ray.wait(looks, num_returns=len(looks), timeout=_LOOK_SECONDS) if looks else ([], [])
    return min((found for found in ray.get(seen) if found), default=0)


def _gpu_bytes() -> int:
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return min((torch.cuda.get_device_properties(each).total_memory for each in devices), default=0)


def _set_environment() -> None:
    """Tell Ray and its processes to leave logging, files and signals to this project."""
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",
        TUNE_GLOBAL_CHECKPOINT_S="86400",
        TUNE_DISABLE_STRICT_METRIC_CHECKING="1",
        TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_DISABLE_FAILURE_SIGNAL_HANDLER="1",
        RAY_USAGE_STATS_ENABLED="0",
        **_ON_EVERY_NODE,
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
