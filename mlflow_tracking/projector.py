"""Bring a tracking server to the state of the ledger: live, after an outage, on another server, by one code path."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from mlflow_tracking import names, notes
from mlflow_tracking.address import page_address
from mlflow_tracking.connect import OUTAGES, TrackingOutage, client_for, probe
from mlflow_tracking.pictures import PicturesMissing, draw_pictures
from mlflow_tracking.remote import Remote, RemoteRun, open_remote, search_id
from trainables.ledger import Ledger, SearchRecord
from trainables.metrics.catalogue import maximizes
from trainables.results import FoldResult, TrialResult

_STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
_SEARCH_STATE = {None: "running", "FINISHED": "finished", "KILLED": "interrupted"}
"""How a search run's state reads by the status that it ends in."""
_SEARCH_FILES = ("result.json", "best.yaml")


class Projector:
    """Reads a ledger and writes what a tracking server lacks of it.

    Everything here is safe to repeat. What the server has is read from it when the projector first needs it and again
    after any error, so that a crash or a lost answer at any point leaves nothing twice and nothing out. For one thread
    at a time.

    Args:
        ledger: the search's record; must exist.
        tracking_uri: a server or database that ``check_server`` accepts.
        make_client: opens the client, when it is first needed.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        tracking_uri: str,
        *,
        make_client: Callable[[str], MlflowClient] = client_for,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._uri = tracking_uri
        self._make_client = make_client
        self._clock = clock
        self._client: MlflowClient | None = None
        self._remote: Remote | None = None
        self._experiment_id: str | None = None
        self._ended: str | None = None
        self._written: object = None
        self._hurry = False
        self._without_pictures = 0
        self._idle = {each.id: self._trace(each) for each in ledger.trials() if each.state == "unfinished"}

    @property
    def page(self) -> str | None:
        """The address of the page that lists the trials; None before the first successful ``sync``."""
        return None if self._experiment_id is None else page_address(self._uri, self._experiment_id)

    def sync(self, *, pictures: int | None = None) -> int:
        """Write what the server lacks; without a call to it if nothing changed.

        Args:
            pictures: draw those of at most so many trials, as drawing is slow; None for all.

        Returns:
            How many trials still lack their pictures.

        Raises:
            TrackingOutage: the server cannot be reached or refuses; the next call takes up from there.
        """
        search, trials = self._ledger.search(), self._ledger.trials()
        state = (search.trials, self._ended, tuple((each.id, self._standing(each), len(each.folds)) for each in trials))
        if state == self._written and not (self._without_pictures and pictures != 0):
            return self._without_pictures
        try:
            self._reach()
            self._without_pictures = self._write(search, trials, pictures)
        except OUTAGES as error:
            self._forget()
            raise TrackingOutage(probe(self._uri) or _one_line(error)) from error
        except BaseException:
            self._forget()
            raise
        self._written = None if self._left_off() else state
        return self._without_pictures

    def leave_off(self) -> None:
        """Make ``sync`` return after the trial that it is at, so that ``close`` can follow; from any thread."""
        self._hurry = True

    def close(self, *, interrupted: bool) -> None:
        """Write what the server lacks except pictures, and end every run: nothing stays RUNNING.

        A trial that is unfinished ends as KILLED until it is taken up again; so does the search if ``interrupted``.
        ``sync`` may be called afterwards to draw pictures.

        Raises:
            TrackingOutage: as ``sync``.
        """
        self._ended = "KILLED" if interrupted else "FINISHED"
        self.sync(pictures=0)

    def _left_off(self) -> bool:
        return self._hurry and self._ended is None

    def _reach(self) -> None:
        wrong = probe(self._uri)
        if wrong is not None:
            raise ConnectionError(wrong)
        if self._client is None:
            self._client = self._make_client(self._uri)

    def _forget(self) -> None:
        """Forget what the server has: after an error nobody knows which of the calls arrived."""
        self._remote = None
        self._written = None

    def _write(self, search: SearchRecord, trials: Sequence[TrialResult], pictures: int | None) -> int:
        assert self._client is not None  # noqa: S101 - opened by _reach
        if self._remote is None:
            self._remote = open_remote(self._client, self._uri, search)
            self._experiment_id = self._remote.experiment_id
        remote = self._remote
        run = remote.search or self._create_search(remote, search)
        if self._ended is not None:
            self._end_running(remote, run, trials)
        for trial in trials:
            if self._left_off():
                return self._without_pictures
            self._write_trial(remote, search, trial)
        self._end_strays(remote, {trial.id for trial in trials})
        self._write_search(run, search, trials)
        return self._write_pictures(remote, search, trials, pictures)

    def _standing(self, trial: TrialResult) -> str:
        """A trial's state; an unfinished one is running if it moved since the projector was made, or is new."""
        if trial.state != "unfinished":
            return trial.state
        if self._ended is not None:
            return "interrupted"
        if trial.id in self._idle and self._idle[trial.id] != self._trace(trial):
            del self._idle[trial.id]
        return "interrupted" if trial.id in self._idle else "running"

    def _trace(self, trial: TrialResult) -> object:
        return len(trial.folds), self._ledger.progress(trial.id)

    def _write_trial(self, remote: Remote, search: SearchRecord, trial: TrialResult) -> None:
        run, standing = remote.trials.get(trial.id), self._standing(trial)
        if run is None:
            tags = {**_common_tags(search), names.KIND: names.KIND_TRIAL, names.TRIAL: trial.id}
            if trial.state == "unfinished":
                tags[names.STATE] = standing
            run = remote.create_run(notes.trial_name(trial), tags, created=trial.created)
            remote.trials[trial.id] = run
        if not run.has_parameters:
            run.log(parameters=_parameters(trial))
        for fold in trial.folds:
            if fold.fold not in run.folds:
                _log_fold(run, trial, fold)
        if standing != run.state:
            run.log(_summary(trial), tags=_ending(search, trial, standing))
            run.state = standing
        self._set_status(run, trial)

    def _set_status(self, run: RemoteRun, trial: TrialResult) -> None:
        standing = self._standing(trial)
        status = _STATUS.get(standing, "RUNNING" if standing == "running" else "KILLED")
        run.set_status(status, ended=_milliseconds(trial.ended or self._clock()))

    def _end_running(self, remote: Remote, search_run: RemoteRun, trials: Sequence[TrialResult]) -> None:
        """End what runs before anything else, as there may be no time for the rest."""
        for trial in trials:
            run = remote.trials.get(trial.id)
            if run is not None and run.status == "RUNNING":
                self._set_status(run, trial)
        search_run.set_status(self._ended or "RUNNING", ended=_milliseconds(self._clock()))

    def _end_strays(self, remote: Remote, known: set[str]) -> None:
        unknown = [run for trial_id, run in remote.trials.items() if trial_id not in known]
        for run in (*remote.strays, *unknown):
            if run.status == "RUNNING":
                run.set_status("KILLED", ended=_milliseconds(self._clock()))

    def _create_search(self, remote: Remote, search: SearchRecord) -> RemoteRun:
        tags = {**_common_tags(search), names.KIND: names.KIND_SEARCH}
        remote.search = remote.create_run(f"search {search.name}", tags, created=search.created)
        return remote.search

    def _write_search(self, run: RemoteRun, search: SearchRecord, trials: Sequence[TrialResult]) -> None:
        if not run.has_parameters:
            run.log(parameters=_search_parameters(search))
        run.log_data(search)
        state = _SEARCH_STATE[self._ended]
        note = notes.search_note(search, trials, state=state)
        if note != run.note or state != run.state:
            run.log(_course(search, trials), tags={names.NOTE: note, names.STATE: state})
            run.note, run.state = note, state
        if self._ended is not None:
            for path in (self._ledger.folder / name for name in _SEARCH_FILES):
                if path.is_file():
                    self._store(run, path)
        run.set_status(self._ended or "RUNNING", ended=_milliseconds(self._clock()))

    def _write_pictures(
        self, remote: Remote, search: SearchRecord, trials: Sequence[TrialResult], limit: int | None
    ) -> int:
        waiting = [each for each in trials if each.folds and remote.trials[each.id].sheet is None]
        now = waiting if limit is None else waiting[:limit]
        for trial in now:
            run = remote.trials[trial.id]
            run.sheet = self._draw(run, search, trial)
            run.log(tags={names.SHEET: run.sheet})
        return len(waiting) - len(now)

    def _draw(self, run: RemoteRun, search: SearchRecord, trial: TrialResult) -> str:
        """Draw and store a trial's pictures; says what became of them."""
        with tempfile.TemporaryDirectory(prefix="genmix-") as folder:
            try:
                title = notes.trial_name(trial)
                files = draw_pictures(self._ledger.storage, search, trial, title, Path(folder))
            except PicturesMissing as error:
                return f"skipped: {error}"
            problems = [problem for path in files if (problem := self._store(run, path))]
        return f"not stored: {problems[0]}" if problems else "logged"

    def _store(self, run: RemoteRun, path: Path) -> str | None:
        """Store a file, or say why the server, which is there, does not take it."""
        try:
            run.log_file(path)
        except OUTAGES as error:
            if probe(self._uri) is not None:
                raise
            return _one_line(error)
        return None


def _common_tags(search: SearchRecord) -> dict[str, str]:
    """Tags of every run: which search, on what data and in which space, with which versions."""
    return {
        names.SEARCH: search.name,
        names.SEARCH_ID: search_id(search),
        names.DATA_DIGEST: search.data.digest,
        names.SPACE_DIGEST: search.space.digest,
        names.BUDGET: search.budget,
        names.PHANTOM: "yes" if search.data.is_phantom else "no",
        **{names.version(package): version for package, version in search.versions.items()},
    }


def _parameters(trial: TrialResult) -> list[Param]:
    given = {**trial.config, names.REFERENCE: trial.reference or names.NO_REFERENCE}
    return [Param(names.valid_name(name), names.parameter_value(value)) for name, value in given.items()]


def _search_parameters(search: SearchRecord) -> list[Param]:
    given = {
        "space": search.space.name,
        "budget": search.budget,
        "folds": search.folds,
        "metric": search.metric,
        "seed": search.seed,
        "sampler": search.sampler,
        "scheduler": search.scheduler,
        "max_copy_rate": "none" if search.max_copy_rate is None else search.max_copy_rate,
        "threads": search.threads,
        "classes": ", ".join(search.data.classes),
        "images": sum(search.data.counts),
        "patients": search.data.patients if search.data.patients_known else "unknown",
    }
    return [Param(name, names.parameter_value(value)) for name, value in given.items()]


def _log_fold(run: RemoteRun, trial: TrialResult, fold: FoldResult) -> None:
    """Log a fold in one call, at a time that follows from the record, so that a replay gives the same."""
    when = _milliseconds(trial.created + (fold.fold + 1) * fold.seconds)
    fidelity = {names.fidelity(measure): value for measure, value in fold.fidelity.items()}
    values = {**fold.scores, **fidelity, names.SECONDS: fold.seconds}
    metrics = [
        Metric(names.per_fold(name), value, when, fold.fold) for name, value in values.items() if value is not None
    ]
    run.log(metrics, tags={names.FOLDS_LOGGED: ",".join(map(str, sorted({*run.folds, fold.fold})))})
    run.folds.add(fold.fold)


def _summary(trial: TrialResult) -> list[Metric]:
    """A finished trial's means and spreads over its folds; nothing for one that may still change."""
    if trial.state == "unfinished":
        return []
    values: dict[str, float | None] = {}
    for name, summary in trial.scores.items():
        values |= {names.score(name): summary.mean, names.spread(name): summary.std}
    for measure, summary in trial.fidelity.items():
        values[names.fidelity(measure)] = summary.mean
        over_folds = names.fidelity_spread(measure)
        if over_folds is not None:
            values[over_folds] = summary.std
    values |= {
        names.FOLDS_DONE: float(len(trial.folds)),
        names.SECONDS: sum(fold.seconds for fold in trial.folds),
        names.PEAK_MIB: max((fold.peak_bytes for fold in trial.folds), default=0) / 2**20,
    }
    when = _milliseconds(trial.ended or trial.created)
    return [Metric(name, value, when, 0) for name, value in values.items() if value is not None]


def _ending(search: SearchRecord, trial: TrialResult, standing: str) -> dict[str, str]:
    tags = {names.STATE: standing}
    if trial.state != "unfinished":
        tags[names.NOTE] = notes.trial_note(search, trial)
    if trial.error:
        tags[names.ERROR] = trial.error
    return tags


def _course(search: SearchRecord, trials: Sequence[TrialResult]) -> list[Metric]:
    """The search's course: after each trial that ended, how many ended how, and the best score so far."""
    metrics: list[Metric] = []
    counts = dict.fromkeys((names.TRIALS_COMPLETED, names.TRIALS_PRUNED, names.TRIALS_FAILED), 0)
    best: float | None = None
    better = max if maximizes(search.metric) else min
    ended = sorted((each for each in trials if each.ended is not None), key=lambda each: (each.ended, each.id))
    for step, trial in enumerate(ended, start=1):
        when = _milliseconds(trial.ended or 0)
        counts[f"trials_{trial.state}"] += 1
        mean = notes.completed_mean(search, trial)
        if mean is not None:
            best = mean if best is None else better(best, mean)
        metrics += [Metric(name, float(count), when, step) for name, count in counts.items()]
        if best is not None:
            metrics.append(Metric(names.best(search.metric), best, when, step))
    return metrics


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
