"""How machines and clusters are shared among trials."""

from __future__ import annotations

import pytest

from search.allotment import allot_cluster
from search.settings import Resources, SettingsError


def resources(**asked: object) -> Resources:
    nothing = dict.fromkeys(("concurrency", "cpus_per_trial", "gpus_per_trial", "address", "time_budget"))
    return Resources(**{**nothing, "checkpoint_seconds": 60.0, **asked})


def test_a_cluster_of_processors_runs_as_many_trials_as_its_nodes_have_room_for() -> None:
    found = allot_cluster([{"CPU": 4.0}, {"CPU": 4.0}, {}], resources(), trials=100)
    assert (found.concurrency, found.cpus, found.gpus.whole) == (8, 1, 0.0)


def test_no_more_trials_run_at_once_than_there_are() -> None:
    assert allot_cluster([{"CPU": 4.0}, {"CPU": 4.0}], resources(), trials=3).concurrency == 3


def test_large_nodes_give_their_trials_several_threads() -> None:
    found = allot_cluster([{"CPU": 64.0}, {"CPU": 32.0}], resources(), trials=100)
    assert (found.cpus, found.concurrency) == (4, 16 + 8)


def test_gpus_are_shared_and_nodes_without_one_are_left_out() -> None:
    nodes = [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 8.0}]
    found = allot_cluster(nodes, resources(), trials=100, gpu_bytes=80 * 2**30)
    assert (found.concurrency, found.cpus, found.gpus.share, found.gpus.whole) == (4, 4, 0.25, 1.0)
    assert found.gpus.gpu_bytes == 80 * 2**30


def test_what_is_asked_for_or_fixed_by_an_earlier_attempt_is_kept() -> None:
    nodes = [{"CPU": 8.0, "GPU": 2.0}]
    assert allot_cluster(nodes, resources(gpus_per_trial=1.0), trials=9).concurrency == 2
    assert allot_cluster(nodes, resources(concurrency=3), trials=9).concurrency == 3
    assert allot_cluster([{"CPU": 8.0}], resources(), trials=9, threads=2).concurrency == 4


@pytest.mark.parametrize("asked", [{"cpus_per_trial": 9}, {"gpus_per_trial": 1.0}])
def test_a_trial_that_fits_on_no_node_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="no node of the cluster has"):
        allot_cluster([{"CPU": 8.0}, {"CPU": 8.0}], resources(**asked), trials=4)
