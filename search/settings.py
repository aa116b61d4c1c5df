"""What the command line asks for, checked as far as that needs no data and no library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spaces.budget import Budget
from spaces.errors import InputError
from spaces.protocol import Protocol
from spaces.space import Assignment, Space

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


MOST_AT_ONCE = 8
"""Trials at once on a machine without a GPU, however many cores it has, unless the user says otherwise."""


EXIT_STORAGE_FULL = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""


class SettingsError(InputError):
    """A flag of the command line cannot be used as given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """How many trials run at once and what each may use; None leaves it to what the machine has.

    ``checkpoint_seconds``: between two checkpoints of a training. ``stage_limit``: bytes of finished stages that are
    kept; None: all of them. ``progress`` is how a running search shows itself, one of ``flags.PROGRESS``.
    """

    concurrency: int | None
    cpus_per_trial: int | None
    gpus_per_trial: float | None
    address: str | None
    time_budget: float | None
    checkpoint_seconds: float
    stage_limit: int | None = None
    progress: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSearch:
    """A search to start. ``data`` None means the embedded phantom; ``folds_given`` whether the user named folds.

    ``max_copy_rate`` is the copy rate above which no trial can be the best; None: no limit. ``lock_test`` is the share
    of the images that is locked away before the search; None: what the split file says, or nothing. ``show_images``
    False keeps patients' images out of tracking and reports. ``confirm`` says whether the search ends in a
    confirmation, where its budget allows one. ``further_metrics``, ``sharing`` and ``warm_start`` are as in
    ``SearchRecord``. ``config`` is the one configuration to evaluate; None: the space is searched.
    """

    space: Space
    budget: Budget
    config: Assignment | None = None
    data: Path | None
    labels: str | None
    slice_rule: str | int | None
    positive: str | None
    skip_bad_images: bool
    trials: int
    protocol: Protocol
    folds_given: bool
    split_file: str | None
    lock_test: float | None
    show_images: bool
    confirm: bool
    seed: int
    metric: str
    further_metrics: tuple[str, ...]
    sampler: str
    scheduler: str
    warm_start: tuple[str, ...]
    sharing: bool
    max_copy_rate: float | None
    storage: Path
    name: str | None
    tracking_uri: str
    resources: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """A search to go on with.

    ``name`` None means the latest of the storage; ``trials`` and ``repeats`` None leave them as they are; ``given`` is
    what else was given of all that is fixed when a search starts, by the flag's name; ``confirm`` as in ``NewSearch``.
    """

    name: str | None
    storage: Path
    trials: int | None
    repeats: int | None
    given: Mapping[str, Any]
    tracking_uri: str | None
    confirm: bool
    resources: Resources


def check_name(name: str) -> str:
    """A search's name, as given. Raises: SettingsError if it could not be a folder's name everywhere."""
    if not NAME_PATTERN.fullmatch(name):
        raise SettingsError(
            f"--name '{name}' is not a search name; expected 1 to 64 letters, digits, '.', '_' or '-', "
            f"beginning with a letter or digit."
        )
    return name


def parse_duration(text: str) -> float:
    """Seconds from "90s", "15m", "2h" or "1d". Raises: ValueError on anything else, a number without a unit too."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(text)
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
