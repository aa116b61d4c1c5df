"""How a machine, or a cluster, is shared among trials: how many run at once, and what each may use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from search.resource_classes import SHARE, ResourceClasses
from search.settings import MOST_AT_ONCE, Resources, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """Trials at once, and the CPU threads and share of a GPU that each has."""

    concurrency: int
    cpus: int
    gpus: ResourceClasses


def allot(resources: Resources, *, trials: int, threads: int | None = None) -> Allotment:
    """Share this machine among trials: what was asked for, and sensible values for the rest.

    Args:
        resources: as given on the command line.
        trials: how many there are to run; no more run at once.
        threads: CPU threads of a trial where a resumed search has fixed them.

    Raises: SettingsError if a trial could never start.
    """
    cores = len(os.sched_getaffinity(0))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (resources.gpus_per_trial or 0) > devices:
        raise SettingsError(
            f"--gpus-per-trial {resources.gpus_per_trial:g} is more than the {devices} GPUs that PyTorch finds on this "
            f"machine; give less, or join a cluster with --address."
        )
    if (resources.cpus_per_trial or 0) > cores:
        raise SettingsError(
            f"--cpus-per-trial {resources.cpus_per_trial} is more than the {cores} cores of this machine; give less."
        )
    gpu_bytes = min((torch.cuda.get_device_properties(each).total_memory for each in range(devices)), default=0)
    gpus = _gpu_classes(resources.gpus_per_trial, devices, gpu_bytes)
    cpus = resources.cpus_per_trial or threads
    most = int(devices / gpus.share) if gpus.share > 0 else cores // (cpus or 1)
    concurrency = resources.concurrency or max(1, min(most, trials, MOST_AT_ONCE if not gpus.share else most))
    return Allotment(concurrency=concurrency, cpus=cpus or max(1, cores // concurrency), gpus=gpus)


def allot_cluster(
    nodes: Sequence[Mapping[str, float]],
    resources: Resources,
    *,
    trials: int,
    threads: int | None = None,
    gpu_bytes: int = 0,
) -> Allotment:
    """Share a cluster among trials, as ``allot`` shares a machine.

    Args:
        nodes: what each node that lives has: "CPU" and "GPU", as Ray counts them.
        resources: as given on the command line.
        trials: how many there are to run; no more run at once.
        threads: CPU threads of a trial where a resumed search has fixed them.
        gpu_bytes: memory of the smallest GPU; 0 where there is none.

    Raises: SettingsError if no node is large enough for one trial.
    """
    gpus = _gpu_classes(resources.gpus_per_trial, sum(int(node.get("GPU", 0)) for node in nodes), gpu_bytes)
    useful = [node for node in nodes if node.get("GPU", 0) >= gpus.whole and node.get("CPU", 0) >= 1]
    cpus = resources.cpus_per_trial or threads or min((_cpus_per_trial(node, gpus) for node in useful), default=1)
    slots = sum(_slots(node, gpus, cpus) for node in useful)
    if not slots:
        raise SettingsError(
            f"no node of the cluster has {cpus} CPUs and {gpus.whole:g} GPUs for one trial; give less with "
            f"--cpus-per-trial and --gpus-per-trial."
        )
    return Allotment(concurrency=resources.concurrency or max(1, min(slots, trials)), cpus=cpus, gpus=gpus)


def _cpus_per_trial(node: Mapping[str, float], gpus: ResourceClasses) -> int:
    most = int(node["GPU"] / gpus.share) if gpus.share > 0 else MOST_AT_ONCE
    return max(1, int(node["CPU"]) // max(1, min(most, int(node["CPU"]))))


def _slots(node: Mapping[str, float], gpus: ResourceClasses, cpus: int) -> int:
    by_cpus = int(node["CPU"]) // cpus
    return min(by_cpus, int(node["GPU"] / gpus.share)) if gpus.share > 0 else by_cpus


def _gpu_classes(asked: float | None, devices: int, gpu_bytes: int) -> ResourceClasses:
    """What was asked for, for every trial; else a share for small trials and a whole GPU for others."""
    if asked is not None:
        return ResourceClasses(share=asked, whole=asked)
    if devices == 0:
        return ResourceClasses(share=0.0, whole=0.0)
    return ResourceClasses(share=SHARE, whole=1.0, gpu_bytes=gpu_bytes)
