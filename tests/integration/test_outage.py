"""A real MLflow server on PostgreSQL goes away in mid-search: no trial notices, and afterwards nothing is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.tracking_outage import Outage, suffer_outage
from tests.benchmarks.tracking_server import Unavailable

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def suffered(folder: Path) -> Outage:
    try:
        return suffer_outage(folder, trials=48, down=4.0)
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_a_server_that_is_killed_in_mid_search_has_every_value_once_and_in_order(tmp_path: Path) -> None:
    found = suffered(tmp_path)
    assert found.exit_code == 0, found.said
    assert found.ended_before < found.ended_before + found.ended_during < found.trials == 48, found.said
    assert found.problems == ()
    told = [line for line in found.said.splitlines() if line.startswith("Tracking")]
    assert [line.split()[1] for line in told] == ["is", "has"]
    assert "Traceback" not in found.said
