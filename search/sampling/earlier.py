"""Trials of earlier searches of the same data, as a sampler is told them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainables.results import TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTrial:
    """A trial of another search.

    Args:
        search: that search's name.
        same_fidelity: whether its scores mean what this search's do: it had the same budget and protocol. Others are
            told as what they are, scores of another fidelity.
        trial: as that search's ledger has it.
    """

    search: str
    same_fidelity: bool
    trial: TrialResult

    @property
    def named(self) -> TrialResult:
        """The trial under an id that no trial of another search has."""
        return replace(self.trial, id=f"{self.search}/{self.trial.id}")
