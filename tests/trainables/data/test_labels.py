from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from trainables.data.labels import read_labels
from trainables.errors import DataError

WriteTable = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with empty files: labels are read without decoding."""
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/deep/4.nii.gz"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    return tmp_path / "set"


def table(folder: Path, *lines: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_class_folders_give_labels_and_every_image_is_its_own_patient(folder: Path) -> None:
    read = read_labels(folder)
    assert [(row.id, row.label) for row in read.rows] == [
        ("a/1.png", "a"),
        ("a/2.png", "a"),
        ("b/3.png", "b"),
        ("b/deep/4.nii.gz", "b"),
    ]
    assert not read.patients_known
    assert [row.patient for row in read.rows] == [row.id for row in read.rows]
    assert read.classes == ("a", "b")


def test_other_and_hidden_files_are_no_images(folder: Path) -> None:
    for name in ("a/notes.txt", "a/.1.png", ".trash/5.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert len(read_labels(folder).rows) == 4


def test_a_labels_csv_goes_before_class_folders(folder: Path) -> None:
    read = read_labels(table(folder, "path,label,patient", "b/3.png,x,p1", "a/1.png,y,p2"))
    assert [(row.id, row.label, row.patient) for row in read.rows] == [("a/1.png", "y", "p2"), ("b/3.png", "x", "p1")]
    assert read.patients_known
    assert read.source == f"labels.csv of {folder}"


def test_every_optional_column_is_read(folder: Path) -> None:
    (folder / "mask.png").touch()
    header = "path,label,patient,site,split,mask,roi"
    rows = ('a/1.png,x,p,berne,validation,,"1, 2,3,4"', "a/2.png,y,q,,,mask.png,", "b/3.png,y,q,,TEST,,1;2;3;4")
    first, second, third = read_labels(table(folder, header, *rows)).rows
    assert (first.site, first.split, first.roi, first.mask) == ("berne", "val", (1, 2, 3, 4), None)
    assert (second.split, second.roi, second.mask) == ("", None, (folder / "mask.png").resolve())
    assert (third.split, third.roi) == ("test", (1, 2, 3, 4))


def test_a_table_saved_by_a_spreadsheet_is_read(folder: Path) -> None:
    (folder / "labels.csv").write_bytes("\ufeffpath, label\r\na/1.png, ü \r\n\r\nb/3.png,y\r\n".encode())
    assert [row.label for row in read_labels(folder).rows] == ["ü", "y"]


def test_another_table_is_found_in_the_folder_or_by_its_path(folder: Path, tmp_path: Path) -> None:
    table(folder, "path,label", "a/1.png,x", "b/3.png,y", name="binary.csv")
    assert read_labels(folder, "binary.csv").source == f"binary.csv of {folder}"
    (folder / "binary.csv").rename(tmp_path / "elsewhere.csv")
    assert read_labels(folder, tmp_path / "elsewhere.csv").classes == ("x", "y")


def test_an_archive_brings_labels_and_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", train_labels=np.array([[1], [0]]), test_labels=np.array([[1]]))
    read = read_labels(tmp_path / "m.npz")
    assert [(row.id, row.label, row.split) for row in read.rows] == [
        ("test/000000", "1", "test"),
        ("train/000000", "1", "train"),
        ("train/000001", "0", "train"),
    ]
    assert not read.patients_known
    with pytest.raises(DataError, match="brings its own labels; leave it out"):
        read_labels(tmp_path / "m.npz", "labels.csv")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["path,lable", "a/1.png,x"], r"labels\.csv of .* has the unknown column 'lable'; did you mean 'label'\?"),
        (
            ["path,label,pateint", "a/1.png,x,p"],
            r"unknown column 'pateint'; did you mean 'patient'\? Rename it, or drop",
        ),
        (["path,label,Patient_ID", "a/1.png,x,p"], r"unknown column 'Patient_ID'; did you mean 'patient'\?"),
        (["path,label,subject", "a/1.png,x,p"], r"unknown column 'subject'; did you mean 'patient'\?"),
        (["path;label", "a/1.png;x"], r"is separated by ';'; expected commas"),
        (["path\tlabel", "a/1.png\tx"], r"is separated by tabs; expected commas"),
        (["file,label,age", "a/1.png,x,3"], r"has no column 'path'; found file, label, age, .*Rename the columns"),
        (["path,patient", "a/1.png,x"], "has no column 'label'; found path, patient"),
        ([""], "has no column 'path'; found nothing"),
        (["path,label,label", "a/1.png,x,x"], "has the column 'label' 2 times"),
        (["path,label"], "has no rows below its header"),
        (["path,label", "a/1.png,"], "line 2 of .* has an empty label; fill it in"),
        (["path,label,patient", "a/1.png,x,"], "line 2 of .* has an empty patient; fill it in, or drop the column"),
        (["path,label", "a/8.png,x", "a/9.png,y"], "2 of 2 paths do not exist"),
        (["path,label", "a/1.png,x", "a/9.png,y"], r"1 of 2 paths does not exist, the first 'a/9\.png' in line 3"),
        (["path,label", r"b\deep\4.nii.gz,x"], r"the first 'b\\deep\\4\.nii\.gz' .* with / instead of \\"),
        (["path,label", "../out.png,x"], r"line 2 of .*: '\.\./out\.png' leaves the data folder"),
        (["path,label", "/etc/out.png,x"], r"'/etc/out\.png' leaves the data folder"),
        (["path,label", "a/link.png,x"], r"'a/link\.png' leaves the data folder"),
        (["path,label", "a/1.txt,x"], r"'a/1\.txt' is no supported image"),
        (["path,label", "a/1.png,x", "a/1.png,y"], r"'a/1\.png' appears twice with two labels, 'x' and 'y'"),
        (["path,label", "a/1.png,x", "a/../a/1.png,x"], r"'a/1\.png' appears 2 times .*Remove the repeated rows"),
        (["path,label", "a/1.png,x,y"], r"line 2 of .* has 3 cells; expected 2 \(path,label\)"),
        (["path,label,roi", "a/1.png,x,1;2;3"], "has the roi '1;2;3'; expected x,y,w,h"),
        (["path,label,roi", "a/1.png,x,1;2;0;3"], "w and h at least 1"),
        (["path,label,split", "a/1.png,x,tset"], r"has the split 'tset'; did you mean 'test'\?"),
        (["path,label,mask", "a/1.png,x,a/9.png"], r"the mask 'a/9\.png' does not exist"),
        (["path,label,mask,roi", "a/1.png,x,a/2.png,1;2;3;4"], "has a mask and a roi; expected one of them"),
        (["path,label", "a/1.png,x", "a/2.png,x"], "has one class, 'x' .*expected at least two"),
        (["path,label", 'a/1.png,"x'], "is no comma-separated table"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_with_what_to_do(
    lines: Sequence[str], sentence: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.png").touch()
    (folder / "a" / "link.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(DataError, match=sentence):
        read_labels(table(folder, *lines))


def test_foreign_columns_are_not_read_and_named_wherever_the_data_are(folder: Path) -> None:
    table(folder, ",path,age,label,view,sex", '0,a/1.png,9,x,"=1+1",f', "1,b/3.png,,y,,m")
    read = read_labels(folder)
    assert [(row.id, row.label) for row in read.rows] == [("a/1.png", "x"), ("b/3.png", "y")]
    assert read.source == f"labels.csv without its columns '', 'age', 'view' and 1 more of {folder}"
    table(folder, "path,label,patient,patient_age", "a/1.png,x,p,9", "b/3.png,y,q,8")
    assert read_labels(folder).source == f"labels.csv without its column 'patient_age' of {folder}"


def test_an_absolute_path_is_taken_if_it_lies_in_the_data_folder(folder: Path, tmp_path: Path) -> None:
    read = read_labels(table(folder, "path,label", f"{folder}/a/1.png,x", f"{folder}/b/3.png,y"))
    assert [row.id for row in read.rows] == ["a/1.png", "b/3.png"]
    (tmp_path / "out.png").touch()
    (folder / "a" / "link.png").symlink_to(tmp_path / "out.png")
    for path in (folder / "a" / "link.png", tmp_path / "out.png", folder / ".." / "out.png"):
        with pytest.raises(DataError, match="leaves the data folder"):
            read_labels(table(folder, "path,label", f"{path},x", "b/3.png,y"))


def test_a_table_is_not_read_unasked_and_named_where_folders_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    table(tmp_path, "path,label", "img/1.png,x", name="meta.csv")
    with pytest.raises(DataError, match=r"no images in class folders .*: name it with --labels \(found 'meta\.csv'\)"):
        read_labels(tmp_path)
    (tmp_path / "img" / "1.png").touch()
    with pytest.raises(DataError, match=r"one class, 'img' .*table of the labels \(found 'meta\.csv'\) with --labels"):
        read_labels(tmp_path)


def layout(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ("train/No_findings/1.png", "train/Pneumonia/2.png", "test/Pneumonia/3.png"),
            r"top folders 'test', 'train' with folders 'No_findings', 'Pneumonia' below: parts of a split, not classes"
            r".*columns path,label,patient,split and rows such as 'test/Pneumonia/3\.png,Pneumonia,PATIENT,test' .*"
            r"--split-file labels",
        ),
        (
            ("Training/1.png", "Validation/2.png"),
            r"'Training', 'Validation': parts .*'Training/1\.png,CLASS,PATIENT,train'",
        ),
        (
            ("train/a/1.png", "train/b/2.png"),
            r"has the top folder 'train' with folders 'a', 'b' below: a part of a split",
        ),
        (("train/a/1.png", "train/b/2.png", "other/3.png"), r"has the top folder 'train'"),
        (
            ("Basel/well/1.png", "Basel/sick/2.png", "Bern/well/3.png", "Bern/sick/4.png"),
            r"folders of the same names \('sick', 'well'\) below 'Basel', 'Bern', so that either may be the classes; "
            r".*'Basel/sick/2\.png,CLASS,PATIENT'",
        ),
        (("all/train/a/1.png", "all/test/a/1.png"), r"one class, 'all' .*Give --data '.*/all' if its folders are the"),
    ],
)
def test_folders_that_are_no_classes_are_refused_with_a_row_to_write(
    names: Sequence[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=sentence):
        read_labels(layout(tmp_path, *names))


@pytest.mark.parametrize(
    "names",
    [
        ("test/1.png", "control/2.png"),
        ("sick/images/1.png", "well/images/2.png"),
        tuple(f"{name}/p{number:02}/1.png" for name in ("sick", "well") for number in range(21)),
    ],
)
def test_folders_below_class_folders_may_be_anything_else(names: Sequence[str], tmp_path: Path) -> None:
    assert len(read_labels(layout(tmp_path, *names)).classes) == 2


def test_the_parts_that_a_refusal_asks_for_are_taken(tmp_path: Path) -> None:
    layout(tmp_path, "Training/a/1.png", "Testing/b/2.png", "valid/b/3.png")
    rows = ("Training/a/1.png,a,training", "Testing/b/2.png,b,Testing", "valid/b/3.png,b,valid")
    read = read_labels(table(tmp_path, "path,label,split", *rows))
    assert {row.id: row.split for row in read.rows} == {
        "Training/a/1.png": "train",
        "Testing/b/2.png": "test",
        "valid/b/3.png": "val",
    }


def test_a_table_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "labels.csv").write_bytes(b"path,label\na/1.png,\xff\n")
    with pytest.raises(DataError, match="is no UTF-8 text"):
        read_labels(folder)


def test_a_table_that_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.data.tables.MAX_TABLE_BYTES", 10)
    with pytest.raises(DataError, match="expected at most 10"):
        read_labels(table(folder, "path,label", "a/1.png,x"))


def test_a_link_out_of_a_class_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.png").touch()
    (folder / "a" / "link.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(DataError, match="is a link that leaves the data folder"):
        read_labels(folder)


def test_data_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data '.*nowhere' does not exist"):
        read_labels(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no images in class folders and no labels\.csv"):
        read_labels(tmp_path)
    (tmp_path / "file.zip").touch()
    with pytest.raises(DataError, match=r"is a file but no \.npz"):
        read_labels(tmp_path / "file.zip")


def test_a_table_that_does_not_exist_is_refused_with_the_nearest(folder: Path) -> None:
    table(folder, "path,label", name="labels_binary.csv")
    with pytest.raises(DataError, match=r"--labels 'label_binary\.csv' .*did you mean 'labels_binary\.csv'\?"):
        read_labels(folder, "label_binary.csv")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (("Normal", "normal"), "the labels 'Normal' and 'normal' differ only in case"),
        (("1", "1.0"), "the labels '1' and '1.0' differ only in number format"),
        (("01", "1"), "the labels '01' and '1' differ only in number format"),
        (("le\u0301sion", "l\u00e9sion"), r"the labels 'le\\u0301sion' and 'l\\xe9sion' differ only in Unicode form"),
    ],
)
def test_labels_that_are_one_in_two_spellings_are_refused(labels: tuple[str, str], sentence: str, folder: Path) -> None:
    table(folder, "path,label", f"a/1.png,{labels[0]}", f"a/2.png,{labels[1]}", "b/3.png,y")
    with pytest.raises(
        DataError, match=rf"{sentence} \(labels\.csv of .*\); expected one spelling of each\. Write them"
    ):
        read_labels(folder)


@pytest.mark.parametrize(
    ("patients", "sentence"),
    [
        (("p1", "P1"), "the patients 'p1' and 'P1' differ only in case"),
        (("1", "1.0"), "the patients '1' and '1.0' differ only in number format"),
        (("J\u00e9", "Je\u0301"), r"the patients 'J\\xe9' and 'Je\\u0301' differ only in Unicode form"),
    ],
)
def test_patients_that_are_one_in_two_spellings_are_refused(
    patients: tuple[str, str], sentence: str, folder: Path
) -> None:
    table(folder, "path,label,patient", f"a/1.png,x,{patients[0]}", f"b/3.png,y,{patients[1]}")
    with pytest.raises(DataError, match=sentence):
        read_labels(folder)


def test_names_that_may_be_two_are_two(folder: Path) -> None:
    rows = ("a/1.png,1.5,1", "a/2.png,1.25,01", "b/3.png,grade 1,1.1", "b/deep/4.nii.gz,grade 01,1.10")
    read = read_labels(table(folder, "path,label,patient", *rows))
    assert (len(read.classes), len({row.patient for row in read.rows})) == (4, 4)


def test_files_without_a_column_patient_may_differ_in_case(folder: Path) -> None:
    (folder / "A.png").touch()
    (folder / "a.png").touch()
    assert len(read_labels(table(folder, "path,label", "A.png,x", "a.png,y")).rows) == 2
