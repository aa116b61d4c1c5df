from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_tracking.ratio_figure import ScoreAtRatio, ratio_figure
from tests.mlflow_tracking.conftest import texts


def point(ratio: float, score: float, *, bounded: bool = True) -> ScoreAtRatio:
    return ScoreAtRatio(
        ratio=ratio, score=score, low=score - 0.1 if bounded else None, high=score + 0.1 if bounded else None
    )


def test_each_generator_is_a_line_with_intervals_and_the_baseline_a_band(tmp_path: Path, figures: list[Figure]) -> None:
    lines = {"DCGAN": [point(0.25, 0.6), point(2, 0.7)], "StyleGAN": [point(1, 0.8)], "none yet": []}
    baseline = point(0, 0.65)
    assert ratio_figure(lines, baseline, score="AUROC", title="t\nof $x_1$", path=tmp_path / "a.png")
    (axes,) = figures[0].axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["real images only", "DCGAN", "StyleGAN"]
    drawn = {str(line.get_label()): line for line in axes.lines}
    assert np.asarray(drawn["DCGAN"].get_ydata()).tolist() == [0.6, 0.7]
    shifts = [np.asarray(drawn[name].get_xdata())[0] - ratio for name, ratio in (("DCGAN", 0.25), ("StyleGAN", 1.0))]
    assert 0 > shifts[0] == pytest.approx(-shifts[1])  # beside each other, where they would hide each other
    bars = [np.asarray(line.get_ydata()).tolist() for line in axes.lines if str(line.get_label()).startswith("_")]
    assert sorted(bars) == [[pytest.approx(s - 0.1), pytest.approx(s + 0.1)] for s in (0.6, 0.7, 0.8)]
    (band,) = axes.patches
    assert band.get_extents().height > 0
    assert {"AUROC", "0.25", "1", "2", "synthetic images per real training image"} <= set(texts(figures[0]))


def test_a_point_without_an_interval_has_no_bar_and_a_figure_without_points_is_not_drawn(
    tmp_path: Path, figures: list[Figure]
) -> None:
    assert not ratio_figure({"a": []}, point(0, 0.5), score="s", title="t", path=tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    assert ratio_figure({"a": [point(1, 0.5, bounded=False)]}, None, score="s", title="t", path=tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert len(axes.lines) == 1
    assert not axes.patches


def test_the_legend_stands_beside_the_data(tmp_path: Path, figures: list[Figure]) -> None:
    lines = {f"generator {index}": [point(1, 0.5), point(2, 0.9)] for index in range(6)}
    ratio_figure(lines, point(0, 0.5), score="s", title="t", path=tmp_path / "a.png")
    (axes,) = figures[0].axes
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    assert legend.get_window_extent().x1 <= figures[0].bbox.x1
    colours = {str(line.get_color()) for line in axes.lines if not str(line.get_label()).startswith("_")}
    assert len(colours) == 7
