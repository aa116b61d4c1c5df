"""``best.yaml``: one configuration with all that its scores depend on, written by a search, read by ``--config``.

``no_images`` is carried too: what a search keeps out of tracking and reports, its repetition keeps out.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search.settings import SettingsError
from spaces.budget import budget_named
from spaces.config import trial_config
from spaces.errors import ConfigError, SpaceError
from spaces.parameter import Choice, Value
from spaces.space import Dimension, Space
from spaces.yaml_file import text_from_file, yaml_from_text
from trainables.ledger import SearchRecord
from trainables.results import TrialResult

SINGLE = "single"
"""The name of the space that one configuration makes."""
_EXCLUDED = ("space", "set", "trials", "sampler", "scheduler", "warm_start", "max_copy_rate")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "budget": (str,),
    "folds": (int,),
    "repeats": (int,),
    "leave_site_out": (bool,),
    "validation": (int, float),
    "seed": (int,),
    "metric": (str,),
    "positive": (str,),
    "lock_test": (int, float),
    "data": (str,),
    "labels": (str,),
    "slice": (str, int),
    "split_file": (str,),
    "skip_bad_images": (bool,),
    "no_images": (bool,),
    "cpus_per_trial": (int,),
}


def best_text(record: SearchRecord, trial: TrialResult) -> str:
    """The text of ``best.yaml``: a trial's configuration, and the options under which it has the same scores again."""
    protocol, source = record.protocol, record.source
    options: dict[str, Any] = {
        "budget": record.budget,
        "folds": protocol.folds if protocol.kind == "folds" else None,
        "repeats": protocol.repeats,
        "leave_site_out": True if protocol.kind == "sites" else None,
        "validation": protocol.validation or None,
        "seed": record.seed,
        "metric": ",".join((record.metric, *record.further_metrics)),
        "positive": record.data.classes[record.data.positive] if len(record.data.classes) == 2 else None,
        "lock_test": record.lock_test,
        "no_images": None if record.show_images else True,
        "cpus_per_trial": record.threads,
    }
    if source is not None and not source.is_phantom:
        options |= {
            "data": source.data,
            "labels": source.labels,
            "slice": source.slice_rule,
            "split_file": source.split_file,
            "skip_bad_images": source.skip_bad_images or None,
        }
    content = {
        "search": record.name,
        "trial": trial.id,
        "data_digest": record.data.digest,
        "options": {name: value for name, value in options.items() if value is not None},
        "config": dict(trial.config),
    }
    return yaml.safe_dump(content, sort_keys=False)


def with_config_file(given: Namespace) -> tuple[Namespace, dict[str, Value]]:
    """Complete the command line by what a file says; what is given there goes before.

    Args:
        given: the flags, ``config`` among them.

    Returns:
        All flags, and the configuration.

    Raises:
        SettingsError: flags that would search were given too, or the file is not one that a search has written.
    """
    path: Path = given.config
    searching = [name for name in _EXCLUDED if getattr(given, name) is not None]
    if searching:
        flag = "--" + searching[0].replace("_", "-")
        raise SettingsError(f"--config {path} evaluates one configuration, and {flag} searches; leave one of them out.")
    options, config = _read(path)
    completed = Namespace(**vars(given))
    for name, value in options.items():
        if getattr(completed, name) is None:
            setattr(completed, name, Path(str(value)) if name == "data" else value)
    if completed.data is not None and not completed.data.exists():
        raise SettingsError(f"--config {path} names images at {completed.data}, which are not there; give --data.")
    return completed, config


def single_space(config: Mapping[str, Value], budget_name: str, *, source: Path) -> Space:
    """A space that holds one configuration. Raises: SettingsError if it is none."""
    try:
        trial_config(config, budget_named(budget_name))
        dimensions = (Choice(name=name, options=(value,), default=value) for name, value in config.items())
        return Space(
            name=SINGLE,
            description="One configuration.",
            dimensions=tuple(Dimension(parameter=parameter) for parameter in dimensions),
        )
    except (ConfigError, SpaceError) as error:
        raise SettingsError(f"--config {source} holds no configuration that can be computed: {error}") from None


def _read(path: Path) -> tuple[dict[str, Value], dict[str, Value]]:
    """The options and the configuration of a file."""
    called = f"--config {path}"
    content = yaml_from_text(text_from_file(path, source=called), source=called)
    if not isinstance(content, dict) or not all(isinstance(content.get(each), dict) for each in ("config", "options")):
        raise SettingsError(
            f"{called} is no best.yaml; expected the mappings 'config' and 'options', as a search writes them."
        )
    for name, value in content["options"].items():
        allowed = _TYPES.get(str(name))
        if allowed is None or not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise SettingsError(f"{called}: the option {str(name)[:60]!r} cannot be {str(value)[:60]!r}.")
    for name, value in content["config"].items():
        if not isinstance(name, str) or not isinstance(value, bool | int | float | str):
            raise SettingsError(f"{called}: {str(name)[:60]!r} is {str(value)[:60]!r}; expected one plain value.")
    return content["options"], content["config"]
