"""The sound files that ``fuzz_inputs`` mutates, of every format, and the command lines that it makes up."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.flags import search_parser
from spaces.presets import PRESETS
from tests.benchmarks.fuzz_mutations import PIECES

PLAIN_FLAGS = ("--describe", "--list-spaces", "--skip-bad-images", "--no-images", "--no-sharing", "--leave-site-out")
WORDS = (
    "genmix", "quick", "standard", "5", "0", "-1", "1e9", "nan", "inf", "0.2", "9" * 30, "9" * 5000, "90s", "1d",
    "20GB", "middle", "balanced_accuracy", "auc,seconds", "sensitivity_x", "reuse", "asha", "labels", "labels.csv",
    ".", "..", "sets/a", "/dev/null", "/dev/zero", "space.yaml", "loop.yaml", "pipe.yaml", "", " ", "-", "--",
    "generator.name=egan", "generator.pretrained=/etc", "mixer.name=", "=", "x=y=z", "sqlite:///a.db", "http://u:p@h",
    "auto", "h:1", "é", "~", "mixer.name=cutmix", "classifier.epochs=3", "classifier.epochs=" + "9" * 400, "../up",
    "a/b", "a" * 300,
)  # fmt: skip


def images(folder: Path, *, seed: int) -> Mapping[str, tuple[bytes, ...]]:
    """Small files of every image format by extension: grey, 16 bit, colour, a volume, compressed or not."""
    import SimpleITK

    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (24, 20)).astype(np.uint8)
    arrays = {
        "grey": SimpleITK.GetImageFromArray(noise),
        "deep": SimpleITK.GetImageFromArray(noise.astype(np.uint16) * 200),
        "colour": SimpleITK.GetImageFromArray(np.stack([noise] * 3, axis=-1), isVector=True),
        "volume": SimpleITK.GetImageFromArray(np.stack([noise, noise[::-1]]).astype(np.int16)),
        "real": SimpleITK.GetImageFromArray(noise.astype(np.float32) / 7),
    }
    allowed = {
        ".mha": "grey deep colour volume real", ".mhd": "grey deep", ".nii": "grey deep colour volume real",
        ".nii.gz": "grey deep volume real", ".dcm": "grey deep colour", ".png": "grey deep colour",
        ".jpg": "grey colour", ".tif": "grey deep colour real",
    }  # fmt: skip
    found: dict[str, list[bytes]] = {}
    for extension, names in allowed.items():
        for name in names.split():
            for compress in (False, True):
                file = folder / f"{name}{extension}"
                _write(arrays[name], file, compress=compress)
                found.setdefault(extension, []).append(file.read_bytes())
    return {extension: tuple(contents) for extension, contents in found.items()}


def _write(image: Any, file: Path, *, compress: bool) -> None:
    """Write an image; a DICOM file gets fixed identifiers, a day and a time in place of drawn ones and the clock's."""
    import SimpleITK

    for tag in ("0008|0018", "0020|000d", "0020|000e", "0020|0052"):
        image.SetMetaData(tag, "1.2.3.4")
    image.SetMetaData("0008|0020", "20200102")
    image.SetMetaData("0008|0030", "101112.000000")
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(file))
    writer.SetUseCompression(compress)
    writer.Execute(image)
    for tag in image.GetMetaDataKeys():
        image.EraseMetaData(tag)


def archives(folder: Path, *, seed: int) -> tuple[bytes, ...]:
    """MedMNIST archives: grey, and in colour with names as labels."""
    rng = np.random.default_rng(seed)
    grey, colour = rng.integers(0, 256, (6, 12, 12)).astype(np.uint8), rng.integers(0, 256, (3, 9, 9, 3))
    file = folder / "m.npz"
    found = []
    for save in (np.savez, np.savez_compressed):
        save(file, train_images=grey, train_labels=np.arange(6)[:, None] % 2)
        found.append(file.read_bytes())
        save(file, val_images=colour.astype(np.uint8), val_labels=np.array(["a", "b", "a"]))
        found.append(file.read_bytes())
    return tuple(found)


def data_folder(folder: Path, pictures: Mapping[str, Sequence[bytes]]) -> Path:
    """A data set beside which tables, split files and command lines are tried: sound images, and traps."""
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pictures[".png"][0])
    (folder / "a" / "out.png").symlink_to("/etc/hostname")
    (folder / "a" / "loop.png").symlink_to("loop.png")
    (folder / "a" / "none.png").symlink_to("nothing.png")
    (folder / "a" / "folder.png").mkdir()
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "space.yaml").write_text(PRESETS["sweep_ratio"].to_yaml(), encoding="utf-8")
    return folder


TABLES = (
    b"path,label\na/1.png,x\na/2.png,x\nb/3.png,y\nb/4.png,y\n",
    b"path,label,patient,site,split,roi\na/1.png,x,p1,s,train,\"1,2,3,4\"\nb/3.png,y,p2,t,val,1;2;3;4\nb/4.png,y,p3,t,test,\n",
    b"path,label,mask\r\na/1.png,x,a/2.png\r\nb/3.png,\"y, or z\",\r\na/loop.png,x,\r\na/none.png,y,\r\n",
    b"path,label\na/out.png,x\nb/3.png,y\na/folder.png,x\n",
)  # fmt: skip
SPLITS = (
    b"path,split\na/1.png,train\na/2.png,val\nb/3.png,train\nb/4.png,test\n",
    b"split,path,more\ntrain,a/1.png,1\nvalidation,a/2.png,2\ntrain,b/3.png\n,\ntest,b/4.png,\n",
)
SMALL_SPACE = b"""\
name: mine
description: two things
dimensions:
- {name: mixer.name, type: choice, options: [genmix, cutmix, none], default: genmix, meaning: which mixer}
- name: mixer.alpha
  type: float
  low: 0.1
  high: 1.0e+1
  default: 1.0
  log: true
  when: {mixer.name: [genmix, cutmix]}
- {name: classifier.epochs, type: int, low: 1, high: 100, default: 10, around: 2.0}
"""


def spaces() -> tuple[bytes, ...]:
    """Space files: a small one three times as often as each of the named ones."""
    return (*[SMALL_SPACE] * 3, *(space.to_yaml().encode() for space in PRESETS.values()))


def command_line(rng: random.Random) -> list[str]:
    """A command line of real flags with good, bad and missing values, now and then with something else."""
    if rng.random() < 0.1:
        return [rng.choice(("show", "stages", "sync", "confirm", "serach", "", "-h")), *_values(rng)]
    parser = search_parser({})
    flags: list[argparse.Action] = [action for action in parser._actions if action.dest != "help"]
    given: list[str] = ["--describe"] if rng.random() < 0.4 else []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        action = rng.choice(flags)
        given.append(action.option_strings[0] if action.option_strings else "x")
        if action.nargs != 0 and rng.random() < 0.95:
            given.append(_good(action, rng) if rng.random() < 0.5 else _word(rng))
    if rng.random() < 0.15:
        given.insert(rng.randint(0, len(given)), rng.choice((*PLAIN_FLAGS, "--no-such-flag", "-x", _word(rng))))
    return given


def _values(rng: random.Random) -> list[str]:
    return [_word(rng) for _ in range(rng.randint(0, 2))]


def _word(rng: random.Random) -> str:
    return rng.choice(WORDS if rng.random() < 0.7 else PIECES)


def _good(action: argparse.Action, rng: random.Random) -> str:
    """A value that the flag is made for."""
    made_for: Mapping[str, tuple[str, ...]] = {
        "space": (*PRESETS, "space.yaml"),
        "set": ("mixer.name=cutmix", "classifier.epochs=3", "generator.name=egan"),
        "budget": ("quick", "standard"),
        "metric": ("balanced_accuracy", "auc"),
        "sampler": ("tpe", "random", "reuse"),
        "scheduler": ("fifo", "racing"),
        "data": (".", "m.npz", "a"),
        "labels": ("labels.csv",),
        "slice": ("middle", "0"),
        "split_file": ("labels",),
        "time_budget": ("90s", "2h"),
        "checkpoint_every": ("60s",),
        "stage_limit": ("20GB",),
        "address": ("auto",),
        "tracking_uri": ("sqlite:///x.db",),
        "name": ("mine",),
        "storage": ("searches",),
    }
    return rng.choice(made_for.get(action.dest, ("1", "2", "5", "0.1")))
