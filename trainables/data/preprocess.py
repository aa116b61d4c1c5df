"""Images of a cohort cropped, resampled and scaled as a training fold alone teaches (paper 1, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from spaces.config import PreprocessConfig
from trainables.data.cohort import Cohort, Entry
from trainables.data.image_set import ImageSet
from trainables.data.readers import Pixels
from trainables.data.resampling import Scaling, resample, scaled, window
from trainables.errors import DataError

PREPROCESS_VERSION = 1
"""Raised by hand when the numbers change; part of the key of preprocessed folds."""


def fit_scaling(cohort: Cohort, indices: Sequence[int], config: PreprocessConfig) -> Scaling:
    """Learn field of view and intensity range from a training fold.

    The field of view is the median over the images of the largest square that fits, in millimetres. Images with a
    region of interest have no say in it; where one of the others has no spacing, there is none. The intensities are
    percentiles over all pixels of the cropped and resized images.

    Args:
        cohort: the data set.
        indices: positions of the training images; no other image is looked at.
        config: percentiles and size.

    Raises:
        DataError: no image, or the two percentiles are the same intensity.
    """
    if not len(indices):
        raise DataError(f"there is no training image to fit intensities on ({cohort.source}); add images.")
    view = _field_of_view([cohort.entries[index] for index in indices])
    images_NHW = _windows(cohort, indices, view, config.pixels)
    values = images_NHW.astype(np.float64).ravel()
    low, high = np.percentile(values, (config.low_percentile, config.high_percentile), overwrite_input=True)
    if not low < high:
        raise DataError(
            f"the percentiles {config.low_percentile:g} and {config.high_percentile:g} of the training images are both "
            f"{low:g} ({cohort.source}); expected different intensities. Set preprocess.low_percentile and "
            f"preprocess.high_percentile further apart."
        )
    return Scaling(field_of_view=view, low=float(low), high=float(high))


def preprocess(cohort: Cohort, indices: Sequence[int], scaling: Scaling, config: PreprocessConfig) -> ImageSet:
    """Crop, resample, scale and clip images.

    Each image is computed on its own: its bytes depend neither on the other images nor on the thread count.

    Args:
        cohort: the data set.
        indices: positions of the images.
        scaling: from ``fit_scaling`` on the training fold.
        config: the size.

    Returns:
        The images in the order given, float32 in [-1, 1].
    """
    images_NHW = _windows(cohort, indices, scaling.field_of_view, config.pixels)
    entries = [cohort.entries[index] for index in indices]
    return ImageSet(
        images_NCHW=torch.from_numpy(scaled(images_NHW, scaling)[:, None]),
        labels_N=torch.tensor([entry.label for entry in entries], dtype=torch.int64),
        ids=tuple(entry.id for entry in entries),
        patients=tuple(entry.patient for entry in entries),
        classes=cohort.classes,
    )


def _windows(cohort: Cohort, indices: Sequence[int], field_of_view: float | None, pixels: int) -> Pixels:
    images_NHW = np.empty((len(indices), pixels, pixels), dtype=np.float32)
    for position, index in enumerate(indices):
        images_NHW[position] = resample(cohort.pixels(index), window(cohort.entries[index], field_of_view), pixels)
    return images_NHW


def _field_of_view(entries: Sequence[Entry]) -> float | None:
    sides: list[float] = []
    for entry in entries:
        if entry.roi is not None:
            continue
        if entry.spacing is None:
            return None
        sides.append(min(entry.shape[0] * entry.spacing[0], entry.shape[1] * entry.spacing[1]))
    return float(np.median(sides)) if sides else None
