from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mlflow_tracking.figures import image_sheet, mutation_history
from mlflow_tracking.pictures import PicturesMissing, caveats, draw_pictures
from mlflow_tracking.view import runs_view
from tests.mlflow_tracking.made_up import (
    CLASSES,
    GENMIX_EGAN,
    REAL,
    add_trial,
    egan_history,
    new_ledger,
    search_record,
    write_stages,
)


def test_a_sheet_shows_every_class_real_and_synthetic(tmp_path: Path) -> None:
    labels = np.array([0, 0, 1])
    real = np.full((3, 1, 16, 16), -1.0, dtype=np.float32)
    synthetic = np.full((2, 1, 16, 16), 1.0, dtype=np.float32)
    image_sheet(real, labels, None, None, ("a", "b"), "title", tmp_path / "real.png")
    image_sheet(real, labels, synthetic, np.array([0, 2]), ("a", "b", "c" * 50), "title", tmp_path / "both.png")
    low, high = imread(tmp_path / "real.png"), imread(tmp_path / "both.png")
    assert high.shape[0] > 2 * low.shape[0]
    assert (low[..., 0] == 0).sum() > (high[..., 0] == 0).sum() * 0.5  # -1 is black


def test_training_curves_are_drawn_for_one_network_or_one_per_class(tmp_path: Path) -> None:
    history = egan_history()
    assert mutation_history(history, tmp_path / "a.png")
    assert mutation_history({f"class1/{name}": values for name, values in history.items()}, tmp_path / "b.png")
    assert imread(tmp_path / "a.png").shape == imread(tmp_path / "b.png").shape
    assert mutation_history({"generator_loss": [1.0], "discriminator_loss": [2.0]}, tmp_path / "c.png")
    assert not mutation_history({}, tmp_path / "d.png")
    assert not (tmp_path / "d.png").exists()


def test_a_trial_without_a_generator_has_a_sheet_only(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    with_generator = ledger.trial(add_trial(ledger, GENMIX_EGAN, stages=write_stages(tmp_path)))
    without = ledger.trial(add_trial(ledger, REAL, stages=write_stages(tmp_path, synthetic=False)))
    search = ledger.search()
    assert len(draw_pictures(tmp_path, search, with_generator, "t", tmp_path)) == 2
    assert len(draw_pictures(tmp_path, search, without, "t", tmp_path)) == 1


def test_missing_stages_are_said_not_raised_as_anything_else(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    trial = ledger.trial(add_trial(ledger, REAL))
    with pytest.raises(PicturesMissing):
        draw_pictures(tmp_path, ledger.search(), trial, "t", tmp_path)


def test_titles_warn_of_phantom_data_and_of_the_quick_budget() -> None:
    assert len(caveats(search_record(), uses_synthetic=True)) == 2
    assert len(caveats(search_record(), uses_synthetic=False)) == 1
    assert caveats(search_record(budget="standard"), uses_synthetic=True)[0].startswith(
        "Real images: synthetic phantom"
    )


def test_the_saved_view_shows_score_and_parameters_and_fits_a_tag() -> None:
    text = runs_view(search_record())
    view = json.loads(text)
    assert len(text) < 5000
    assert view["orderByKey"] == "metrics.`balanced_accuracy`"
    assert view["searchFilter"] == "tags.`genmix.kind` = 'trial'"
    assert {"metrics.`balanced_accuracy`", "params.`mixer.name`", "params.`generator.gamma`"} <= set(
        view["selectedColumns"]
    )
    assert CLASSES
