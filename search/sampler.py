"""The Tune searcher: unfinished trials first, then the reference policies, then proposals; all through the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from search.proposers import Proposer
from spaces.parameter import Value
from trainables.ledger import Ledger
from trainables.results import TrialResult
from trainables.tune_trainable import OUT_OF_MEMORY, TRIAL


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Hands Tune the ids of trials; their configurations stand in the ledger.

    Args:
        ledger: the search's record.
        proposer: where new configurations come from.
        references: the reference policies, proposed first.
        wanted: how many trials the search shall have.
        settings: what each trial's process is told besides the trial's id.
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
        settings: Callable[[TrialResult], Mapping[str, Any]],
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
        self._is_over = False  # no new trial will come; Tune asks all the same while others run
        self._running: set[str] = set()
        self._waiting = [trial.id for trial in ledger.trials() if trial.state == "unfinished"]

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher to restore a run from it; here the ledger does that."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial for Tune's ``trial_id``: its settings, or Tune's mark that there are no more.

        None while there are none and one that runs may come again.
        """
        if not self._may_propose():
            return str(Searcher.FINISHED)
        ours = self._next()
        if ours is None:
            return None if self._running else str(Searcher.FINISHED)
        self._running.add(trial_id)
        return {**self._settings(self._ledger.trial(ours)), TRIAL: ours}

    def _next(self) -> str | None:
        if self._waiting:
            return self._waiting.pop(0)
        if self._is_over:
            return None
        trials = self._ledger.trials()
        if len(trials) >= self._wanted:
            self._is_over = True
            return None
        proposed = {trial.reference for trial in trials}
        for name, config in self._references.items():
            if name not in proposed:
                return self._ledger.add_trial(dict(config), reference=name)
        config_or_none = self._proposer.propose(len(trials), trials)
        self.exhausted = self._is_over = config_or_none is None
        return None if config_or_none is None else self._ledger.add_trial(config_or_none, reference=None)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial that lacked memory comes again; of all others the ledger has what there is to know."""
        self._running.discard(trial_id)
        if result is not None and result.get(OUT_OF_MEMORY):
            self._waiting.append(result[TRIAL])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger has it."""
