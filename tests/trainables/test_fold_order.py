"""A trial computes first what waits for nobody."""

from __future__ import annotations

import pytest

from trainables.fold_order import StageStatus, furthest_behind, next_fold


@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [
        ({0: "busy", 1: "free", 2: "finished"}, 2),
        ({0: "busy", 1: "free", 2: "free"}, 1),
        ({0: "busy", 1: "busy"}, 0),
        ({2: "finished", 1: "finished"}, 1),
    ],
)
def test_a_finished_fold_goes_before_a_free_one_and_a_busy_one_last(
    statuses: dict[int, StageStatus], chosen: int
) -> None:
    assert next_fold(list(statuses), statuses.__getitem__) == chosen


@pytest.mark.parametrize(
    ("stages", "fold"),
    [
        (["finished", "busy", "free"], "busy"),
        (["finished", "free"], "free"),
        (["finished", "finished"], "finished"),
    ],
)
def test_a_fold_is_as_far_as_the_stage_that_holds_it_up(stages: list[StageStatus], fold: StageStatus) -> None:
    assert furthest_behind(stages) == fold
