"""How a split file names the images of a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.conftest import write_images
from tests.trainables.data.test_locked import parts_file
from trainables.data.source import Source
from trainables.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", patients=20)


def test_a_split_file_names_images_by_any_path_that_leads_to_them(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    parts = {row.id: row.split for row in Source(data=str(folder), split_file=str(file)).table().rows}
    (folder / "link.png").symlink_to("bright-1-0.png")
    (folder / "sub").mkdir()
    text = file.read_text()
    for written in ("./bright-1-0.png", "link.png", "sub/../bright-1-0.png", f"{folder}/./link.png"):
        file.write_text(text.replace("bright-1-0.png", written))
        assert {row.id: row.split for row in Source(data=str(folder), split_file=str(file)).table().rows} == parts
    file.write_text(text + "./bright-1-0.png,train\n")
    with pytest.raises(DataError, match=r"names 'bright-1-0\.png' again"):
        Source(data=str(folder), split_file=str(file)).table()


def test_a_link_among_class_folders_keeps_its_name_in_a_split_file(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "parts.csv"
    for name in ("bright", "dark", ".store"):
        (data / name).mkdir(parents=True)
    for name in ("bright/0.png", "dark/1.png", ".store/2.png"):
        (data / name).touch()
    (data / "dark/link.png").symlink_to(data / ".store/2.png")
    file.write_text("path,split\nbright/0.png,train\n./dark/1.png,train\n./dark/link.png,val\n")
    assert [(row.id, row.split) for row in Source(data=str(data), split_file=str(file)).table().rows] == [
        ("bright/0.png", "train"),
        ("dark/1.png", "train"),
        ("dark/link.png", "val"),
    ]


def test_a_split_file_with_other_names_is_refused_with_one_of_either_side(folder: Path) -> None:
    file = Path(parts_file(folder, ("train", "val", "test")))
    file.write_text(file.read_text().replace("bright-1-0.png,", "Bright-1-0.png,"))
    with pytest.raises(DataError) as raised:
        Source(data=str(folder), split_file=str(file)).table()
    assert str(raised.value) == (
        f"--split-file: 1 image has no part in '{file}', such as 'bright-1-0.png', and 1 name there is no image of "
        f"the data, such as 'Bright-1-0.png'; expected a row 'path,split' for every image, with train, val or test."
    )
