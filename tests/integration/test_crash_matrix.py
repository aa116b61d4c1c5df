"""The crash matrix with reduced counts: whatever kills a search, going on with it gives what was never killed."""

from __future__ import annotations

import pytest

from tests.benchmarks.crash_inside import kill_driver, kill_worker, stop_by_signals
from tests.benchmarks.crash_outside import fill_disk
from tests.benchmarks.crash_setting import Row, Setting

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(work=tmp_path_factory.mktemp("crash"), seed=0, small=True, kills=3)


def check(rows: list[Row], *, injected: int) -> None:
    for row in rows:
        if row.skipped is not None:
            pytest.skip(row.skipped)
        assert not row.broken, "\n".join(row.broken)
        assert (row.trials_lost, row.folds_recomputed, row.runs_running) == (0, 0, 0)
    assert sum(row.injected for row in rows) == injected


def test_a_search_whose_driver_is_killed_again_and_again_loses_nothing(setting: Setting) -> None:
    check(kill_driver(setting), injected=3)


def test_a_training_whose_process_is_killed_goes_on_from_its_checkpoint(setting: Setting) -> None:
    check(kill_worker(setting), injected=1)


def test_a_search_that_is_told_to_stop_stops_at_a_checkpoint(setting: Setting) -> None:
    check(stop_by_signals(setting, ["SIGTERM"]), injected=1)


def test_a_search_on_a_full_disk_stops_in_order_and_goes_on_when_there_is_room(setting: Setting) -> None:
    check(fill_disk(setting), injected=1)
