"""Ray Tune as one uses it without this project: started on this machine alone, run, and shut down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune

from spaces.parameter import Choice, Float, Parameter
from spaces.space import Space

_OBJECT_STORE_BYTES = 100 * 1024 * 1024


def random_search(space: Space) -> dict[str, Any]:
    """The dimensions of a space as Tune has them: all of them independent, as Tune's own random search draws."""
    return {dimension.name: _distribution(dimension.parameter) for dimension in space.dimensions}


def _distribution(parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        return tune.choice(list(parameter.options))
    low, high = parameter.low, parameter.high
    if isinstance(parameter, Float):
        return tune.loguniform(low, high) if parameter.log else tune.uniform(low, high)
    return tune.lograndint(low, high + 1) if parameter.log else tune.randint(low, high + 1)


def run_tune(
    trainable: type[tune.Trainable] | Callable[[dict[str, Any]], None],
    param_space: Mapping[str, Any],
    folder: Path,
    *,
    trials: int,
    slots: int,
    reuse_actors: bool = False,
) -> tune.ResultGrid:
    """Start Ray with so many processors, run the trials, one processor each, and shut Ray down.

    Args:
        trainable: what a trial runs.
        param_space: Tune's.
        folder: where Tune writes.
        trials: samples of ``param_space``.
        slots: trials at once.
        reuse_actors: as in ``TuneConfig``.

    Raises: RuntimeError if a trial failed.
    """
    ray.init(
        num_cpus=slots,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        found = tune.Tuner(
            tune.with_resources(trainable, {"CPU": 1}),
            param_space=dict(param_space),
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=slots, reuse_actors=reuse_actors),
            run_config=tune.RunConfig(
                name="plain",
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()
    finally:
        ray.shutdown()
    if found.num_errors:
        raise RuntimeError(f"{found.num_errors} of {len(found)} plain trials failed, the first with {found.errors[0]}")
    return found
