"""The subcommand ``synthesize``: files that say that they are synthetic, and that a search can read again."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from search import synthetic_files
from search.settings import SettingsError
from search.synthesize_command import SynthesizeWish, synthesize
from search.synthesize_flags import synthesize_parser
from tests.search.tiny_search import CLASSES, NAME
from trainables.data.labels import read_labels
from trainables.data.readers import read_picture
from trainables.data.reading import read_cohort
from trainables.errors import DataError
from trainables.generators.fitted import FittedNetworks
from trainables.ledger import Ledger


@pytest.fixture
def wish(tiny_search: Ledger, tmp_path: Path) -> SynthesizeWish:
    return SynthesizeWish(
        storage=tiny_search.storage,
        name=NAME,
        trial=None,
        out=tmp_path / "out",
        count=7,
        of_class=None,
        file_format="mha",
        seed=0,
    )


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def pixels(folder: Path) -> dict[str, bytes]:
    return {path.name: read_picture(path).pixels_HW.tobytes() for path in sorted(folder.glob("synthetic_*"))}


def test_every_file_says_that_it_is_synthetic_in_its_name_inside_in_the_labels_and_in_the_manifest(
    wish: SynthesizeWish,
) -> None:
    for file_format in ("mha", "png"):
        folder = wish.out.with_name(file_format)
        assert synthesize(replace(wish, out=folder, file_format=file_format)) == 0
        with (folder / "labels.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        names = [row["path"] for row in table]
        assert sorted(names) == sorted(path.name for path in folder.glob(f"*.{file_format}"))
        assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "labels.csv", "manifest.json"])
        assert all(name.startswith("synthetic_") for name in names)
        assert {row["synthetic"] for row in table} == {"yes"}
        told = manifest(folder)
        assert told["synthetic"] is True
        assert "show no patient. Not for clinical use" in told["warning"]
        for row in table:
            content = (folder / row["path"]).read_bytes()
            expected = {"label": row["label"], "sha256": hashlib.sha256(content).hexdigest()}
            assert told["files"][row["path"]] == expected
            inside = content if file_format == "mha" else Image.open(folder / row["path"]).text["Comment"].encode()  # type: ignore[attr-defined]
            assert b"They show no patient. Not for clinical use." in inside


def test_they_are_read_back_with_their_classes_and_as_what_they_are(wish: SynthesizeWish, tmp_path: Path) -> None:
    synthesize(replace(wish, count=24))
    cohort = read_cohort(wish.out, cache=tmp_path / "cache")
    assert (cohort.classes, cohort.counts) == (CLASSES, (12, 12))
    assert cohort.source == f"labels.csv of {wish.out}, all images synthetic"
    assert {(entry.shape, entry.spacing) for entry in cohort.entries} == {((32, 32), (2.25, 2.25))}
    scaling = manifest(wish.out)["scaling"]
    values = np.concatenate([cohort.pixels(index).ravel() for index in range(len(cohort))])
    assert scaling["low"] <= values.min() < values.max() <= scaling["high"]
    assert values.max() - values.min() > 0.05 * (scaling["high"] - scaling["low"])


def test_a_png_shows_what_a_metaimage_holds_in_the_units_of_the_training_files(wish: SynthesizeWish) -> None:
    synthesize(replace(wish, out=wish.out.with_name("a")))
    synthesize(replace(wish, out=wish.out.with_name("b"), file_format="png"))
    scaling = manifest(wish.out.with_name("a"))["scaling"]
    for path in wish.out.with_name("a").glob("*.mha"):
        units = read_picture(path).pixels_HW
        grey = read_picture(wish.out.with_name("b") / f"{path.stem}.png").pixels_HW
        expected = (units - scaling["low"]) / (scaling["high"] - scaling["low"]) * 255
        assert np.abs(grey - expected).max() <= 0.51


def test_the_manifest_tells_how_many_copy_a_training_image_and_what_made_them(
    wish: SynthesizeWish, tiny_search: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_search.write_search(replace(tiny_search.search(), show_images=False))
    synthesize(wish)
    told, printed = manifest(wish.out), capsys.readouterr().out
    rate = told["copies"]["rate"]
    assert rate == max(told["copies"]["rate_pixels"], told["copies"]["rate_features"])
    assert f"{rate:.1%} of them count as copies of a training image" in printed
    assert ("--no-images" in printed) is (rate > 0)
    assert (told["generator"], told["trial"], told["config"]["generator.steps"]) == ("dcgan", "t0000", 2)
    assert told["seeds"] == {"search": 5, "stream": "refit", "images": 0}
    assert told["data"]["digest"] == tiny_search.search().data.digest
    assert told["trained_on"] == {CLASSES[0]: 12, CLASSES[1]: 12}


def test_the_same_seed_gives_the_same_images_and_more_of_them_begin_with_fewer(wish: SynthesizeWish) -> None:
    for name, changes in {"a": {}, "b": {"count": 20}, "c": {"seed": 1}, "d": {"of_class": CLASSES[1]}}.items():
        synthesize(replace(wish, out=wish.out.with_name(name), **changes))  # type: ignore[arg-type]
    a, b, c, d = (pixels(wish.out.with_name(name)) for name in "abcd")
    assert (len(a), len(b), len(d)) == (7, 20, 7)
    assert all(b[name] == image for name, image in a.items())
    assert a.keys() == c.keys()
    assert all(c[name] != image for name, image in a.items())
    assert {name.rpartition("_")[0] for name in d} == {"synthetic_dark"}
    assert all(d[name] == image for name, image in a.items() if name in d)


def test_what_cannot_be_is_refused_before_anything_is_computed(wish: SynthesizeWish, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"t0001 of 'tiny' \(mixup.* has no generator .*--trial t0000 \(genmix"):
        synthesize(replace(wish, trial="t0001"))
    with pytest.raises(SettingsError, match=r"--trial 't0009' is no trial of 'tiny'; .*t000"):
        synthesize(replace(wish, trial="t0009"))
    with pytest.raises(SettingsError, match=r"--class 'drak' is no class of the search; .*dark"):
        synthesize(replace(wish, of_class="drak"))
    wish.out.mkdir()
    (wish.out / "patient.png").touch()
    with pytest.raises(SettingsError, match=r"--out '.*out' is not empty; name a new folder"):
        synthesize(wish)
    with pytest.raises(SettingsError, match=r"lies in a folder that does not exist; create .*nowhere"):
        synthesize(replace(wish, out=tmp_path / "nowhere" / "out"))
    for given in (["--count", "0"], ["--count", "9" * 5000], ["--format", "jpg"], []):
        with pytest.raises(SettingsError):
            synthesize_parser().parse_args(["tiny", *given, *(["--out", "o"] if given else [])])


def test_an_empty_folder_is_filled_as_it_is_by_whatever_name_it_is_given(
    wish: SynthesizeWish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {name: tmp_path / name / "out" for name in ("link", "here", "mount")}
    for place in places.values():
        place.mkdir(parents=True)
    nodes = [place.stat().st_ino for place in places.values()]
    (tmp_path / "to").symlink_to(places["link"])
    assert synthesize(replace(wish, out=tmp_path / "to")) == 0
    monkeypatch.chdir(places["here"])
    assert synthesize(replace(wish, out=Path())) == 0
    (tmp_path / "new").symlink_to(tmp_path / "made")
    assert synthesize(replace(wish, out=tmp_path / "new")) == 0
    assert synthesize(replace(wish, out=places["mount"])) == 0
    assert [place.stat().st_ino for place in places.values()] == nodes
    for folder in (*places.values(), tmp_path / "made"):
        assert len(list(folder.iterdir())) == 7 + 2
        assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(
    wish: SynthesizeWish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("search.synthesize_command.bench", lambda *_, **__: pytest.fail("computed"))
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    (tmp_path / "there").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("there", "new", "loop"):
        with pytest.raises(SettingsError, match=rf"--out '.*{name}' cannot be written \(.+\); name a new folder where"):
            synthesize(replace(wish, out=tmp_path / name))


def test_what_came_into_the_folder_meanwhile_is_kept(wish: SynthesizeWish, monkeypatch: pytest.MonkeyPatch) -> None:
    wish.out.mkdir()
    write = synthetic_files._write_labels

    def later(*given: Any) -> None:
        write(*given)
        (wish.out / "labels.csv").write_text("theirs")

    monkeypatch.setattr(synthetic_files, "_write_labels", later)
    with pytest.raises(SettingsError, match="is not empty any more"):
        synthesize(wish)
    assert [path.read_text() for path in wish.out.iterdir()] == ["theirs"]


def test_images_that_are_all_alike_are_not_written(
    wish: SynthesizeWish, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def alike(self: FittedNetworks, class_index: int, start: int, count: int, *, seed: int) -> torch.Tensor:
        return torch.full((count, 1, 32, 32), -1.0)

    monkeypatch.setattr(FittedNetworks, "sample", alike)
    assert synthesize(wish) == 1
    assert "all alike" in capsys.readouterr().out
    assert not wish.out.exists()


def test_labels_mark_an_image_as_synthetic_by_yes_alone(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").touch()
    table = "path,label,synthetic\na.png,x,yes\nb.png,y,\nc.png,y,no\n"
    (tmp_path / "labels.csv").write_text(table)
    found = read_labels(tmp_path)
    assert [row.is_synthetic for row in found.rows] == [True, False, False]
    assert found.source.endswith(", 1 of 3 images synthetic")
    (tmp_path / "labels.csv").write_text(table.replace("yes", "perhaps"))
    with pytest.raises(DataError, match=r"line 2 of .* has 'perhaps' as synthetic; expected yes, no or nothing"):
        read_labels(tmp_path)
