from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from mlflow_tracking import names
from mlflow_tracking.figures import image_sheet
from mlflow_tracking.pictures import PicturesMissing, caveats, draw_pictures
from mlflow_tracking.view import runs_view
from spaces.parameter import Float
from spaces.space import Dimension, Space
from tests.mlflow_tracking.conftest import texts
from tests.mlflow_tracking.made_up import (
    GENMIX_EGAN,
    REAL,
    add_trial,
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


def test_a_class_that_is_named_like_mathematics_is_written_as_it_is(tmp_path: Path, figures: list[Figure]) -> None:
    real = np.full((1, 1, 16, 16), -1.0, dtype=np.float32)
    image_sheet(real, np.zeros(1, dtype=np.int64), None, None, ["a $x_$ b"], "grade_$I$", tmp_path / "sheet.png")
    assert {"grade_$I$", "a $x_$ b\nreal, 1 in all"} <= set(texts(figures[0]))


def test_a_trial_without_a_generator_has_a_sheet_only(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    trial = ledger.trial(add_trial(ledger, REAL, stages=write_stages(tmp_path, synthetic=False)))
    drawn = draw_pictures(tmp_path, ledger.search(), trial, "t", tmp_path)
    assert [path.name for path in drawn] == [names.SHEET_FILE]


def test_stages_from_before_previews_and_fidelity_have_the_pictures_that_they_can(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    trial = ledger.trial(add_trial(ledger, GENMIX_EGAN, stages=write_stages(tmp_path)))
    drawn = draw_pictures(tmp_path, ledger.search(), trial, "t", tmp_path)
    assert [path.name for path in drawn] == [names.SHEET_FILE, names.CURVES_FILE]


def test_a_measured_generator_is_shown_with_its_course_and_its_closest_pairs(
    tmp_path: Path, figures: list[Figure]
) -> None:
    ledger = new_ledger(tmp_path)
    stages = write_stages(tmp_path, measured=True)
    trial = ledger.trial(add_trial(ledger, GENMIX_EGAN, stages=stages, measured=True))
    drawn = draw_pictures(tmp_path, ledger.search(), trial, "t0000 genmix egan", tmp_path)
    expected = [names.SHEET_FILE, names.CURVES_FILE, names.SAMPLES_FILE, names.PAIRS_FILE]
    assert [path.name for path in drawn] == expected
    assert all(path.is_file() for path in drawn)
    headings = [axes.get_title(loc="left") for axes in figures[1].axes]
    assert "fitness of each child, F = F_q + 0.25 F_d" in headings
    for figure in figures:
        assert any("t0000 genmix egan, training fold 0\nReal images: synthetic" in text for text in texts(figure))
    assert any("Of all synthetic images compared, 0.0% count as copies" in text for text in texts(figures[3]))


def test_a_damaged_stage_is_said_not_raised_as_anything_else(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    trial = ledger.trial(add_trial(ledger, GENMIX_EGAN, stages=write_stages(tmp_path, measured=True)))
    (previews,) = tmp_path.rglob("previews.npy")
    previews.write_bytes(previews.read_bytes()[:200])
    with pytest.raises(PicturesMissing):
        draw_pictures(tmp_path, ledger.search(), trial, "t", tmp_path)


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
    assert len(text) <= names.MAX_TAG
    assert view["orderByKey"] == "metrics.`balanced_accuracy`"
    assert view["searchFilter"] == "tags.`genmix.kind` = 'trial'"
    assert {"metrics.`balanced_accuracy`", "params.`mixer.name`", "params.`generator.gamma`"} <= set(
        view["selectedColumns"]
    )
    assert {"metrics.`fidelity_kid`", "metrics.`fidelity_copy_rate`"} <= set(view["selectedColumns"])
    assert {"metrics.`balanced_accuracy_low`", "metrics.`balanced_accuracy_high`"} <= set(view["selectedColumns"])


def test_the_saved_view_of_a_space_without_generators_has_no_fidelity() -> None:
    assert "fidelity" not in runs_view(search_record(space=_space("classifier.learning_rate")))


def test_the_saved_view_fits_a_tag_however_many_and_long_the_parameters_are() -> None:
    view = json.loads(
        runs_view(search_record(space=_space(*(f"generator.{index:02}_{'x' * 60}" for index in range(30)))))
    )
    assert len(json.dumps(view)) <= names.MAX_TAG
    shown = [column for column in view["selectedColumns"] if column.startswith("params")]
    assert 5 < len(shown) < 24


def _space(*dimensions: str) -> Space:
    parameters = [Float(name=name, low=0.0, high=1.0, default=0.5, meaning="m") for name in dimensions]
    each = tuple(Dimension(parameter=parameter) for parameter in parameters)
    return Space(name="s", description="d", dimensions=each)
