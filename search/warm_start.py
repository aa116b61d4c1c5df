"""What a new search is told of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.sampling.earlier import EarlierTrial
from search.settings import SettingsError
from search.storage import find_search
from trainables.files import read_json, write_json
from trainables.ledger import WARM_START_FILE, Ledger, SearchRecord
from trainables.metrics.interval import Interval
from trainables.results import FoldResult, TrialResult


def find_earlier(storage: Path, record: SearchRecord, *, has_locked_test: bool) -> list[EarlierTrial]:
    """The ended trials of the searches that ``record`` names to start from, in the order in which it names them.

    Scores are of the same fidelity where images, budget, protocol, seed, diseased class and threads are the same, so
    that folds and stages are too.

    Args:
        storage: the folder that all of them lie in.
        record: the new search.
        has_locked_test: whether it locks images away, which a search of other images may have seen.

    Raises: SettingsError if one is not there, is of other classes, or may have seen what is locked.
    """
    found: list[EarlierTrial] = []
    for name in record.warm_start:
        try:
            ledger = find_search(storage, name)
        except SettingsError as error:
            raise SettingsError(f"--warm-start {name}: {error}") from None
        other = ledger.search()
        if other.data.digest != record.data.digest and has_locked_test:
            raise SettingsError(
                f"--warm-start {name} is a search of other images ({other.data.source}, digest {other.data.digest}) "
                f"than this one ({record.data.source}, digest {record.data.digest}), and may have seen what this one "
                f"locks away; name a search with the same locked test set, or lock nothing."
            )
        if other.data.classes != record.data.classes:
            raise SettingsError(
                f"--warm-start {name} is a search of the classes {', '.join(other.data.classes)}, and this one has "
                f"{', '.join(record.data.classes)}; name a search of the same classes."
            )
        same = _fidelity(other) == _fidelity(record)
        found += [
            EarlierTrial(search=name, same_fidelity=same, trial=trial)
            for trial in ledger.trials()
            if trial.state != "unfinished"
        ]
    return found


def keep_earlier(ledger: Ledger, told: Sequence[EarlierTrial]) -> None:
    """Write what a search is told into its own folder, so that it is told the same when it goes on."""
    if not told:
        return
    write_json(ledger.folder / WARM_START_FILE, [asdict(each) for each in told])


def kept_earlier(ledger: Ledger) -> list[EarlierTrial]:
    """What ``keep_earlier`` wrote; nothing where there is nothing."""
    path = ledger.folder / WARM_START_FILE
    return [_read(each) for each in read_json(path)] if path.exists() else []


def _read(data: dict[str, Any]) -> EarlierTrial:
    trial = data["trial"]
    folds = tuple(FoldResult.from_dict(fold) for fold in trial["folds"])
    intervals = {name: Interval(**each) for name, each in trial["intervals"].items()}
    return EarlierTrial(**{**data, "trial": TrialResult(**{**trial, "folds": folds, "intervals": intervals})})


def _fidelity(record: SearchRecord) -> tuple[object, ...]:
    shared = record.threads, record.sharing  # stages are found by other searches with these alone
    return record.data.digest, record.budget, record.protocol, record.seed, record.folds, record.data.positive, *shared


def in_words(told: Sequence[EarlierTrial]) -> list[str]:
    """What the sampler is told of each earlier search, a sentence each."""
    sentences = []
    for name in dict.fromkeys(each.search for each in told):
        trials = [each for each in told if each.search == name]
        how = (
            "their scores are of the same fidelity"
            if trials[0].same_fidelity
            else "their scores are of another fidelity (images, budget, folds or seed differ), and marked as such"
        )
        count = f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"
        sentences.append(f"Warm start: the sampler knows {count} of {name}; {how}.")
    return sentences
