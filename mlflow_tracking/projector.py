"""Bring a tracking server to the state of the ledger: live, after an outage, on another server, by one code path."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient

from mlflow_tracking import names, notes, records
from mlflow_tracking.address import page_address
from mlflow_tracking.connect import OUTAGES, TrackingOutage, client_for, probe, why
from mlflow_tracking.pictures import PicturesMissing, draw_map, draw_pictures, has_map
from mlflow_tracking.remote import Remote, RemoteRun, Written, open_remote, search_id
from mlflow_tracking.sharing import Sharing, sharing_of
from trainables.feature_map import FOLDER
from trainables.ledger import Ledger, SearchRecord
from trainables.results import TrialResult

_STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
_RENEW_EVERY = 60.0
"""Seconds after which the search's run is written again though nothing has happened."""
_MOMENT = "%Y-%m-%d %H:%M:%S UTC"
_SEARCH_FILES = (
    "result.json",
    "best.yaml",
    names.TABLE_FILE,
    names.RATIO_FILE,
    names.PARETO_FILE,
    names.CONFIRMATION_FILE,
    names.REPORT_FILE,
    names.FIGURES_FOLDER,
)


class Projector:
    """Reads a ledger and writes what a tracking server lacks of it.

    Everything here is safe to repeat. What the server has is read from it when the projector first needs it and again
    after any error, so that a crash or a lost answer at any point leaves nothing twice and nothing out. For one thread
    at a time.

    A confirmation goes into the experiment of its search: its trials become runs of their own kind below the search's
    run, which is created for them if need be but otherwise left to the search's own projector. It does not matter
    which of the two comes first, or how often.

    Args:
        ledger: the record of a search, or of a confirmation, which lies in its search's folder; must exist.
        tracking_uri: a server or database that ``check_server`` accepts.
        kind: what the trials are: ``KIND_TRIAL`` of a search, ``KIND_CONFIRM`` of a confirmation.
        make_client: opens the client, when it is first needed.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        tracking_uri: str,
        *,
        kind: str = names.KIND_TRIAL,
        make_client: Callable[[str], MlflowClient] = client_for,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._of_search = kind == names.KIND_TRIAL
        self._whole = ledger if self._of_search else Ledger(ledger.folder.parent)
        self._uri = tracking_uri
        self._make_client = make_client
        self._clock = clock
        self._client: MlflowClient | None = None
        self._remote: Remote | None = None
        self._experiment_id: str | None = None
        self._state = notes.RUNNING
        self._done: object = None
        self._hurry = False
        self._without_pictures = 0
        self._files_due = False
        self._complete: set[str] = set()
        self._course = 0
        self._renewed: float | None = None
        self._started = clock()
        trials = ledger.trials()
        self._ended_before = sum(each.state != "unfinished" for each in trials)
        self._idle = {each.id: self._trace(each) for each in trials if each.state == "unfinished"}
        self.written = Written()

    @property
    def page(self) -> str | None:
        """The address of the page that lists the trials; None before the first successful ``sync``."""
        return None if self._experiment_id is None else page_address(self._uri, self._experiment_id)

    def sync(self, *, pictures: int | None = None) -> int:
        """Write what the server lacks; without a call to it if nothing changed within the last minute.

        Args:
            pictures: draw at most so many sets of them, as drawing is slow; None for all. A trial has up to two sets:
                its images, and its feature map.

        Returns:
            How many sets of pictures are still to be drawn.

        Raises:
            TrackingOutage: the server cannot be reached or refuses; the next call takes up from there.
        """
        search, trials = self._ledger.search(), self._ledger.trials()
        state = (search.trials, self._state, tuple((each.id, self._standing(each), len(each.folds)) for each in trials))
        if state == self._done and not self._is_due() and not (self._without_pictures and pictures != 0):
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
        self._done = None if self._left_off() else state
        return self._without_pictures

    def leave_off(self) -> None:
        """Make ``sync`` return after the trial that it is at, so that ``close`` can follow; from any thread."""
        self._hurry = True

    def close(self, *, interrupted: bool, elsewhere: bool = False) -> None:
        """Write what the server lacks except pictures, and end every run: nothing stays RUNNING.

        A trial that is unfinished ends as KILLED until it is taken up again; so does the search if ``interrupted``.
        ``sync`` may be called afterwards to draw pictures, and ``close`` again where the search's files have changed.

        Args:
            interrupted: whether the search was left before its end.
            elsewhere: whether it goes on, with another server; this one has a copy then.

        Raises:
            TrackingOutage: as ``sync``.
        """
        self._state = notes.ELSEWHERE if elsewhere else notes.INTERRUPTED if interrupted else notes.FINISHED
        self._done = None
        self._files_due = True
        self.sync(pictures=0)

    def _left_off(self) -> bool:
        return self._hurry and self._state == notes.RUNNING

    def _is_due(self) -> bool:
        """Whether it is time to say again that the search runs."""
        if not self._of_search or self._state != notes.RUNNING:
            return False
        return self._renewed is None or not 0 <= self._clock() - self._renewed < _RENEW_EVERY

    def _reach(self) -> None:
        wrong = probe(self._uri)
        if wrong is not None:
            raise ConnectionError(wrong)
        if self._client is None:
            self._client = self._make_client(self._uri)

    def _forget(self) -> None:
        """Forget what the server has: after an error nobody knows which of the calls arrived."""
        self._remote = None
        self._done = None
        self._complete.clear()
        self._course = 0

    def _write(self, search: SearchRecord, trials: Sequence[TrialResult], pictures: int | None) -> int:
        assert self._client is not None  # noqa: S101 - opened by _reach
        whole = search if self._of_search else self._whole.search()
        if self._remote is None:
            confirmation = None if self._of_search else search_id(search)
            self._remote = open_remote(self._client, self._uri, whole, confirmation=confirmation, written=self.written)
            self._experiment_id = self._remote.experiment_id
        remote = self._remote
        run = remote.search or self._create_search(remote, whole)
        if self._state != notes.RUNNING:
            self._end_running(remote, run, trials)
        sharing = sharing_of(trials)
        for trial in trials:
            if self._left_off():
                return self._without_pictures
            if trial.id not in self._complete:
                self._write_trial(remote, search, trial, sharing)
        if self._state != notes.RUNNING:
            self._renew_notes(remote, search, trials, sharing)
        self._end_strays(remote, {trial.id for trial in trials})
        if self._of_search:
            self._write_search(run, search, trials)
        elif run.state is None:  # nobody has followed the search itself so far
            run.set_status("KILLED", ended=records.milliseconds(self._clock()))
        elif run.status == "RUNNING":
            self._end_ownerless(run)
        if self._files_due:
            self._store_files(run)
            self._files_due = False
        shown = replace(search, show_images=search.show_images and whole.show_images)
        return self._write_pictures(remote, shown, trials, pictures)

    def _standing(self, trial: TrialResult) -> str:
        """A trial's state; an unfinished one is running if it moved since the projector was made, or is new."""
        if trial.state != "unfinished":
            return trial.state
        if self._state != notes.RUNNING:
            return notes.ELSEWHERE if self._state == notes.ELSEWHERE else notes.INTERRUPTED
        if trial.id in self._idle and self._idle[trial.id] != self._trace(trial):
            del self._idle[trial.id]
        return notes.INTERRUPTED if trial.id in self._idle else notes.RUNNING

    def _trace(self, trial: TrialResult) -> object:
        return len(trial.folds), self._ledger.progress(trial.id)

    def _write_trial(self, remote: Remote, search: SearchRecord, trial: TrialResult, sharing: Sharing) -> None:
        run, standing = remote.trials.get(trial.id), self._standing(trial)
        if run is None:
            name, tags = self._introduction(remote, search, trial)
            if trial.state == "unfinished":
                tags[names.STATE] = standing
            run = remote.create_run(name, tags, created=trial.created)
            remote.trials[trial.id] = run
        self._log_trial(run, search, trial, standing, sharing)
        self._set_status(run, trial)
        if trial.state != "unfinished":
            self._complete.add(trial.id)

    def _log_trial(
        self, run: RemoteRun, search: SearchRecord, trial: TrialResult, standing: str, sharing: Sharing
    ) -> None:
        """Log in one call what the run lacks."""
        parameters = [] if run.has_parameters else records.parameters(search, trial)
        new = [fold for fold in trial.folds if fold.fold not in run.folds]
        metrics = [metric for fold in new for metric in records.fold_metrics(trial, fold)]
        folds = run.folds | {fold.fold for fold in new}
        tags = {names.FOLDS_LOGGED: ",".join(map(str, sorted(folds)))} if new else {}
        if standing != run.state:
            metrics += records.summary(trial)
            tags |= records.ending(search, trial, standing, sharing)
            run.note = tags.get(names.NOTE, run.note)
        if metrics or parameters or tags:
            metrics.sort(key=lambda each: records.place(search, each.key))
            run.log(metrics, parameters=parameters, tags=tags)
        run.folds, run.state = folds, standing

    def _renew_notes(
        self, remote: Remote, search: SearchRecord, trials: Sequence[TrialResult], sharing: Sharing
    ) -> None:
        """Say on trials that ended earlier who has used their generators since."""
        for trial in trials:
            run = remote.trials[trial.id]
            note = records.trial_note(search, trial, sharing)
            if trial.state != "unfinished" and run.note != note:
                run.log(tags={names.NOTE: note})
                run.note = note

    def _introduction(self, remote: Remote, search: SearchRecord, trial: TrialResult) -> tuple[str, dict[str, str]]:
        """The name and the tags that a trial's run begins with."""
        if self._of_search:
            tags = records.common_tags(search, search)
            return notes.trial_name(trial), {**tags, names.KIND: names.KIND_TRIAL, names.TRIAL: trial.id}
        searched_as = self._searched_as(trial)
        tags = {
            **records.common_tags(search, self._whole.search()),
            names.KIND: names.KIND_CONFIRM,
            names.CONFIRMATION: search_id(search),
            names.TRIAL: trial.id,
        }
        if remote.search is not None:
            tags[names.PARENT] = remote.search.id
        if searched_as is not None:
            tags[names.CONFIRMS] = searched_as
        return notes.confirm_name(trial, searched_as), tags

    def _searched_as(self, trial: TrialResult) -> str | None:
        """The search's trial of the same configuration, the first of equals."""
        return next((each.id for each in self._whole.trials() if each.config == trial.config), None)

    def _set_status(self, run: RemoteRun, trial: TrialResult) -> None:
        standing = self._standing(trial)
        status = _STATUS.get(standing, "RUNNING" if standing == notes.RUNNING else "KILLED")
        run.set_status(status, ended=records.milliseconds(trial.ended or self._clock()))

    def _end_running(self, remote: Remote, search_run: RemoteRun, trials: Sequence[TrialResult]) -> None:
        """End what runs before anything else, as there may be no time for the rest."""
        for trial in trials:
            run = remote.trials.get(trial.id)
            if run is not None and run.status == "RUNNING":
                self._set_status(run, trial)
        if self._of_search:
            self._set_search_status(search_run)

    def _set_search_status(self, run: RemoteRun) -> None:
        status = {notes.RUNNING: "RUNNING", notes.FINISHED: "FINISHED"}.get(self._state, "KILLED")
        run.set_status(status, ended=records.milliseconds(self._clock()))

    def _end_strays(self, remote: Remote, known: set[str]) -> None:
        """End the runs that no driver goes on with: that of this ledger is the only one that a search has."""
        unknown = [run for trial_id, run in remote.trials.items() if trial_id not in known]
        for run in (*remote.strays, *unknown, *remote.others):
            if run.status == "RUNNING":
                self._end_ownerless(run)

    def _end_ownerless(self, run: RemoteRun) -> None:
        run.log(tags={names.STATE: notes.INTERRUPTED})
        run.set_status("KILLED", ended=records.milliseconds(self._clock()))

    def _create_search(self, remote: Remote, search: SearchRecord) -> RemoteRun:
        tags = {**records.common_tags(search, search), names.KIND: names.KIND_SEARCH}
        remote.search = remote.create_run(f"search {search.name}", tags, created=search.created)
        return remote.search

    def _write_search(self, run: RemoteRun, search: SearchRecord, trials: Sequence[TrialResult]) -> None:
        if not run.has_parameters:
            run.log(parameters=records.search_parameters(search))
        run.log_data(search)
        running = [each.id for each in trials if self._standing(each) == notes.RUNNING]
        note = self._note(search, trials, self._state, running)
        if self._renewed is None and run.written is not None:
            self._renewed = _parsed(run.written)
        if note != run.note or self._state != run.state or self._is_due():
            self._renewed = self._clock()
            left = self._seconds_left(search, trials)
            tags = {
                names.NOTE: note,
                names.STATE: self._state,
                names.PROGRESS: notes.progress(search, trials, seconds_left=left),
                names.WRITTEN: _moment(self._renewed),
            }
            run.log(records.course(search, trials, after=self._course), tags=tags)
            self._course = sum(each.ended is not None for each in trials)
            run.note, run.state = note, self._state
        self._set_search_status(run)

    def _note(
        self, search: SearchRecord, trials: Sequence[TrialResult], state: str, running: Sequence[str] = ()
    ) -> str:
        """The note of the search's run, with what its folder says of its outcome."""
        folder = self._whole.folder
        verdict, commands = records.verdict_sentences(folder), records.commands(folder)
        return notes.search_note(search, trials, state=state, running=running, verdict=verdict, commands=commands)

    def _seconds_left(self, search: SearchRecord, trials: Sequence[TrialResult]) -> float | None:
        """At the pace of the trials that ended since the projector was made; None where there is no pace, or no end."""
        ended = sum(each.state != "unfinished" for each in trials)
        here = ended - self._ended_before
        if self._state != notes.RUNNING or here < 1 or ended >= search.trials:
            return None
        return (self._clock() - self._started) / here * (search.trials - ended)

    def _store_files(self, run: RemoteRun) -> None:
        """Store what the search's folder says of its outcome, and the sentences of its confirmation as a tag."""
        paths = [path for name in _SEARCH_FILES if (path := self._whole.folder / name).exists()]
        for path in paths:
            self._store(run, path)
        verdict = records.verdict(self._whole.folder)
        if verdict is not None:
            run.log(tags={names.VERDICT: verdict})
            if not self._of_search and run.state == notes.FINISHED:  # nobody may follow the search itself any more
                search, trials = self._whole.search(), self._whole.trials()
                run.log(tags={names.NOTE: self._note(search, trials, notes.FINISHED)})

    def _write_pictures(
        self, remote: Remote, search: SearchRecord, trials: Sequence[TrialResult], limit: int | None
    ) -> int:
        lacking = {
            tag: [each for each in trials if each.folds and tag not in remote.trials[each.id].pictures]
            for tag in (names.SHEET, names.MAP)
        }
        with_map = [each for each in lacking[names.MAP] if has_map(self._map(each))]
        waiting = [(each, names.SHEET) for each in lacking[names.SHEET]]
        waiting += [(each, names.MAP) for each in notes.best_first(search, with_map)]
        now = waiting if limit is None else waiting[:limit]
        for trial, tag in now:
            run = remote.trials[trial.id]
            run.log(tags={tag: self._draw(run, search, trial, tag)})
            run.pictures.add(tag)
        return len(waiting) - len(now)

    def _map(self, trial: TrialResult) -> Path:
        return self._ledger.trial_folder(trial.id) / FOLDER

    def _draw(self, run: RemoteRun, search: SearchRecord, trial: TrialResult, tag: str) -> str:
        """Draw and store a set of a trial's pictures; says what became of them."""
        name = notes.trial_name(trial) if self._of_search else notes.confirm_name(trial, self._searched_as(trial))
        with tempfile.TemporaryDirectory(prefix="genmix-") as folder:
            try:
                if tag == names.MAP:
                    files = draw_map(self._map(trial), search, name, Path(folder))
                else:
                    files = draw_pictures(self._ledger.storage, search, trial, name, Path(folder))
            except PicturesMissing as error:
                return f"skipped: {error}"
            problems = [problem for path in files if (problem := self._store(run, path))]
        if not files:
            return "nothing to draw"
        return f"not stored: {problems[0]}" if problems else "logged"

    def _store(self, run: RemoteRun, path: Path) -> str | None:
        """Store a file, or say why the server, which is there, does not take it; a missing driver can be installed."""
        try:
            if path.is_dir():
                run.log_folder(path)
            else:
                run.log_file(path)
        except OUTAGES as error:
            if isinstance(error, ImportError) or probe(self._uri) is not None:
                raise
            return _one_line(error)
        return None


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_MOMENT)


def _parsed(moment: str) -> float | None:
    try:
        return datetime.strptime(moment, _MOMENT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _one_line(error: Exception) -> str:
    if isinstance(error, ImportError):
        return why(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
