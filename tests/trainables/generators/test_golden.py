"""A generator whose numbers change must say so by its STAGE_VERSION."""

from __future__ import annotations

import json

import pytest
import torch

from tests.trainables.generators.golden import EVOLVING, OWN, TRAINED, first_curves, golden_file
from trainables.generators.evolution import MUTATIONS


@pytest.mark.parametrize("name", TRAINED)
def test_the_first_twenty_losses_are_those_of_this_stage_version(name: str) -> None:
    path = golden_file(name)
    assert path.exists(), f"no {path.name}: run python -m tests.trainables.generators.golden"
    expected = json.loads(path.read_text(encoding="utf-8"))
    found = first_curves(name)
    assert list(found) == list(expected)
    for curve, values in expected.items():
        torch.testing.assert_close(
            torch.tensor(found[curve]), torch.tensor(values), rtol=1e-4, atol=1e-4, msg=f"{name}: {curve} changed"
        )


@pytest.mark.parametrize("name", OWN)
def test_each_mutation_wins_at_times_and_always_by_more_than_rounding(name: str) -> None:
    curves = json.loads(golden_file(name).read_text(encoding="utf-8"))
    quality_MTS, diversity_MTS = (
        torch.tensor([curves[f"{quantity}/{each}"] for each in MUTATIONS], dtype=torch.float64)
        for quantity in ("quality", "diversity")
    )
    fitness_MT = (quality_MTS + EVOLVING["gamma"] * diversity_MTS)[:, :, 0]
    best_2T = fitness_MT.topk(2, dim=0).values
    assert fitness_MT.argmax(dim=0).tolist() == [int(survivor) for (survivor,) in curves["selected"]]
    assert {int(survivor) for (survivor,) in curves["selected"]} == set(range(len(MUTATIONS)))
    assert float((best_2T[0] - best_2T[1]).min()) > 1e-5
