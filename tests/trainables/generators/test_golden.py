"""A generator whose numbers change must say so by its STAGE_VERSION."""

from __future__ import annotations

import json

import pytest
import torch

from tests.trainables.generators.golden import TRAINED, first_curves, golden_file


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
