"""What a search's best policy is computed with once more, after the search, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.status import Status

from search.commands import resume_command
from search.inputs import open_images
from search.outcome import rank
from search.settings import SettingsError
from search.stop import Stop
from spaces.budget import budget_named
from spaces.config import TrialConfig, trial_config
from spaces.errors import nearest
from trainables.data.cohort import Cohort
from trainables.environment import Environment
from trainables.errors import StopRequested
from trainables.ledger import Ledger
from trainables.results import TrialResult
from trainables.session import stages_folder, use_threads
from trainables.stages import StageStore
from trainables.trial import best_device

_OWN_STAGES = "refit"
"""In the search's folder, where stages are not shared: what has been computed so far."""


def chosen_trial(search: Ledger, trial_id: str | None) -> TrialResult:
    """The trial of that id, or the best one.

    Raises: SettingsError if there is no such trial, or none is complete yet.
    """
    name, ids = search.folder.name, search.trial_ids()
    if trial_id is not None:
        if trial_id not in ids:
            raise SettingsError(f"--trial '{trial_id}' is no trial of '{name}'; {nearest(trial_id, ids)}.")
        return search.trial(trial_id)
    ranked = rank(search.trials(), search.search())
    if not ranked:
        raise SettingsError(
            f"'{name}' has no best trial yet; name a trial with --trial, or go on with it by: {resume_command(search)}"
        )
    return ranked[0]


def config_of(search: Ledger, trial: TrialResult) -> TrialConfig:
    """What a trial computes."""
    return trial_config(trial.config, budget_named(search.search().budget))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a policy is computed once more: ``environment``, and the signals that ask to stop."""

    environment: Environment
    stop: Stop


@contextmanager
def bench(search: Ledger, console: Console, *, doing: str) -> Iterator[Bench]:
    """Open a search's images and stages; nothing that is used in the block is evicted before its end.

    The first signal is noted, and raises StopRequested where a training can be left; a second one ends the process.

    Args:
        search: its decoded images are read again where they have gone.
        console: where progress is shown.
        doing: what is done, in the words of the progress line.

    Raises: DataError if the images are not there any more, or others.
    """
    record = search.search()
    cohort = Cohort.load(open_images(search, console))
    use_threads(record.threads)
    stop = Stop()
    with console.status(doing) as status, stop.handled():
        stop.only_note()
        progress = _Progress(doing, status, stop)
        store = StageStore(
            stages_folder(search) if record.sharing else search.folder / _OWN_STAGES,
            on_wait=lambda stage: progress(f"wait for {stage}", 0, 0),
        )
        with store.in_use():
            environment = Environment(
                cohort=cohort,
                store=store,
                seed=record.seed,
                positive=record.data.positive,
                device=best_device(1.0),
                threads=record.threads,
                report=progress,
            )
            yield Bench(environment=environment, stop=stop)


class _Progress:
    """Shows what is computed; raises StopRequested once a signal has come."""

    def __init__(self, doing: str, status: Status, stop: Stop) -> None:
        self._doing = doing
        self._status = status
        self._stop = stop

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._stop.exit_code is not None:
            raise StopRequested
        self._status.update(f"{self._doing}: {stage}" + (f" {done}/{total}" if total else ""))
