"""How a configuration is judged: what a trial trains and tests on, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from spaces.errors import ConfigError

Kind: TypeAlias = Literal["folds", "sites", "split"]
"""Stratified folds of patients; each site in turn as the test; the fixed training and validation part of a file."""

OWN_SPLITS = "labels"
"""The value of ``--split-file`` that means the column ``split`` of the labels, or an archive's own parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What one trial is scored on.

    Args:
        kind: how images are divided.
        folds: of ``kind`` "folds"; 1 of the others.
        repeats: how often everything is done, each time with fresh draws and, with folds, fresh splits.
        validation: share of each training side that early stopping reads and nothing learns from; 0: none.
        test_repeats: trainings on all images that are searched on, scored on the locked test set.
    """

    kind: Kind = "folds"
    folds: int = 1
    repeats: int = 1
    validation: float = 0.0
    test_repeats: int = 0

    def __post_init__(self) -> None:
        if self.kind == "folds" and self.folds < 2:
            raise ConfigError(f"--folds is {self.folds}; expected at least 2.")
        if self.repeats < 1 or self.test_repeats < 0:
            raise ConfigError(f"--repeats is {self.repeats}; expected at least 1.")
        if not 0 <= self.validation <= 0.5:
            raise ConfigError(f"--validation is {self.validation:g}; expected 0 (none) to 0.5.")
