"""The live display: a few lines that are redrawn on a terminal, plain lines elsewhere, events for machines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.events import write_event
from search.outcome import format_score, policy, rank
from search.time_left import TimeLeft
from trainables.ledger import Ledger
from trainables.results import TrialResult

_EVERY = 1.0
_LINES_EVERY, _EVENTS_EVERY = 30.0, 5.0
_BAR_WIDTH = 24


class Display:
    """Shows a running search from its ledger, in a thread of its own; a context manager.

    Args:
        console: where to show it; plain lines are printed where it is no terminal.
        ledger: the search.
        running: ids of the trials that are computed at this moment.
        progress: "auto", "plain", "quiet" or "json", as ``--progress`` has it.
    """

    def __init__(
        self, console: Console, ledger: Ledger, *, running: Callable[[], Sequence[str]], progress: str = "auto"
    ) -> None:
        self._console = console
        self._ledger = ledger
        self._record = ledger.search()
        self._running = running
        self._progress = progress
        self._start = time.monotonic()
        trials = ledger.trials()
        self._time_left = TimeLeft(wanted=self._record.trials, trials=trials, now=self._start)
        self._announced = {trial.id for trial in trials if trial.state != "unfinished"}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="display", daemon=True)

    def __enter__(self) -> Display:
        if self._progress == "json":
            folder, ended = str(self._ledger.folder), len(self._announced)
            write_event("start", search=self._record.name, folder=folder, trials=self._record.trials, ended=ended)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        if self._progress == "json":
            self._repeat(_EVENTS_EVERY, lambda: write_event("progress", **self.state()))
        elif self._progress == "quiet":
            self._repeat(float("inf"), lambda: None)
        elif self._progress == "plain" or not self._console.is_terminal:
            self._repeat(_LINES_EVERY, lambda: self._console.print(" | ".join(self.lines())))
        else:
            with Live(console=self._console, refresh_per_second=2, transient=True) as live:
                self._repeat(0.0, lambda: live.update(self.picture()))

    def _repeat(self, every: float, show: Callable[[], None]) -> None:
        """Announce what has ended, once a second, and show where the search stands, less often."""
        last = 0.0
        while not self._done.wait(_EVERY):
            self._announce()
            if time.monotonic() - last >= every:
                last = time.monotonic()
                show()
        self._announce()

    def _announce(self) -> None:
        """Say of each trial that has ended since how it did; to a quiet user only of those that failed."""
        trials = self._ledger.trials()
        self._time_left.seconds(trials, time.monotonic())  # it has to see when folds end, however seldom it is shown
        for trial in trials:
            if trial.state == "unfinished" or trial.id in self._announced:
                continue
            self._announced.add(trial.id)
            if self._progress == "json":
                write_event("trial", **_ended(trial))
            elif self._progress != "quiet" or trial.state == "failed":
                score = f"{self._record.metric} {format_score(trial.score(self._record.metric))}"
                how = trial.error if trial.state == "failed" else score
                self._console.print(f"{trial.id} {trial.state}: {policy(trial.config, self._record.space)}: {how}")

    def state(self) -> dict[str, Any]:
        """Where the search stands: counts, what runs, the best score so far, the seconds left."""
        trials = self._ledger.trials()
        ranked = rank(trials, self._record)
        best = {"trial": ranked[0].id, "score": ranked[0].score(self._record.metric).mean} if ranked else None
        counts = {state: sum(trial.state == state for trial in trials) for state in ("completed", "pruned", "failed")}
        running = [{"trial": trial_id, **(self._ledger.progress(trial_id) or {})} for trial_id in self._running()]
        return {
            **counts,
            "running": running,
            "best": best,
            "seconds_left": self._time_left.seconds(trials, time.monotonic()),
        }

    def lines(self) -> list[str]:
        """What is shown now, a line each: counts and times, best so far, one for each running trial."""
        state = self.state()
        return [*self._head(state), *(" ".join(self._doing(each)) for each in state["running"])]

    def picture(self) -> Group:
        """The same for a terminal, with a bar for what each running trial is at."""
        state = self.state()
        table = Table.grid(padding=(0, 1))
        for each in state["running"]:
            table.add_row(*self._doing(each)[:2], _bar(each), *self._doing(each)[2:])
        return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in self._head(state)), table)

    def _head(self, state: Mapping[str, Any]) -> list[str]:
        elapsed = _clock(time.monotonic() - self._start)
        left = state["seconds_left"]
        words = "time left not known yet" if left is None else f"about {_clock(left)} left"
        lines = [
            f"{state['completed']} of {self._record.trials} trials completed, {len(state['running'])} running, "
            f"{state['pruned']} pruned, {state['failed']} failed; {elapsed} elapsed, {words}"
        ]
        if state["best"] is not None:
            trial = self._ledger.trial(state["best"]["trial"])
            score = format_score(trial.score(self._record.metric))
            words = policy(trial.config, self._record.space)
            lines.append(f"best so far: {self._record.metric} {score}  {words} ({trial.id})")
        return lines

    def _doing(self, running: Mapping[str, Any]) -> list[str]:
        """What a running trial is at: its id, its fold, the stage and how much of that is done."""
        if "stage" not in running:
            return [running["trial"], "starting"]
        words = [running["trial"], f"fold {running['fold'] + 1}/{self._record.folds}", running["stage"]]
        return words + ([f"{running['done']}/{running['total']}"] if running["total"] else [])


def _bar(running: Mapping[str, Any]) -> ProgressBar | Text:
    total = running.get("total") or 0
    return ProgressBar(total=total, completed=running["done"], width=_BAR_WIDTH) if total else Text("")


def _ended(trial: TrialResult) -> dict[str, Any]:
    return {
        "trial": trial.id,
        "state": trial.state,
        "scores": {name: summary.mean for name, summary in trial.scores.items()},
        "config": dict(trial.config),
        "error": trial.error,
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
