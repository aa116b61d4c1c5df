"""The ledger: a search's record on disk, append-only; everything else can be rebuilt from it.

    STORAGE/NAME/search.json              what is searched, on which data, with which seed, budget and versions
    STORAGE/NAME/trials/ID/trial.json     a trial's configuration, written before it starts
    STORAGE/NAME/trials/ID/fold_K.json    one finished fold: scores, predictions, stages
    STORAGE/NAME/trials/ID/state.json     how the trial ended: completed, pruned or failed, and why
    STORAGE/NAME/trials/ID/out_of_memory.json  that an attempt at it lacked memory
    STORAGE/NAME/signal                   whether running trials are asked to stop (not part of the record)
    STORAGE/NAME/trials/ID/progress.json  what it is doing now (not part of the record; may be lost)
    STORAGE/NAME/trials/ID/feature_map/   what figures show of the training images (not part of the record)
    STORAGE/NAME/locked.json              the locked test set, if there is one
    STORAGE/NAME/warm_start.json          trials of earlier searches that the sampler is told, if there are any
    STORAGE/NAME/confirm*/                confirmations: ledgers like this one

A fold or state file, once written, is never written again; but a completed trial of fewer folds than its search has
been given since is unfinished, and ends once more.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from spaces.protocol import Protocol
from spaces.space import Assignment, Space
from spaces.space_file import space_from_dict
from trainables.data.source import Source
from trainables.files import read_json, remove_half_written, write_json
from trainables.metrics.interval import Interval
from trainables.results import FoldResult, TrialResult, TrialState

_SIGNAL, _GO, _STOP = "signal", b"go  ", b"stop"
WARM_START_FILE = "warm_start.json"
IMAGES = "images"
"""Where in the shared folder the decoded images lie, each set under its digest."""
SHARED = "_shared"
"""The folder of a storage that all its searches share: decoded images, the phantom, stages. No search has its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecord:
    """The data of a search: ``digest`` names the decoded images under the storage; ``source`` is where they lay."""

    digest: str
    source: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    patients: int
    patients_known: bool
    is_phantom: bool
    positive: int
    bad_images: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord:
    """What defines a search; all but ``trials`` and the repeats of its protocol stays as it was written first.

    ``protocol`` and ``budget`` (its name) fix what a trial computes, ``metric`` what is compared; ``folds`` is how many
    trainings and tests the protocol makes of a trial. ``threads`` is the
    number of CPU threads a trial computes with: bytes depend on it. ``trials`` is how many are wanted.
    ``max_copy_rate`` is the mean copy rate above which a trial cannot be the best one; None: no limit.
    ``show_images`` False keeps patients' images out of tracking and reports.
    ``further_metrics`` are traded against ``metric``, by which the best trial is named.
    ``sharing`` says whether trials find each other's stages; ``warm_start`` names the searches of the same data whose
    trials the sampler is told. ``source`` says where its images can be read again; None: that was not recorded.
    ``lock_test`` is the share of the images that was asked to be locked away; None: none, or what a split file says.
    """

    name: str
    space: Space
    data: DataRecord
    budget: str
    folds: int
    metric: str
    seed: int
    sampler: str
    scheduler: str
    trials: int
    threads: int
    tracking_uri: str
    created: float
    versions: Mapping[str, str]
    max_copy_rate: float | None = None
    protocol: Protocol
    show_images: bool = True
    further_metrics: tuple[str, ...] = ()
    sharing: bool = True
    warm_start: tuple[str, ...] = ()
    source: Source | None = None
    lock_test: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = {field: getattr(self, field) for field in self.__dataclass_fields__}
        return {
            **data,
            "space": self.space.to_dict(),
            "data": asdict(self.data),
            "versions": dict(self.versions),
            "protocol": asdict(self.protocol),
            "source": asdict(self.source) if self.source else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchRecord:
        """The inverse of ``to_dict``; records of searches that knew neither limits nor protocols are read too."""
        stored = dict(data["data"])
        for field in ("classes", "counts"):
            stored[field] = tuple(stored[field])
        stored["bad_images"] = tuple((path, reason) for path, reason in stored["bad_images"])
        space = space_from_dict(data["space"], source="search.json")
        protocol = Protocol(**data["protocol"]) if "protocol" in data else Protocol(folds=data["folds"])
        lists = {field: tuple(data.get(field, ())) for field in ("further_metrics", "warm_start")}
        source = Source(**data["source"]) if data.get("source") else None
        parsed = {"space": space, "data": DataRecord(**stored), "protocol": protocol, "source": source}
        return cls(**{**data, **lists, **parsed})


class Ledger:
    """Reads and appends to one search's folder. Safe to use from several processes: each file has one writer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._record: tuple[tuple[int, int, int], SearchRecord] | None = None
        self._known: set[str] = set()
        self._finished: dict[tuple[str, int], FoldResult] = {}
        self._ended: dict[str, TrialResult] = {}

    @property
    def storage(self) -> Path:
        """The storage that the search lies in; a confirmation lies in the folder of its search."""
        above = self.folder.parent
        return above.parent if (above / "search.json").exists() else above

    def write_search(self, record: SearchRecord) -> None:
        """Record the search, or that more trials or folds of it are wanted."""
        write_json(self.folder / "search.json", record.to_dict())
        self._ended.clear()

    def search(self) -> SearchRecord:
        """The search's record; read again only where its file has changed."""
        path = self.folder / "search.json"
        found = path.stat()
        version = found.st_mtime_ns, found.st_size, found.st_ino
        if self._record is None or self._record[0] != version:
            self._record = version, SearchRecord.from_dict(read_json(path))
        return self._record[1]

    def sweep(self) -> None:
        """Remove what processes that are gone left half-written, and trials that were not proposed to the end.

        For the driver alone, while no trial is being proposed.
        """
        remove_half_written(self.folder)
        for name in self._names():
            folder = self.folder / "trials" / name
            remove_half_written(folder)
            if not (folder / "trial.json").exists():
                with suppress(OSError):  # it holds something
                    folder.rmdir()

    def trial_folder(self, trial_id: str) -> Path:
        """Where a trial's files lie. Raises: ValueError on anything that is not a trial id."""
        if not re.fullmatch(r"t\d{4,8}", trial_id):
            raise ValueError(f"'{trial_id}' is not a trial id; expected 't' and at least four digits.")
        return self.folder / "trials" / trial_id

    def _names(self) -> list[str]:
        """The folders of trials, with ``trial.json`` in them or on its way."""
        trials = self.folder / "trials"
        return [entry.name for entry in os.scandir(trials) if entry.name.startswith("t")] if trials.is_dir() else []

    def trial_ids(self) -> list[str]:
        """The ids of all recorded trials, in the order in which they were proposed."""
        trials, known = self.folder / "trials", self._known
        found = {name for name in self._names() if name not in known and (trials / name / "trial.json").exists()}
        if found:
            known = self._known = known | found  # a new set: other threads may be reading the old one
        return sorted(known, key=lambda trial_id: int(trial_id[1:]))

    def add_trial(self, config: Assignment, *, reference: str | None) -> str:
        """Record a proposed trial under the next id, which is returned. For the driver alone."""
        trials = self.folder / "trials"
        trials.mkdir(parents=True, exist_ok=True)
        taken = [int(name[1:]) for name in self._names() if name[1:].isdigit()]
        for number in range(max(taken, default=-1) + 1, 10**8):
            trial_id = f"t{number:04d}"
            try:
                self.trial_folder(trial_id).mkdir()
            except FileExistsError:
                continue
            proposed = {"config": config, "reference": reference, "created": time.time()}
            write_json(self.trial_folder(trial_id) / "trial.json", proposed)
            return trial_id
        raise RuntimeError(f"'{trials}' has no id left for another trial.")

    def record_fold(self, trial_id: str, result: FoldResult) -> None:
        """Record a finished fold; one that is recorded already stays as it is."""
        path = self.trial_folder(trial_id) / f"fold_{result.fold}.json"
        if not path.exists():
            write_json(path, result.to_dict())

    def fold(self, trial_id: str, fold: int, *, predictions: bool = False) -> FoldResult | None:
        """A finished fold of a trial, or None; with the predictions of single images only where they are asked for."""
        path = self.trial_folder(trial_id) / f"fold_{fold}.json"
        return FoldResult.from_dict(read_json(path), predictions=predictions) if path.exists() else None

    def end_trial(
        self,
        trial_id: str,
        state: TrialState,
        *,
        error: str | None = None,
        intervals: Mapping[str, Interval] = MappingProxyType({}),
    ) -> None:
        """Record how a trial ended; an end that is recorded already stays, unless the search has more folds since."""
        if self.trial(trial_id).state == "unfinished":
            found = {name: asdict(interval) for name, interval in intervals.items()}
            end = {"state": state, "error": error, "ended": time.time(), "intervals": found}
            if state == "completed":
                end["folds"] = self.search().folds
            write_json(self.trial_folder(trial_id) / "state.json", end)

    def record_out_of_memory(self, trial_id: str, error: str) -> bool:
        """Record that a trial lacked memory; False if that had been recorded before."""
        path = self.trial_folder(trial_id) / "out_of_memory.json"
        if path.exists():
            return False
        write_json(path, {"error": error, "time": time.time()})
        return True

    def let_trials_run(self) -> None:
        """Make the file in which trials look whether they are asked to stop. For the driver alone."""
        (self.folder / _SIGNAL).write_bytes(_GO)

    def ask_to_stop(self) -> None:
        """Ask the trials that run to save what they are training, and to leave it; they stay unfinished.

        The file is changed in place: that needs no room on a full storage, and who opens it on another node sees it,
        where a network file system may remember for a minute that a file is not there.
        """
        with (self.folder / _SIGNAL).open("r+b") as file:
            file.write(_STOP)

    def asked_to_stop(self) -> bool:
        """Whether running trials are asked to stop."""
        try:
            return (self.folder / _SIGNAL).read_bytes() == _STOP
        except OSError:
            return False

    def ran_out_of_memory(self, trial_id: str) -> bool:
        """Whether an attempt at a trial lacked memory."""
        return (self.trial_folder(trial_id) / "out_of_memory.json").exists()

    def write_progress(self, trial_id: str, *, fold: int, stage: str, done: int, total: int) -> None:
        """Say what a running trial is doing; for displays."""
        data = {"fold": fold, "stage": stage, "done": done, "total": total, "time": time.time()}
        write_json(self.trial_folder(trial_id) / "progress.json", data)

    def progress(self, trial_id: str) -> dict[str, Any] | None:
        """What a running trial said last that it is doing, or None."""
        try:
            return cast("dict[str, Any]", read_json(self.trial_folder(trial_id) / "progress.json"))
        except (OSError, ValueError):
            return None

    def trial(self, trial_id: str, *, predictions: bool = False) -> TrialResult:
        """One trial as recorded so far.

        Args:
            trial_id: of a recorded trial.
            predictions: read those of single images too, which are most of a record; without them ended trials are
                kept in memory.
        """
        if trial_id in self._ended and not predictions:
            return self._ended[trial_id]
        folder = self.trial_folder(trial_id)
        proposed = read_json(folder / "trial.json")
        end = read_json(folder / "state.json") if (folder / "state.json").exists() else {}
        numbers = sorted(int(path.stem.removeprefix("fold_")) for path in folder.glob("fold_*.json"))
        if end.get("state") == "completed" and end.get("folds", len(numbers)) < self.search().folds:
            end = {}
        folds = [self._fold(trial_id, number, predictions=predictions) for number in numbers]
        result = TrialResult(
            id=trial_id,
            config=proposed["config"],
            reference=proposed["reference"],
            state=end.get("state", "unfinished"),
            folds=tuple(fold for fold in folds if fold is not None),
            error=end.get("error"),
            created=proposed["created"],
            ended=end.get("ended"),
            intervals={name: Interval(**each) for name, each in end.get("intervals", {}).items()},
        )
        if result.state != "unfinished" and not predictions:
            self._ended[trial_id] = result
            for number in numbers:
                self._finished.pop((trial_id, number), None)
        return result

    def _fold(self, trial_id: str, number: int, *, predictions: bool) -> FoldResult | None:
        """A recorded fold; of a trial that goes on, kept in memory without predictions: it is never written again."""
        if predictions:
            return self.fold(trial_id, number, predictions=True)
        key = trial_id, number
        found = self._finished.get(key)  # one look: another thread may drop it
        if found is None:
            found = self.fold(trial_id, number)
            if found is not None:
                self._finished[key] = found
        return found

    def trials(self, *, predictions: bool = False) -> list[TrialResult]:
        """All trials, in the order in which they were proposed; see ``trial``."""
        return [self.trial(trial_id, predictions=predictions) for trial_id in self.trial_ids()]
