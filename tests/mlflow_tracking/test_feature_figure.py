from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.manifold import trustworthiness

from mlflow_tracking.feature_figure import class_colours, feature_figure, perplexity, plane
from mlflow_tracking.mixed_sheet import mixed_sheet
from tests.mlflow_tracking.conftest import texts
from tests.mlflow_tracking.made_up import CLASSES, feature_map
from tests.mlflow_tracking.test_samples import places
from trainables.feature_map import FeatureMap


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return feature_map().points_MC.numpy()


def test_neighbours_stay_neighbours_in_the_plane_every_time_alike(points: np.ndarray) -> None:
    found = plane(points)
    assert found.shape == (len(points), 2)
    assert trustworthiness(points, found, n_neighbors=3) > 0.9
    assert (plane(points) == found).all()


def test_perplexity_fits_the_number_of_points() -> None:
    assert perplexity(600) == 30
    assert perplexity(7) == 2


def test_every_kind_has_its_marker_and_every_class_its_colour(tmp_path: Path, figures: list[Figure]) -> None:
    assert feature_figure(feature_map(), "title", tmp_path / "a.png")
    (figure,) = figures
    large, *small = figure.axes
    assert len(small) == 3
    drawn = {(line.get_marker(), line.get_markerfacecolor(), line.get_color()) for line in large.lines}
    colours = class_colours(3)
    assert drawn == {
        *(("o", colour, colour) for colour in colours),
        *(("^", colour, colour) for colour in colours),
        *(("o", "none", colour) for colour in colours),
    }
    assert sum(len(line.get_xdata()) for line in large.lines) == 36
    assert all(not axes.get_xticks().size and not axes.get_yticks().size for axes in figure.axes)
    written = texts(figure)
    assert {"kind", "class", "real", "synthetic", "mixed", *CLASSES} <= set(written)
    assert any("distances between clusters" in text.replace("\n", " ") for text in written)


def test_one_kind_alone_has_one_panel(tmp_path: Path, figures: list[Figure]) -> None:
    assert feature_figure(feature_map(kinds=(0,)), "title", tmp_path / "a.png")
    assert len(figures[0].axes) == 1
    assert not [text for text in texts(figures[0]) if "mixed" in text or "synthetic" in text]


def test_colours_of_many_classes_are_all_different() -> None:
    for count in (2, 7, 12):
        assert len(set(class_colours(count))) == count


def test_too_few_or_equal_points_make_no_map(tmp_path: Path) -> None:
    few = feature_map(kinds=(0,), each=1)
    whole = feature_map(kinds=(0,))
    equal = replace(whole, points_MC=torch.ones_like(whole.points_MC))
    assert not feature_figure(few, "t", tmp_path / "a.png")
    assert not feature_figure(equal, "t", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_sheet_has_a_block_per_class_and_a_row_per_kind(tmp_path: Path, figures: list[Figure]) -> None:
    path = tmp_path / "a.png"
    assert mixed_sheet(feature_map(), "title", path)
    greys = [20 + 20 * label + 70 * kind for label in range(3) for kind in range(3)]
    found = places(path, greys, area=2 * 96 * 96)
    rows = [found[grey][0] for grey in greys]
    assert rows == sorted(rows)
    assert min(np.diff(rows)) > 96
    assert [text for text in texts(figures[0]) if text == "0.75"] == ["0.75"] * 6
    assert any("weight in its label" in text for text in texts(figures[0]))


def test_a_sheet_without_weights_does_not_speak_of_them(tmp_path: Path, figures: list[Figure]) -> None:
    assert mixed_sheet(feature_map(kinds=(0, 2), weight=1.0), "title", tmp_path / "a.png")
    assert texts(figures[0])[0] == "title"
    assert not [text for text in texts(figures[0]) if "." in text]


def test_no_sheet_without_pictures_of_mixed_images(tmp_path: Path) -> None:
    whole = feature_map()
    bare = replace(whole, example_E=whole.example_E[:0], images_EHW=whole.images_EHW[:0])
    for found in (feature_map(kinds=(0, 1)), bare):
        assert not mixed_sheet(found, "t", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_class_without_mixed_images_says_so(tmp_path: Path, figures: list[Figure]) -> None:
    whole = feature_map()
    kept = ~((whole.kind_M[whole.example_E] == 2) & (whole.label_M[whole.example_E] == 1))
    fewer: FeatureMap = replace(whole, example_E=whole.example_E[kept], images_EHW=whole.images_EHW[kept])
    assert mixed_sheet(fewer, "title", tmp_path / "a.png")
    assert texts(figures[0]).count("no images") == 1
