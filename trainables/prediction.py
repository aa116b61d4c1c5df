"""What a model says of image files: read within the reader's limits, prepared, and classified batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from torch import Tensor

from trainables.classifiers.trained import EVALUATION_BATCH
from trainables.data.archives import labels_apart, npz_picture
from trainables.data.decoding import Bad, OnProgress, Prepared, prepare_rows
from trainables.data.labels import LABELS_FILE, LabelledImage, LabelTable, files_below, find_images
from trainables.data.readers import EXTENSIONS, Pixels, SliceRule, format_of
from trainables.data.resampling import Frame, Preparation
from trainables.data.untrusted import quoted, why_not_regular
from trainables.errors import DataError
from trainables.model_folder import Model

PREDICTION, ERROR = "prediction", "error"
"""Columns of tables: the likeliest class, and why an image cannot be used."""
_AHEAD = 1
"""Batches that the classifier may have in hand while another one is read."""
_UNKNOWN = "unknown"
"""The label of images whose label nobody asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Images that are read together.

    Args:
        table: files of any folders, or the entries of one archive.
        names: how each row is called in results.
    """

    table: LabelTable
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What a model says of one image.

    Args:
        name: the image.
        probabilities: in the order of the model's classes; empty where the image cannot be used.
        error: why it cannot be used; "" where it can.
        was_seen: whether the model was trained on an image with these very pixels.
        has_spacing: whether its file says how large its pixels are.
        has_region: whether it was cut to a region of interest.
    """

    name: str
    probabilities: tuple[float, ...] = ()
    error: str = ""
    was_seen: bool = False
    has_spacing: bool = False
    has_region: bool = False


def columns(classes: Sequence[str]) -> tuple[str, ...]:
    """What a table says of each image: the probability of each class, the likeliest class, and what is wrong."""
    return (*(f"probability_{name}" for name in classes), PREDICTION, ERROR)


def likeliest(found: Predicted, classes: Sequence[str]) -> str:
    """The class with the highest probability, the first of equals; "" where the image cannot be used."""
    return classes[found.probabilities.index(max(found.probabilities))] if found.probabilities else ""


def find_pictures(given: Sequence[Path]) -> list[Pictures]:
    """The images that paths mean, in order.

    Args:
        given: image files; folders, of which a ``labels.csv`` says which images they have and where their regions of
            interest lie, else every image in any depth; MedMNIST archives.

    Raises:
        DataError: a path does not exist, or has no image.
    """
    found: list[Pictures] = []
    for path in given:
        here = _meant_by(path)
        if found and found[-1].table.rows[-1].path is not None and here.table.rows[0].path is not None:
            before = found.pop()
            here = Pictures(table=_joined(before.table, here.table), names=before.names + here.names)
        found.append(here)
    return found


def files(paths: Sequence[Path]) -> Pictures:
    """Image files, whatever they are: what cannot be read is said when it is tried. At least one."""
    rows = tuple(LabelledImage(id=str(path), path=path, label=_UNKNOWN, patient=str(path)) for path in paths)
    table = LabelTable(data=paths[0], source=str(paths[0]), rows=rows, patients_known=False)
    return Pictures(table=table, names=tuple(str(path) for path in paths))


def _meant_by(path: Path) -> Pictures:
    reason = why_not_regular(path)
    if reason == "is a folder":
        return _folder(path)
    if reason is not None:
        raise DataError(f"{quoted(str(path))} {reason}; give image files, folders of them or MedMNIST .npz files.")
    return _archive(path) if path.suffix.lower() == ".npz" else files([path])


def _folder(folder: Path) -> Pictures:
    if (folder / LABELS_FILE).exists():
        table = find_images(folder)
        return Pictures(table=table, names=tuple(str(folder / row.id) for row in table.rows))
    paths = [path for path in files_below(folder) if format_of(path) is not None]
    if not paths:
        raise DataError(f"{quoted(str(folder))} has no images; expected names in {', '.join(EXTENSIONS)}.")
    return files(paths)


def _archive(path: Path) -> Pictures:
    rows = tuple(
        LabelledImage(id=f"{split}/{index:06d}", path=None, label=name, patient="", split=split)
        for split, labels in labels_apart(path).items()
        for index, name in enumerate(labels)
    )
    if not rows:
        raise DataError(f"{quoted(str(path))} has no images; download it again.")
    table = LabelTable(data=path, source=str(path), rows=rows, patients_known=False)
    return Pictures(table=table, names=tuple(f"{path}/{row.id}" for row in rows))


def _joined(first: LabelTable, second: LabelTable) -> LabelTable:
    return LabelTable(
        data=first.data, source=first.source, rows=(*first.rows, *second.rows), patients_known=False, is_whole=False
    )


def predict(
    model: Model,
    pictures: Sequence[Pictures],
    *,
    slice_rule: SliceRule = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Iterator[Predicted]:
    """Classify images, in order; only prepared ones are kept, and no more than a few batches of them.

    Args:
        model: prepares and classifies.
        pictures: at least one image each.
        slice_rule: which slice of a volume is meant; None: the one that the model was trained on.
        on_progress: called with (images read, images in all).

    Raises:
        DataError: an archive cannot be used, or no process that decodes can be started.
    """
    rule = model.slice_rule if slice_rule is None else slice_rule
    total, done = sum(len(each.names) for each in pictures), 0
    with _Line(model) as line:
        for each in pictures:
            for name, image in zip(each.names, prepare_rows(each.table, rule, model.preparation), strict=True):
                yield from line.add(name, image)
                done += 1
                on_progress(done, total)
        yield from line.rest()


def predict_arrays(model: Model, images: Sequence[Pixels]) -> Iterator[Predicted]:
    """Classify pictures (H, W), in the units of the files that the model was trained on, without a pixel spacing."""
    with _Line(model) as line:
        for number, array_HW in enumerate(images):
            yield from line.add(str(number), _prepared(model.preparation, str(number), array_HW))
        yield from line.rest()


def _prepared(preparation: Preparation, name: str, array_HW: Pixels) -> Prepared | Bad:
    try:
        if array_HW.ndim != 2:
            raise DataError(f"has the shape {array_HW.shape}; expected (H, W).")
        pixels_HW = npz_picture(array_HW).pixels_HW
    except DataError as error:
        return Bad(id=name, reason=str(error))
    height, width = pixels_HW.shape
    return Prepared(image_PP=preparation.apply(pixels_HW, Frame(shape=(height, width))))


class _Line:
    """Images on their way through the classifier, which works on one batch while the next one is read.

    To be used with ``with``.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._waiting: list[Predicted] = []
        self._prepared: list[Pixels] = []
        self._begun: deque[tuple[list[Predicted], Future[Tensor] | None]] = deque()
        self._classifier = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._classifier.shutdown(cancel_futures=True)

    def add(self, name: str, image: Prepared | Bad) -> Iterator[Predicted]:
        """Take one more image; gives what has come out of the line."""
        if isinstance(image, Bad):
            self._waiting.append(Predicted(name=name, error=image.reason))
        else:
            self._prepared.append(image.image_PP)
            self._waiting.append(
                Predicted(
                    name=name,
                    was_seen=image.pixel_digest in self._model.seen,
                    has_spacing=image.has_spacing,
                    has_region=image.has_region,
                )
            )
        if len(self._prepared) == EVALUATION_BATCH:
            self._begin()
            while len(self._begun) > _AHEAD:
                yield from self._finished()

    def rest(self) -> Iterator[Predicted]:
        """What is still in the line."""
        self._begin()
        while self._begun:
            yield from self._finished()

    def _begin(self) -> None:
        """Let the classifier work on what is prepared."""
        prepared, waiting = self._prepared, self._waiting
        self._prepared, self._waiting = [], []
        work = self._classifier.submit(self._model.probabilities, prepared) if prepared else None
        self._begun.append((waiting, work))

    def _finished(self) -> Iterator[Predicted]:
        """The oldest batch, once it is classified."""
        waiting, work = self._begun.popleft()
        rows = iter(work.result().tolist() if work is not None else ())
        for each in waiting:
            yield each if each.error else replace(each, probabilities=tuple(next(rows)))
