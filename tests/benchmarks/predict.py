"""How much slower ``predict`` is than reading the images and passing them through the classifier: at most 20 %.

    python -m tests.benchmarks.predict --images 1000 --side 128 --classifier small_cnn --pixels 32

The three are timed in turn, several times, in one process; what starting Python and PyTorch takes is in none of them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
import torch

from search.predict_command import PredictWish, predict_images
from spaces.config import ClassifierConfig, PreprocessConfig, as_dict
from trainables.classifiers.registry import build
from trainables.data.decoding import Prepared, decode_rows, prepare_rows
from trainables.model_folder import Model, load_model, write_model
from trainables.prediction import Pictures, find_pictures
from trainables.seeding import generator
from trainables.trial import best_device

LIMIT = 1.2


def write_images(folder: Path, count: int, side: int) -> None:
    """Grey PNG files of smooth noise, which compress as pictures do."""
    rng = np.random.default_rng(0)
    coarse = max(2, side // 8)
    for index in range(count):
        small = sitk.GetImageFromArray(rng.integers(0, 256, (coarse, coarse)).astype(np.float32))
        small.SetSpacing((side / coarse,) * 2)
        image = sitk.Resample(small, (side, side), sitk.Transform(), sitk.sitkLinear, (0.0, 0.0), (1.0, 1.0))
        sitk.WriteImage(sitk.Cast(image, sitk.sitkUInt8), str(folder / f"{index:05d}.png"))


def untrained(folder: Path, name: str, pixels: int) -> None:
    """A model with random weights: its speed is that of a trained one."""
    classifier, preprocess = ClassifierConfig(name=name), PreprocessConfig(pixels=pixels)
    network = build(classifier, n_classes=2, rng=generator(0))
    card = {
        "classes": ["a", "b"],
        "slice": None,
        "settings": {"classifier": as_dict(classifier), "preprocess": as_dict(preprocess)},
        "preprocess": {"field_of_view": None, "low": 0.0, "high": 255.0},
        "training": {"key": "none", "regions": 0, "seen": []},
        "search": {"name": "benchmark", "trial": "t0000"},
    }
    write_model(folder, {name: value.contiguous() for name, value in network.state_dict().items()}, card)


def read(pictures: list[Pictures]) -> None:
    """Decode every file."""
    for each in pictures:
        for _ in decode_rows(each.table, None, None):
            pass


def prepared(model: Model, pictures: list[Pictures]) -> torch.Tensor:
    """The images as the classifier sees them (networks are faster on blank ones)."""
    images_NHW = [
        image.image_PP
        for each in pictures
        for image in prepare_rows(each.table, None, model.preparation)
        if isinstance(image, Prepared)
    ]
    return torch.from_numpy(np.stack(images_NHW)[:, None])


def seconds(work: Callable[[], object]) -> float:
    """What it takes, with its messages thrown away."""
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=128, help="of the files, in pixels")
    parser.add_argument("--classifier", default="small_cnn")
    parser.add_argument("--pixels", type=int, default=32, help="that the classifier sees")
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, model_folder = Path(place) / "images", Path(place) / "model"
        folder.mkdir()
        write_images(folder, given.images, given.side)
        untrained(model_folder, given.classifier, given.pixels)
        model, pictures = load_model(model_folder, best_device(1.0)), find_pictures([folder])
        wish = PredictWish(
            model=str(model_folder),
            images=[folder],
            out=str(Path(place) / "out.csv"),
            slice_rule=None,
            storage=Path(place),
            tracking_uri="",
        )
        works: dict[str, Callable[[], object]] = {
            "reading": lambda: read(pictures),
            "forward passes": lambda: model.classifier.probabilities(images_NCHW),
            "predict": lambda: predict_images(wish),
        }
        images_NCHW = prepared(model, pictures)
        model.classifier.probabilities(images_NCHW)  # what is slow the first time
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(given.times):
            for name, work in works.items():
                taken[name].append(seconds(work))
    for name, times in taken.items():
        print(f"{name:15} {statistics.median(times):7.2f} s   ({', '.join(f'{each:.2f}' for each in times)})")
    bare = [one + other for one, other in zip(taken["reading"], taken["forward passes"], strict=True)]
    ratio = statistics.median(each / base for each, base in zip(taken["predict"], bare, strict=True))
    print(f"predict / (reading + forward passes) = {ratio:.3f}, at most {LIMIT}: {'yes' if ratio <= LIMIT else 'NO'}")


if __name__ == "__main__":
    main()
