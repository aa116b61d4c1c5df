"""The subcommand ``predict``: a table for machines, sentences for people, and a model found by what it is called."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import shlex
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from search import out_file, predict_command
from search.predict_command import PredictWish, predict_images
from search.predict_flags import predict_parser
from search.settings import SettingsError
from spaces.errors import InputError
from tests.search.tiny_search import CLASSES, NAME
from trainables.data.cohort import Cohort
from trainables.data.preprocess import preprocess
from trainables.errors import DataError
from trainables.ledger import IMAGES, SHARED, Ledger
from trainables.model_folder import MODEL, load_model

HEAD = ["path", *(f"probability_{name}" for name in CLASSES), "prediction", "error"]


@pytest.fixture
def wish(tiny_search: Ledger, tmp_path: Path) -> PredictWish:
    return PredictWish(
        model=NAME,
        images=[Path(tiny_search.search().source.data)],  # type: ignore[union-attr]
        out=str(tmp_path / "out.csv"),
        slice_rule=None,
        storage=tiny_search.storage,
        tracking_uri="sqlite:///none.db",
    )


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_the_table_has_what_the_trial_core_says_of_the_same_images(wish: PredictWish, tiny_search: Ledger) -> None:
    assert predict_images(wish) == 0
    head, *found = rows(Path(wish.out).read_text())
    assert head == HEAD
    cohort = Cohort.load(tiny_search.storage / SHARED / IMAGES / tiny_search.search().data.digest)
    model = load_model(tiny_search.folder / MODEL, torch.device("cpu"))
    images = preprocess(cohort, range(len(cohort)), model.scaling, model.preprocess)
    expected_NK = model.classifier.probabilities(images.images_NCHW).numpy()
    assert [row[0] for row in found] == [str(wish.images[0] / name) for name in images.ids]
    np.testing.assert_allclose(np.array([row[1:3] for row in found], dtype=float), expected_NK, atol=1e-6)
    assert [row[3] for row in found] == [CLASSES[index] for index in expected_NK.argmax(axis=1)]
    assert {row[4] for row in found} == {""}


def test_unreadable_files_are_named_in_the_table_and_beside_it_and_the_exit_code_says_so(
    wish: PredictWish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = wish.images[0] / "0-0.mha", tmp_path / "torn, half.mha"
    bad.write_bytes(good.read_bytes()[:-100])
    assert predict_images(replace(wish, images=[bad, good], out="-")) == 1
    printed = capsys.readouterr()
    head, first, second = rows(printed.out)
    assert (head, first[:4], second[4]) == (HEAD, [str(bad), "", "", ""], "")
    assert "is cut off or damaged" in first[4]
    assert f"{bad}: {first[4]}" in printed.err
    assert "1 of 2 images classified by tiny t0000" in printed.err


def test_it_warns_of_training_images_of_missing_spacings_and_of_clinical_use(
    wish: PredictWish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", test_images=np.random.default_rng(0).integers(0, 9, (3, 32, 32)), test_labels=[0] * 3)
    predict_images(replace(wish, images=[wish.images[0] / "0-0.mha", tmp_path / "a.npz"]))
    told = capsys.readouterr().err
    assert "The model was trained on 1 of these images" in told
    assert "The model was trained on squares of 72 mm. Of 3 images without a pixel spacing it is shown" in told
    assert "not for clinical use" in told


def test_a_model_is_a_search_or_a_folder_and_anything_else_is_refused_with_what_to_do(
    wish: PredictWish, tiny_search: Ledger, tmp_path: Path
) -> None:
    one = [wish.images[0] / "0-0.mha"]
    assert predict_images(replace(wish, images=one)) == 0
    by_name = Path(wish.out).read_text()
    taken_home = shutil.copytree(tiny_search.folder / MODEL, tmp_path / "elsewhere")
    assert predict_images(replace(wish, images=one, model=str(taken_home), storage=tmp_path / "none")) == 0
    assert Path(wish.out).read_text() == by_name
    with pytest.raises(SettingsError, match=r"'tinny' is no model: .*no search 'tinny'.*tiny"):
        predict_images(replace(wish, model="tinny"))
    shutil.rmtree(tiny_search.folder / MODEL)
    storage = re.escape(shlex.quote(str(wish.storage)))
    with pytest.raises(SettingsError, match=rf"train one by: python search/run.py refit tiny --storage {storage}"):
        predict_images(wish)


def test_a_model_whose_replacement_was_killed_is_found(wish: PredictWish, tiny_search: Ledger) -> None:
    model = tiny_search.folder / MODEL
    for given in (NAME, str(model)):
        model.rename(model.with_name(f".{MODEL}-0123abcd-before"))
        assert predict_images(replace(wish, images=[wish.images[0] / "0-0.mha"], model=given)) == 0


def test_a_model_is_not_looked_for_in_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no database .*mlflow\.db"):
        predict_images(
            PredictWish(
                model="models:/one/1", images=[tmp_path], out="-", slice_rule=None, storage=tmp_path,
                tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
            )
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_what_cannot_work_is_refused_before_an_image_is_read(wish: PredictWish, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--out '.*nowhere/o.csv' lies in '.*nowhere', which does not exist"):
        predict_images(replace(wish, out=str(tmp_path / "nowhere" / "o.csv")))
    with pytest.raises(DataError, match=r"no-such\.png.*does not exist"):
        predict_images(replace(wish, images=[tmp_path / "no-such.png"]))
    with pytest.raises(SettingsError, match=r"'last' is neither middle nor a whole number"):
        predict_parser().parse_args(["m", "i", "--slice", "last"])
    given = predict_parser().parse_args(["m", "i", "j", "--slice", "3", "--out", "-"])
    assert (given.model, given.images, given.slice, given.out) == ("m", [Path("i"), Path("j")], 3, "-")


@pytest.fixture
def one(wish: PredictWish) -> PredictWish:
    """A wish for the table of one image."""
    return replace(wish, images=[wish.images[0] / "0-0.mha"])


def test_a_table_goes_where_a_link_leads_to(one: PredictWish, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(there / "table.csv")
    for _ in range(2):
        assert predict_images(replace(one, out=str(link))) == 0
        assert link.is_symlink()
        assert rows((there / "table.csv").read_text())[0] == HEAD
        assert [path.name for path in there.iterdir()] == ["table.csv"]


def test_a_table_goes_into_a_pipe_which_stays_one(one: PredictWish, tmp_path: Path) -> None:
    pipe, link, found = tmp_path / "pipe", tmp_path / "link", list[str]()
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()), daemon=True)
    reader.start()
    assert predict_images(replace(one, out=str(link))) == 0
    assert link.is_symlink()
    assert pipe.is_fifo()
    reader.join(10)
    assert rows(found[0])[0] == HEAD


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_name_of_a_file_can_be_written(
    one: PredictWish, tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode("ü".encode() + b"\xff.mha")
    shutil.copy(one.images[0], tmp_path / name)
    (tmp_path / f"torn {name}").write_bytes(b"no image")
    wish = replace(one, images=[tmp_path / name, tmp_path / f"torn {name}"])
    assert predict_images(wish) == 1
    table = rows(Path(wish.out).read_text("utf-8"))
    assert [Path(row[0]).name for row in table[1:]] == ["ü\\udcff.mha", "torn ü\\udcff.mha"]
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding))
    assert predict_images(replace(wish, out="-")) == 1
    assert ("ü" if encoding == "utf-8" else "\\xfc") + "\\udcff.mha" in printed.getvalue().decode(encoding)


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_computed(
    one: PredictWish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_command, "load_model", None)
    (tmp_path / "circle.csv").symlink_to(tmp_path / "circle.csv")
    for name, wrong in {"circle.csv": "Symlink loop", f"{'n' * 300}.csv": "File name too long"}.items():
        with pytest.raises(SettingsError, match=rf"--out '.*{name}' cannot be written \({wrong}"):
            predict_images(replace(one, out=str(tmp_path / name)))


def refuse(path: Path, *given: str) -> None:
    raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(
    one: PredictWish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_command, "load_model", None)
    monkeypatch.setattr(Path, "touch", refuse)  # root may write into every folder
    with pytest.raises(SettingsError, match=r"--out '.*out\.csv' cannot be written \(Permission denied\)"):
        predict_images(one)


def test_a_table_that_cannot_be_written_after_all_is_refused_in_a_sentence(
    one: PredictWish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_file, "write_atomically", refuse)
    with pytest.raises(SettingsError, match=r"--out '.*out\.csv' could not be written \(Permission denied\)"):
        predict_images(one)
