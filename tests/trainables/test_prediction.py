"""What a model says of files is what the trial core says of the same images, whatever stands between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users' name for it
import torch

from spaces.config import TrialConfig
from spaces.protocol import Protocol
from trainables import prediction
from trainables.data.decoding import Prepared, prepare_rows
from trainables.data.preprocess import preprocess
from trainables.data.readers import read_picture
from trainables.environment import Environment
from trainables.errors import DataError
from trainables.model_folder import Model, load_model
from trainables.prediction import Predicted, find_pictures, predict, predict_arrays
from trainables.refit import refit

Build = Callable[..., TrialConfig]


@pytest.fixture
def model(environment: Environment, tiny_trial: Build, tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    about = {"name": "s", "trial": "t0000"}
    refit(tiny_trial(), Protocol(folds=3), environment, folder=folder, about=about, versions={})
    return load_model(folder, torch.device("cpu"))


def expected(model: Model, environment: Environment) -> dict[str, list[float]]:
    """By the trial core: id of each image of the cohort, and its probabilities."""
    cohort = environment.cohort
    images = preprocess(cohort, range(len(cohort)), model.scaling, model.preprocess)
    rows = model.classifier.probabilities(images.images_NCHW).tolist()
    return dict(zip(images.ids, rows, strict=True))


def predicted(model: Model, *given: Path) -> list[Predicted]:
    return list(predict(model, find_pictures(given)))


def test_a_folder_gets_the_probabilities_of_the_trial_core_in_the_order_of_its_table(
    model: Model, environment: Environment, image_folder: Path
) -> None:
    found = predicted(model, image_folder)
    wanted = expected(model, environment)
    assert [each.name for each in found] == [str(image_folder / name) for name in wanted]
    np.testing.assert_allclose([each.probabilities for each in found], list(wanted.values()), atol=1e-6)
    assert all(each.was_seen for each in found)


def test_images_are_prepared_where_they_are_decoded_to_the_bytes_of_the_trial_core(
    model: Model, environment: Environment, image_folder: Path
) -> None:
    (given,) = find_pictures([image_folder])
    found = list(prepare_rows(given.table, None, model.preparation))
    images = preprocess(environment.cohort, range(len(found)), model.scaling, model.preprocess)
    assert len(found) == len(environment.cohort)
    for each, image_1PP in zip(found, images.images_NCHW, strict=True):
        assert isinstance(each, Prepared)
        assert each.image_PP.tobytes() == image_1PP.numpy().tobytes()


def test_batches_do_not_show_and_an_unreadable_file_keeps_its_place(
    model: Model, environment: Environment, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "EVALUATION_BATCH", 5)
    wanted = expected(model, environment)
    (image_folder / "bright-1-0.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    (image_folder / "notes.txt").write_text("no image")
    paths = [image_folder / name for name in wanted]
    found = predicted(model, *paths[:3], image_folder / "notes.txt", *paths[3:])
    assert [each.name for each in found] == [str(path) for path in (*paths[:3], image_folder / "notes.txt", *paths[3:])]
    errors = {Path(each.name).name: each.error for each in found if each.error}
    assert errors.keys() == {"bright-1-0.png", "notes.txt"}
    assert errors["bright-1-0.png"].startswith("is cut off or damaged")
    assert errors["notes.txt"].startswith("is no supported image file")
    for each in found:
        if not each.error:
            np.testing.assert_allclose(each.probabilities, wanted[Path(each.name).name], atol=1e-6)


def test_a_folder_without_a_table_is_searched_in_any_depth(model: Model, image_folder: Path, tmp_path: Path) -> None:
    deep = tmp_path / "new" / "a" / "b"
    deep.mkdir(parents=True)
    pixels = np.random.default_rng(3).integers(0, 255, (48, 48)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(deep / "x.png"))
    (image_folder / "bright-1-0.png").rename(tmp_path / "new" / "y.png")
    found = predicted(model, tmp_path / "new")
    assert [Path(each.name).name for each in found] == ["y.png", "x.png"]
    assert [each.was_seen for each in found] == [True, False]


def test_a_region_of_interest_in_the_table_is_what_the_model_is_shown(
    model: Model, image_folder: Path, tmp_path: Path
) -> None:
    picture = read_picture(image_folder / "bright-1-0.png").pixels_HW
    large = np.zeros((64, 80), dtype=np.uint8)
    large[10:42, 20:52] = picture
    folder = tmp_path / "new"
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(large), str(folder / "large.png"))
    (folder / "labels.csv").write_text('path,label,roi\nlarge.png,unknown,"20,10,32,32"\n')
    (found,) = predicted(model, folder)
    (alone,) = predicted(model, image_folder / "bright-1-0.png")
    assert found.probabilities == alone.probabilities
    assert (found.has_region, alone.has_region) == (True, False)


def test_an_archive_and_an_array_are_predicted_as_the_files_are(
    model: Model, image_folder: Path, tmp_path: Path
) -> None:
    names = ["bright-1-0.png", "dark-0-0.png"]
    images_NHW = np.stack([read_picture(image_folder / name).pixels_HW for name in names])
    archive = tmp_path / "two.npz"
    np.savez(archive, test_images=images_NHW.astype(np.uint8), test_labels=np.array([0, 0]))
    wanted = [each.probabilities for each in predicted(model, *(image_folder / name for name in names))]
    found = predicted(model, archive)
    assert [each.name for each in found] == [f"{archive}/test/000000", f"{archive}/test/000001"]
    assert [each.probabilities for each in found] == wanted
    assert [each.probabilities for each in predict_arrays(model, list(images_NHW))] == wanted
    flat, torn = np.zeros((32, 32), np.float32), np.full((32, 32), np.nan, np.float32)
    bad = list(predict_arrays(model, [flat, images_NHW[0], torn, images_NHW]))
    assert [bool(each.error) for each in bad] == [True, False, True, True]
    assert bad[1].probabilities == pytest.approx(wanted[0], abs=1e-6)


def test_the_slice_of_a_volume_is_that_of_the_training_unless_another_is_named(
    environment: Environment, tiny_trial: Build, image_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    about = {"name": "s", "trial": "t0000"}
    refit(tiny_trial(), Protocol(folds=3), environment, folder=folder, about=about, versions={}, slice_rule="middle")
    model = load_model(folder, torch.device("cpu"))
    slices = [read_picture(image_folder / f"dark-{patient}-0.png").pixels_HW for patient in (0, 2, 4)]
    volume = sitk.GetImageFromArray(np.stack(slices))
    sitk.WriteImage(volume, str(tmp_path / "volume.mha"))
    pictures = find_pictures([tmp_path / "volume.mha"])
    wanted = [each.probabilities for each in predict_arrays(model, slices)]
    (middle,), (last,) = predict(model, pictures), predict(model, pictures, slice_rule=2)
    assert middle.probabilities == pytest.approx(wanted[1], abs=1e-6)
    assert last.probabilities == pytest.approx(wanted[2], abs=1e-6)
    assert wanted[1] != pytest.approx(wanted[2], abs=1e-6)


def test_what_is_not_there_or_empty_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no-such.*does not exist.*give image files"):
        find_pictures([tmp_path / "no-such.png"])
    with pytest.raises(DataError, match=r"'.*empty' has no images; expected names in .mha"):
        find_pictures([tmp_path / "empty"])
