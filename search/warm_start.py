"""What a new search is told of earlier ones on the same data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.sampling.earlier import EarlierTrial
from search.settings import SettingsError
from search.storage import find_search
from trainables.ledger import SearchRecord


def earlier_trials(storage: Path, record: SearchRecord) -> list[EarlierTrial]:
    """The ended trials of the searches that ``record`` names to start from, oldest search first.

    Scores are of the same fidelity where budget, protocol and seed are the same, so that the folds are too.

    Args:
        storage: the folder that all of them lie in.
        record: the new search.

    Raises: SettingsError if one is not there, or is of other data.
    """
    found: list[EarlierTrial] = []
    for name in record.warm_start:
        try:
            ledger = find_search(storage, name)
        except SettingsError as error:
            raise SettingsError(f"--warm-start {name}: {error}") from None
        other = ledger.search()
        if other.data.digest != record.data.digest:
            raise SettingsError(
                f"--warm-start {name} is a search of other images ({other.data.source}, digest {other.data.digest}) "
                f"than this one ({record.data.source}, digest {record.data.digest}); name a search of the same data "
                f"and, where there is one, the same locked test set."
            )
        same = _fidelity(other) == _fidelity(record)
        found += [
            EarlierTrial(search=name, same_fidelity=same, trial=trial)
            for trial in ledger.trials()
            if trial.state != "unfinished"
        ]
    return found


def _fidelity(record: SearchRecord) -> tuple[object, ...]:
    return record.budget, record.protocol, record.seed, record.folds


def in_words(told: Sequence[EarlierTrial]) -> list[str]:
    """What the sampler is told of each earlier search, a sentence each."""
    sentences = []
    for name in dict.fromkeys(each.search for each in told):
        trials = [each for each in told if each.search == name]
        how = (
            "their scores are of the same fidelity"
            if trials[0].same_fidelity
            else "their scores are of another fidelity (budget, folds or seed differ), and marked as such"
        )
        sentences.append(f"Warm start: the sampler knows {len(trials)} trials of {name}; {how}.")
    return sentences
