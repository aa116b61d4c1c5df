from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from trainables.data.resampling import Frame, Preparation, Scaling, Window, resample, window


def test_resampling_equals_torchs_antialiased_resize_away_from_borders() -> None:
    pixels = np.random.default_rng(0).normal(size=(100, 90)).astype(np.float32)
    ours = resample(pixels, Window(top=10, left=20, height=60, width=70), 32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(pixels[10:70, 20:90])[None, None], (32, 32), mode="bilinear", antialias=True
    )[0, 0].numpy()
    np.testing.assert_allclose(ours[1:-1, 1:-1], theirs[1:-1, 1:-1], atol=1e-6)


def test_a_window_of_the_result_size_is_a_crop() -> None:
    pixels = np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32)
    np.testing.assert_allclose(resample(pixels, Window(top=3, left=9, height=32, width=32), 32), pixels[3:35, 9:41])


def test_a_fractional_window_is_placed_within_a_twentieth_of_a_pixel() -> None:
    rows, columns = np.mgrid[:80, :90].astype(np.float32) + 0.5
    result = resample(2 * rows - columns, Window(top=10.3, left=20.7, height=50, width=40), 16)
    centres = (np.arange(16) + 0.5) / 16
    expected = 2 * (10.3 + 50 * centres)[:, None] - (20.7 + 40 * centres)[None, :]
    np.testing.assert_allclose(result, expected, rtol=0, atol=0.1)


def test_beyond_the_image_the_border_is_repeated() -> None:
    pixels = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    padded = np.pad(pixels, 6, mode="edge")
    np.testing.assert_allclose(resample(pixels, Window(top=-6, left=-6, height=32, width=32), 32), padded)


def test_without_spacing_the_largest_central_square_is_taken() -> None:
    assert window(Frame(shape=(40, 60)), None) == Window(top=0, left=10, height=40, width=40)


def test_with_spacing_the_window_is_square_in_millimetres() -> None:
    part = window(Frame(shape=(40, 60), spacing=(2.0, 1.0)), 30.0)
    assert part == Window(top=12.5, left=15, height=15, width=30)


def test_an_image_without_spacing_keeps_its_own_square_beside_a_field_of_view() -> None:
    assert window(Frame(shape=(40, 60)), 30.0) == window(Frame(shape=(40, 60)), None)


def test_a_region_of_interest_is_widened_to_a_square_around_its_centre() -> None:
    part = window(Frame(shape=(40, 60), roi=(10, 20, 6, 12)), 30.0)
    assert part == Window(top=20, left=7, height=12, width=12)
    part = window(Frame(shape=(40, 60), roi=(10, 20, 6, 12), spacing=(1.0, 2.0)), 30.0)
    assert part == Window(top=20, left=10, height=12, width=6)


def test_a_preparation_survives_json() -> None:
    for view in (None, 123.456):
        preparation = Preparation(scaling=Scaling(field_of_view=view, low=-0.1, high=1 / 3), pixels=32)
        assert Preparation.from_dict(json.loads(json.dumps(preparation.to_dict()))) == preparation


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_scaling_needs_a_range(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="low < high"):
        Scaling(field_of_view=None, low=low, high=high)
