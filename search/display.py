"""The live display: a few lines that are redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from search.outcome import format_score, policy, rank
from trainables.ledger import Ledger
from trainables.results import TrialResult

_EVERY = 1.0
_PLAIN_EVERY = 30.0


class Display:
    """Shows a running search from its ledger, in a thread of its own; a context manager.

    Args:
        console: where to show it; plain lines are printed where it is no terminal.
        ledger: the search.
        running: ids of the trials that are computed at this moment.
        concurrency: trials at once, for the estimate of the time left.
    """

    def __init__(
        self, console: Console, ledger: Ledger, *, running: Callable[[], Sequence[str]], concurrency: int
    ) -> None:
        self._console = console
        self._ledger = ledger
        self._record = ledger.search()
        self._running = running
        self._concurrency = concurrency
        self._start = time.monotonic()
        self._ended_before = {trial.id for trial in ledger.trials() if trial.state != "unfinished"}
        self._announced = set(self._ended_before)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="display", daemon=True)

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=5)

    def say(self, sentence: str) -> None:
        """Print a sentence above the display."""
        self._console.print(sentence)

    def _loop(self) -> None:
        if not self._console.is_terminal:
            self._plain()
            return
        with Live(console=self._console, refresh_per_second=2, transient=True) as live:
            while not self._done.wait(_EVERY):
                self._announce()
                live.update(Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in self.lines())))
            self._announce()

    def _plain(self) -> None:
        last = 0.0
        while not self._done.wait(_EVERY):
            self._announce()
            if time.monotonic() - last >= _PLAIN_EVERY:
                last = time.monotonic()
                self.say(" | ".join(self.lines()))
        self._announce()

    def _announce(self) -> None:
        """One line for each trial that has ended since."""
        for trial in self._ledger.trials():
            if trial.state == "unfinished" or trial.id in self._announced:
                continue
            self._announced.add(trial.id)
            score = f"{self._record.metric} {format_score(trial.score(self._record.metric))}"
            how = trial.error if trial.state == "failed" else score
            self.say(f"{trial.id} {trial.state}: {policy(trial.config, self._record.space)}: {how}")

    def lines(self) -> list[str]:
        """What is shown now, a line each: counts, times, best so far, one for each running trial."""
        trials = self._ledger.trials()
        running = self._running()
        count = {state: sum(trial.state == state for trial in trials) for state in ("completed", "pruned", "failed")}
        elapsed = time.monotonic() - self._start
        lines = [
            f"{count['completed']} of {self._record.trials} trials completed, {len(running)} running, "
            f"{count['pruned']} pruned, {count['failed']} failed; {_clock(elapsed)} elapsed, "
            f"{self._left(trials, elapsed)}"
        ]
        ranked = rank(trials, self._record)
        if ranked:
            best = format_score(ranked[0].score(self._record.metric))
            words = policy(ranked[0].config, self._record.space)
            lines.append(f"best so far: {self._record.metric} {best}  {words} ({ranked[0].id})")
        return lines + [self._stage(trial_id) for trial_id in running]

    def _stage(self, trial_id: str) -> str:
        progress = self._ledger.progress(trial_id)
        if progress is None:
            return f"{trial_id} starting"
        line = f"{trial_id} fold {progress['fold'] + 1}/{self._record.folds} {progress['stage']}"
        return line + (f" {progress['done']}/{progress['total']}" if progress["total"] else "")

    def _left(self, trials: Sequence[TrialResult], elapsed: float) -> str:
        ended = [trial for trial in trials if trial.state != "unfinished"]
        here = [trial for trial in ended if trial.id not in self._ended_before]
        if not here:
            return "time left not known yet"
        left = max(0, self._record.trials - len(ended))
        return f"about {_clock(elapsed / len(here) * left)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
