"""How a search ends: confirmed within its means, or with a sentence that says why not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mlflow_tracking.names import CONFIRMATION_FILE
from search import confirm
from search.attempt import End
from search.candidates import Candidate, Plan
from search.confirm import Wish, confirm_at_the_end, confirm_search, start
from search.inputs import images_folder
from search.settings import Resources
from spaces.presets import PRESETS
from spaces.protocol import Protocol
from spaces.space import Assignment
from tests.search.made_up_trials import TOY
from tests.search.test_candidates import SPACE, searched
from tests.search.tiny_search import MIXUP, NAME, new_search
from trainables.data.cohort import PIXELS_FILE, Cohort
from trainables.data.locked import lock
from trainables.errors import DataError
from trainables.files import write_json
from trainables.ledger import IMAGES, SHARED, DataRecord, Ledger, SearchRecord
from trainables.session import Session

RESOURCES = Resources(
    concurrency=None, cpus_per_trial=None, gpus_per_trial=None, address=None, time_budget=None, checkpoint_seconds=60.0
)


class Ended:
    """A search on record whose trials have ended; what a confirmation would compute is only noted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = DataRecord(
            digest="d", source="labels.csv of x", classes=("a", "b"), counts=(3, 4), patients=5, patients_known=True,
            is_phantom=False, positive=1, bad_images=(),
        )  # fmt: skip
        self.record = SearchRecord(
            name="s", space=SPACE, data=data, budget="standard", folds=2, metric="auroc", seed=1, sampler="tpe",
            scheduler="asha", trials=64, threads=1, tracking_uri="sqlite:///x", created=1.0, versions={},
            protocol=Protocol(folds=2),
        )  # fmt: skip
        self.ledger = Ledger(folder / "searches" / "s")
        self.ledger.folder.mkdir(parents=True)
        self.ledger.write_search(self.record)
        self.started: list[Plan] = []
        self.run: list[Ledger] = []
        monkeypatch.setattr(confirm, "start", self._start)
        monkeypatch.setattr(confirm, "_run", self._run)

    def _start(self, search: Ledger, chosen: Plan, console: Console) -> Ledger:
        self.started.append(chosen)
        return Ledger(search.folder / "confirm")

    def _run(self, search: Ledger, confirmation: Ledger, resources: Resources, console: Console) -> None:
        self.run.append(confirmation)

    def tries(self, configs: list[Assignment]) -> None:
        trials = searched()
        for number, config in enumerate(configs):
            trial_id = self.ledger.add_trial(config, reference=None)
            like = trials[number] if number < len(trials) else trials[0]
            for fold in like.folds:
                self.ledger.record_fold(trial_id, fold)
            self.ledger.end_trial(trial_id, "completed")

    def rewrite(self, **changes: object) -> None:
        self.ledger.write_search(replace(self.record, **changes))  # type: ignore[arg-type]

    def end(self, *, wanted: bool = True, exhausted: bool = False, resources: Resources = RESOURCES) -> str:
        out = StringIO()
        console = Console(file=out, width=300, markup=False)
        confirm_at_the_end(self.ledger, resources, console, wanted=wanted, exhausted=exhausted)
        return out.getvalue()


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ended:
    found = Ended(tmp_path, monkeypatch)
    real = searched()[0].config
    rates = [{**real, "classifier.learning_rate": 0.001 + 0.0001 * number} for number in range(60)]
    found.tries([trial.config for trial in searched()] + rates)
    return found


def test_a_search_ends_in_a_confirmation_that_costs_at_most_a_quarter_of_it(ended: Ended) -> None:
    assert ended.end() == ""
    assert [folder.folder.name for folder in ended.run] == ["confirm"]
    assert [each.role for each in ended.started[0].candidates][:2] == [None, "none"]
    spent = sum(fold.seconds for trial in ended.ledger.trials() for fold in trial.folds)
    assert 0 < ended.started[0].seconds <= 0.25 * spent


@pytest.mark.parametrize(
    ("change", "wanted", "reason"),
    [
        ({"budget": "quick"}, True, "budget quick"),
        ({}, False, "--no-confirm"),
        ({"space": PRESETS["table_genmix"]}, True, "a paper's table chooses nothing"),
    ],
)
def test_a_search_that_is_not_confirmed_says_why_and_what_it_would_cost(
    ended: Ended, change: dict[str, object], wanted: bool, reason: str
) -> None:
    ended.rewrite(**change)
    said = ended.end(wanted=wanted)
    assert said.startswith(f"Not confirmed ({reason})")
    assert "python search/run.py confirm s" in said
    assert not ended.started


def test_a_search_that_is_too_small_for_a_confirmation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Ended(tmp_path, monkeypatch)
    small.tries([trial.config for trial in searched()])
    small.rewrite(trials=4)
    assert small.end().startswith("Not confirmed (it would cost more than 25% of the search)")


def test_a_search_with_trials_to_come_is_not_confirmed_unless_nothing_is_left_to_try(ended: Ended) -> None:
    ended.rewrite(trials=100)
    assert ended.end() == ""
    assert not ended.run
    ended.end(exhausted=True)
    assert ended.run


def test_no_time_left_is_a_reason(ended: Ended) -> None:
    assert "no time is left" in ended.end(resources=replace(RESOURCES, time_budget=0.5))


def confirmed(ended: Ended, *, states: tuple[str, ...], told: str | None) -> None:
    ledger = Ledger(ended.ledger.folder / "confirm")
    ledger.folder.mkdir()
    ledger.write_search(ended.record)
    for state in states:
        trial_id = ledger.add_trial({"mixer.name": "real"}, reference=None)
        if state != "unfinished":
            ledger.end_trial(trial_id, state)  # type: ignore[arg-type]
    if told is not None:
        rows = [{"searched_as": told}]
        write_json(ended.ledger.folder / CONFIRMATION_FILE, {"confirmation": "confirm", "rows": rows, "sentences": []})


@pytest.mark.parametrize(("states", "told"), [(("completed", "unfinished"), None), (("completed", "completed"), None)])
def test_a_confirmation_that_was_cut_off_anywhere_goes_on(
    ended: Ended, states: tuple[str, ...], told: str | None
) -> None:
    confirmed(ended, states=states, told=told)
    assert ended.end() == ""
    assert [folder.folder.name for folder in ended.run] == ["confirm"]
    assert not ended.started


def test_a_verdict_of_the_same_best_stands_and_of_another_best_is_said_to(ended: Ended) -> None:
    confirmed(ended, states=("completed",), told="t0002")
    assert ended.end() == ""
    write_json(
        ended.ledger.folder / CONFIRMATION_FILE,
        {"confirmation": "confirm", "rows": [{"searched_as": "t0001"}], "sentences": []},
    )
    said = ended.end()
    assert "the verdict on record is that of t0001, which is no longer the best" in said
    assert "confirm s" in said
    assert "--again" in said
    assert not ended.run


def test_images_that_are_gone_do_not_undo_a_finished_search(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> Ledger:
        raise DataError("the folder is gone.")

    monkeypatch.setattr(confirm, "start", refuse)
    assert ended.end().startswith("Not confirmed (the folder is gone.)")


def test_a_stop_before_a_confirmation_began_names_the_command(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: object) -> Ledger:
        raise KeyboardInterrupt

    monkeypatch.setattr(confirm, "start", stop)
    assert "Stopped before the confirmation began: python search/run.py confirm s" in ended.end()


class Begun:
    """A confirmation of one policy that goes on, whose computing is noted and cut off."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch, *, has_locked: bool) -> None:
        self.search = new_search(place, space=TOY)
        if has_locked:
            self._lock()
        self._chosen = Plan(
            candidates=(Candidate(config=MIXUP, role="mixup", trial=None, seconds=1.0),),
            repeats=1, test_repeats=2 * has_locked, evaluations=2,
        )  # fmt: skip
        self.computed = self.images = 0
        monkeypatch.setattr(confirm, "compute", self._compute)
        monkeypatch.setattr(confirm, "check_tracking", lambda search: None)

    def _lock(self) -> None:
        record = self.search.search()
        assert record.source is not None
        table = record.source.table()
        locked = lock(table, record.source, share=0.25, seed=1)
        assert locked is not None
        locked.write(self.search.folder)
        cache = self.search.storage / SHARED / IMAGES
        shutil.rmtree(cache)
        cohort = record.source.decode(table.part(locked.ids, inside=False), cache=cache)
        self.search.write_search(replace(record, data=replace(record.data, digest=cohort.digest)))

    def start(self) -> Ledger:
        return start(self.search, self._chosen, Console(file=StringIO()))

    def _compute(self, ledger: Ledger, *given: object) -> End:
        self.computed += 1
        self.images = len(Session.open(ledger.folder).cohort.check())
        return End(exit_code=None, interrupted=True, exhausted=False, page=None)

    def go_on(self) -> int:
        return confirm_search(self.search.storage, NAME, Wish(), RESOURCES)


@pytest.fixture(params=[False, True], ids=["all searched", "some locked"])
def begun(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begun:
    return Begun(tmp_path, monkeypatch, has_locked=request.param)


def remove(images: Path) -> None:
    shutil.rmtree(images)


def damage(images: Path) -> None:
    path = images / PIXELS_FILE
    path.chmod(0o644)
    np.lib.format.open_memmap(path, mode="r+")[7] += 1


@pytest.mark.parametrize("harm", [remove, damage])
def test_a_confirmation_that_goes_on_reads_images_that_are_gone_or_damaged_again(
    begun: Begun, harm: Callable[[Path], None]
) -> None:
    harm(images_folder(begun.start()))
    assert begun.go_on() == 0
    assert begun.images == 24


@pytest.mark.parametrize("harm", [remove, damage])
@pytest.mark.parametrize("source", ["gone", "changed"])
def test_a_confirmation_whose_images_can_be_had_nowhere_ends_before_a_trial_begins(
    begun: Begun, harm: Callable[[Path], None], source: str
) -> None:
    confirmation, data = begun.start(), begun.search.folder.parent.parent / "data"
    harm(images_folder(confirmation))
    if source == "gone":
        shutil.rmtree(data)
    else:
        (data / "0-0.mha").write_bytes((data / "0-1.mha").read_bytes())
    said = "holds no usable cohort" if source == "gone" else "are not the ones that it was started with"
    with pytest.raises(DataError, match=said):
        begun.go_on()
    assert not begun.computed
    assert [trial.state for trial in confirmation.trials()] == ["unfinished"]


@pytest.mark.parametrize("harm", [remove, damage])
def test_a_confirmation_that_begins_reads_images_that_are_gone_or_damaged_again(
    begun: Begun, harm: Callable[[Path], None]
) -> None:
    harm(images_folder(begun.search))
    assert len(Cohort.load(images_folder(begun.start())).check()) == 24
