from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

from mlflow_tracking.samples import ROWS, closest_pairs, samples_over_training
from mlflow_tracking.sheets import fitted, written_width
from tests.mlflow_tracking.conftest import texts
from tests.mlflow_tracking.made_up import close_pair

Grey = NDArray[np.uint8]


def pixels_of(path: Path) -> Grey:
    """The picture as bytes, one channel; coloured pixels are 0."""
    image = (imread(path)[..., :3] * 255).round().astype(np.uint8)
    return np.where((image == image[..., :1]).all(axis=-1), image[..., 0], 0).astype(np.uint8)


def places(path: Path, greys: list[int], *, area: int) -> dict[int, tuple[float, float]]:
    """The middle (row, column) in a picture of images of one grey, of at least so many pixels."""
    picture = pixels_of(path)
    found = {grey: np.argwhere(picture == grey) for grey in greys}
    return {
        grey: (float(np.mean(where[:, 0])), float(np.mean(where[:, 1])))
        for grey, where in found.items()
        if len(where) >= area
    }


def previews(moments: int, classes: int, *, size: int = 32) -> NDArray[np.uint8]:
    """Images in which every pixel is 10 + 6 times the moment + 100 times the class."""
    grey = 10 + 6 * np.arange(moments)[:, None] + 100 * np.arange(classes)[None]
    shape = (moments, classes, 4, size, size)
    return np.broadcast_to(grey[..., None, None, None], shape).astype(np.uint8)


@pytest.mark.parametrize("size", [28, 32, 80])
def test_samples_lie_in_a_row_per_moment_and_a_block_per_class(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.png"
    assert samples_over_training(previews(3, 2, size=size), [0, 25, 40], ["a", "b"], "title", path)
    side = size if size > 56 else 2 * size if size == 32 else 56
    found = places(path, [10, 16, 22, 110, 116, 122], area=4 * side * side)
    rows = [[found[grey][0] for grey in pair] for pair in ((10, 110), (16, 116), (22, 122))]
    assert all(left == pytest.approx(right, abs=1) for left, right in rows)
    assert rows[0][0] + side < rows[1][0] < rows[2][0] - side
    assert [found[grey][1] for grey in (10, 16, 22)] == pytest.approx([found[10][1]] * 3, abs=1)
    assert found[10][1] + side < found[110][1]


def test_a_long_training_loses_moments_evenly_but_neither_its_start_nor_its_end(
    tmp_path: Path, figures: list[Figure]
) -> None:
    path = tmp_path / "a.png"
    steps = [0, *(25 * 2**index for index in range(12)), 60_000]
    samples_over_training(previews(14, 2), steps, ["a", "b"], "title", path)
    shown = [text for text in texts(figures[0]) if text.startswith("step ")]
    assert len(shown) == ROWS
    assert (shown[0], shown[-1]) == ("step 0", "step 60,000\n(end)")
    positions = [steps.index(int(text.split()[1].replace(",", ""))) for text in shown]
    assert set(np.diff(positions)) == {1, 2}
    greys = [10 + 6 * position for position in range(14)]
    assert [(grey - 10) // 6 for grey in places(path, greys, area=4 * 64 * 64)] == positions


def test_many_classes_show_fewer_images_of_each(tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    samples_over_training(previews(2, 2)[:, [0, 1] * 5], [0, 10], [str(index) for index in range(10)], "t", wide)
    assert imread(wide).shape[1] < 20 * 66 + 200


def test_long_class_names_stay_above_their_own_images(tmp_path: Path, figures: list[Figure]) -> None:
    name = "hepatocellular carcinoma of the liver, arterial phase, confirmed by biopsy or follow-up, $x_1$"
    samples_over_training(previews(2, 2), [0, 10], [name, "b"], "t", tmp_path / "a.png")
    (heading,) = [text for text in texts(figures[0]) if text.startswith("hepato")]
    assert heading.count("\n") == 1
    assert heading.endswith("…")
    assert max(written_width(line) for line in heading.split("\n")) <= 4 * 66


def test_nothing_to_show_makes_no_picture(tmp_path: Path) -> None:
    assert not samples_over_training(previews(0, 2), [], ["a", "b"], "t", tmp_path / "a.png")
    assert not closest_pairs((), "t", tmp_path / "b.png")
    assert not list(tmp_path.iterdir())


def test_closest_pairs_stand_side_by_side_and_say_which_are_copies(tmp_path: Path, figures: list[Figure]) -> None:
    path = tmp_path / "a.png"
    pairs = [close_pair(0.5), close_pair(1.0), close_pair(1.0001, training="long/" * 60 + "slice.dcm")]
    assert closest_pairs(pairs, "title", path)
    found = places(path, [201, 101], area=3 * 128 * 128)
    assert found[201][0] == pytest.approx(found[101][0], abs=1)
    assert found[201][1] + 128 < found[101][1]
    written = texts(figures[0])
    assert [text for text in written if "threshold:" in text] == [
        "1. at or below the threshold: counts as a copy",
        "2. at or below the threshold: counts as a copy",
        "3. above the threshold: no copy",
    ]
    assert "distance 0.5, threshold 1, in pixels" in written
    assert "synthetic: synthetic/HCC/000007" in written
    assert written[-1].startswith("training: …")
    assert written[-1].endswith("/slice.dcm")


def test_text_is_cut_to_the_width_that_there_is() -> None:
    assert fitted("short", 200) == "short"
    for keep_end in (False, True):
        cut = fitted("abcdefghij" * 20, 200, keep_end=keep_end)
        assert 170 < written_width(cut) <= 200
        assert cut.endswith("…") is not keep_end
    assert fitted("abcdefghij" * 20, 200, keep_end=True).endswith("hij")
