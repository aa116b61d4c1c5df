"""Pictures of what a generator made: over its training time, and beside the training images that it may have copied."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlflow_tracking.sheets import ALARM, INK, LINE, Bytes, Sheet, enlarged, fitted, written_width
from trainables.metrics.copies import ClosePair

ROWS = 10
"""Moments of a training that are shown."""
COLUMNS = 20
"""Images in a row, if that leaves two of each class."""
_CELL = 56
"""Smallest side of an image, in pixels."""
_GAP = 2
_MARGIN = 12
_PAIR_CELL = 112
_PAIR_TEXT = 560
_TITLE = 10


def samples_over_training(
    images_TKMHW: Bytes, steps: Sequence[int], classes: Sequence[str], title: str, path: Path
) -> bool:
    """Draw what a generator made of the same noise at several moments of its training, a row for each.

    Args:
        images_TKMHW: uint8, at T moments M images of each of K classes.
        steps: steps done at each moment.
        classes: names of the classes.
        title: stands above; may have several lines.
        path: the PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    moments, class_count, per_class = images_TKMHW.shape[:3]
    if not moments or not class_count or not per_class:
        return False
    chosen = _spread(moments, ROWS)
    shown = min(per_class, max(2, COLUMNS // class_count))
    blocks_TKHW = _blocks(enlarged(images_TKMHW[chosen, :, :shown], at_least=_CELL))
    height, width = blocks_TKHW.shape[-2:]
    headings = ["\n".join(_two_lines(name, width)) for name in classes]
    top = _MARGIN + LINE * (title.count("\n") + 1) + 12
    first = top + LINE * (1 + max(heading.count("\n") for heading in headings)) + 4
    labels = [_moment(steps[index], last=index == moments - 1) for index in chosen]
    left = _MARGIN + 8 + round(max(written_width(line) for label in labels for line in label.split("\n")))
    right = left + class_count * (width + 4 * _GAP)
    needed = max(written_width(line, points=_TITLE) for line in title.split("\n"))
    sheet = Sheet(max(right, _MARGIN + round(needed)) + _MARGIN, first + len(chosen) * (height + _GAP) + _MARGIN)
    sheet.write(title, _MARGIN, _MARGIN, points=_TITLE)
    for column, heading in enumerate(headings):
        x = left + column * (width + 4 * _GAP)
        sheet.write(heading, x + width // 2, first - 4, across="center", down="bottom")
        for row, label in enumerate(labels):
            y = first + row * (height + _GAP)
            sheet.place(blocks_TKHW[row, column], x, y)
            if column == 0:
                sheet.write(label, left - 8, y + height // 2, across="right", down="center")
    sheet.save(path)
    return True


def _spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of ``count`` positions, evenly, the first and the last among them."""
    if count <= limit:
        return list(range(count))
    return [round(index * (count - 1) / (limit - 1)) for index in range(limit)]


def _blocks(images_TKMHW: Bytes) -> Bytes:
    """The images of a class side by side, white between them."""
    height, pixels = images_TKMHW.shape[-2:]
    count = images_TKMHW.shape[2]
    shape = (*images_TKMHW.shape[:2], height, count * (pixels + _GAP) - _GAP)
    blocks: Bytes = np.full(shape, 255, dtype=np.uint8)
    for column in range(count):
        left = column * (pixels + _GAP)
        blocks[..., left : left + pixels] = images_TKMHW[:, :, column]
    return blocks


def _two_lines(name: str, width: int) -> list[str]:
    letters = max(1, int(len(name) * width / max(1.0, written_width(name))))
    first, *rest = textwrap.wrap(name, letters, break_on_hyphens=False) or [name]
    return [fitted(line, width) for line in (first, " ".join(rest)) if line]


def _moment(steps: int, *, last: bool) -> str:
    text = f"step {steps:,}"
    return f"{text}\n(end)" if last else text


def closest_pairs(pairs: Sequence[ClosePair], title: str, path: Path) -> bool:
    """Draw the synthetic images closest to a training image, each beside it, and say which count as copies.

    Args:
        pairs: nearest first.
        title: stands above; may have several lines.
        path: the PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    if not pairs:
        return False
    images = enlarged(np.stack([pair.images_2HW for pair in pairs]), at_least=_PAIR_CELL)
    pixels = images.shape[-1]
    first = _MARGIN + LINE * (title.count("\n") + 2) + 14
    pitch = pixels + 14
    text = _MARGIN + 2 * pixels + 30
    sheet = Sheet(text + _PAIR_TEXT, first + len(pairs) * pitch + 4)
    sheet.write(title, _MARGIN, _MARGIN, points=_TITLE)
    for column, heading in enumerate(("synthetic", "training")):
        x = _MARGIN + column * (pixels + 6)
        sheet.write(heading, x + pixels // 2, first - 6, across="center", down="bottom")
    for row, pair in enumerate(pairs):
        y = first + row * pitch
        for column in range(2):
            sheet.place(images[row, column], _MARGIN + column * (pixels + 6), y)
        is_copy = pair.distance <= pair.threshold
        if is_copy:
            sheet.frame(_MARGIN - 4, y - 4, 2 * pixels + 14, pixels + 8, colour=ALARM)
        verdict = "at or below the threshold: counts as a copy" if is_copy else "above the threshold: no copy"
        lines = (
            f"{row + 1}. {verdict}",
            f"distance {pair.distance:.4g}, threshold {pair.threshold:.4g}, in {pair.space}",
            f"synthetic: {fitted(pair.synthetic, _PAIR_TEXT - 75, points=9, keep_end=True)}",
            f"training: {fitted(pair.training, _PAIR_TEXT - 75, points=9, keep_end=True)}",
        )
        for index, line in enumerate(lines):
            y_line = y + pixels // 2 + LINE * (index - len(lines) // 2)
            sheet.write(line, text, y_line, points=9, colour=ALARM if is_copy and index == 0 else INK)
    sheet.save(path)
    return True
