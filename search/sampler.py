"""The Tune searcher: unfinished trials first, then the reference policies, then proposals; all through the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from search.proposers import Proposer
from spaces.parameter import Value
from trainables.ledger import Ledger


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Hands Tune the ids of trials; their configurations stand in the ledger.

    Args:
        ledger: the search's record.
        proposer: where new configurations come from.
        references: the reference policies, proposed first.
        wanted: how many trials the search shall have.
        settings: constant part of what each trial's process is told.
        may_propose: False once the time budget is spent.

    ``exhausted`` says whether the proposer had no configuration left.
    """

    def __init__(
        self,
        ledger: Ledger,
        proposer: Proposer,
        *,
        references: Mapping[str, Mapping[str, Value]],
        wanted: int,
        settings: Mapping[str, Any],
        may_propose: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._proposer = proposer
        self._references = references
        self._wanted = wanted
        self._settings = settings
        self._may_propose = may_propose
        self.exhausted = False
        self._waiting = [trial.id for trial in ledger.trials() if trial.state == "unfinished"]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial for Tune's ``trial_id``: its settings, or Tune's mark that there are no more."""
        ours = self._next()
        return Searcher.FINISHED if ours is None else {**self._settings, "trial": ours}

    def _next(self) -> str | None:
        if not self._may_propose():
            return None
        if self._waiting:
            return self._waiting.pop(0)
        trials = self._ledger.trials()
        if len(trials) >= self._wanted:
            return None
        proposed = {trial.reference for trial in trials}
        for name, config in self._references.items():
            if name not in proposed:
                return self._ledger.add_trial(dict(config), reference=name)
        config_or_none = self._proposer.propose(len(trials), trials)
        self.exhausted = config_or_none is None
        return None if config_or_none is None else self._ledger.add_trial(config_or_none, reference=None)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to do: the ledger has it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger has it."""
