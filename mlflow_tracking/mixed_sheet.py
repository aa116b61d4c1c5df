"""The sheet of what a classifier was trained on: real, synthetic and mixed images of each class (GenMix, figure 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlflow_tracking.sheets import LINE, Bytes, Sheet, enlarged, fitted, written_width
from trainables.feature_map import EXAMPLES, KINDS, FeatureMap

_CELL = 84
"""Smallest side of an image, in pixels."""
_GAP = 4
_MARGIN = 12
_LEFT = 88
"""Where images begin; the names of the kinds stand before."""
_TITLE = 10
_MIXED = KINDS.index("mixed")
_NOTE = "Below a mixed image: its class's weight in its label; the rest is other classes'."


def mixed_sheet(found: FeatureMap, title: str, path: Path) -> bool:
    """Draw a block for each class: a row of real images above one of synthetic ones above one of mixed ones.

    Args:
        found: a map with pictures.
        title: stands above; may have several lines.
        path: the PNG file to write.

    Returns:
        Whether there was anything to draw: pictures of mixed images.
    """
    kinds = [index for index in range(len(KINDS)) if (found.kind_M[found.example_E] == index).any()]
    if _MIXED not in kinds:
        return False
    images = enlarged(found.images_EHW.numpy(), at_least=_CELL)
    pixels = images.shape[-1]
    head = f"{title}\n{_NOTE}" if _has_weights(found) else title
    top = _MARGIN + LINE * (head.count("\n") + 1) + 14
    needed = round(max(written_width(line, points=_TITLE) for line in head.split("\n")))
    width = max(_LEFT + EXAMPLES * (pixels + _GAP), _MARGIN + needed) + _MARGIN
    block = LINE + 6 + sum(_row_height(found, kind, pixels) for kind in kinds) + 12
    sheet = Sheet(width, top + len(found.classes) * block)
    sheet.write(head, _MARGIN, _MARGIN, points=_TITLE)
    for label, name in enumerate(found.classes):
        y = top + label * block
        sheet.write(fitted(name, width - 2 * _MARGIN, points=_TITLE), _MARGIN, y, points=_TITLE)
        y += LINE + 6
        for kind in kinds:
            _row(sheet, found, images, label, kind, y)
            y += _row_height(found, kind, pixels)
    sheet.save(path)
    return True


def _has_weights(found: FeatureMap) -> bool:
    """Whether labels are mixed at all; those of AugMix are not."""
    return bool((found.weight_M < 1).any())


def _row_height(found: FeatureMap, kind: int, pixels: int) -> int:
    return pixels + _GAP + (LINE if kind == _MIXED and _has_weights(found) else 0)


def _row(sheet: Sheet, found: FeatureMap, images_EHW: Bytes, label: int, kind: int, y: int) -> None:
    """The images of one class and kind, side by side, with their weights below where they have any."""
    pixels = images_EHW.shape[-1]
    belongs_M = (found.kind_M == kind) & (found.label_M == label)
    chosen = np.flatnonzero(belongs_M[found.example_E].numpy())
    sheet.write(KINDS[kind], _LEFT - 10, y + pixels // 2, across="right", down="center")
    if not len(chosen):
        sheet.write("no images", _LEFT, y + pixels // 2, down="center")
    for column, index in enumerate(chosen):
        x = _LEFT + column * (pixels + _GAP)
        sheet.place(images_EHW[index], x, y)
        if kind == _MIXED and _has_weights(found):
            weight = float(found.weight_M[found.example_E[index]])
            sheet.write(f"{weight:.2f}", x + pixels // 2, y + pixels + 3, across="center")
