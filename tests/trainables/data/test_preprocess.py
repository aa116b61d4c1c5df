from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spaces.config import PreprocessConfig
from trainables.data.cohort import Cohort, Entry
from trainables.data.preprocess import fit_scaling, preprocess
from trainables.data.resampling import Scaling
from trainables.errors import DataError

CONFIG = PreprocessConfig(pixels=32)


def entry(
    number: int,
    shape: tuple[int, int],
    *,
    offset: int = 0,
    spacing: tuple[float, float] | None = None,
    roi: tuple[int, int, int, int] | None = None,
) -> Entry:
    return Entry(
        id=f"{number}.png", label=number % 2, patient=f"p{number}", group=f"p{number}", site="", split="", roi=roi,
        shape=shape, offset=offset, spacing=spacing, pixel_digest="",
    )  # fmt: skip


def cohort_of(pictures: list[NDArray[np.float32]], spacings: list[tuple[float, float] | None] | None = None) -> Cohort:
    offsets = np.cumsum([0, *(each.size for each in pictures)])
    spacings = spacings or [None] * len(pictures)
    entries = tuple(
        entry(number, each.shape, offset=int(offset), spacing=spacing)  # type: ignore[arg-type]
        for number, (each, offset, spacing) in enumerate(zip(pictures, offsets, spacings, strict=False))
    )
    return Cohort(
        folder=Path(), digest="", source="class folders of data/x", is_phantom=False, patients_known=True,
        classes=("a", "b"), entries=entries, bad_images=(), near_duplicates=(),
        _values=np.concatenate([each.ravel() for each in pictures]),
    )  # fmt: skip


def pictures(count: int = 6, seed: int = 0) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(100, 30, (40 + number, 50)).astype(np.float32) for number in range(count)]


def test_images_lie_between_minus_one_and_one_and_the_percentiles_at_the_ends() -> None:
    cohort = cohort_of(pictures())
    scaling = fit_scaling(cohort, range(6), CONFIG)
    images = preprocess(cohort, range(6), scaling, CONFIG)
    assert images.images_NCHW.shape == (6, 1, 32, 32)
    assert images.images_NCHW.dtype == torch.float32
    assert float(images.images_NCHW.min()) == -1
    assert float(images.images_NCHW.max()) == 1
    assert float((images.images_NCHW == -1).float().mean()) == pytest.approx(0.005, abs=0.001)
    assert float((images.images_NCHW == 1).float().mean()) == pytest.approx(0.005, abs=0.001)


def test_labels_ids_and_patients_keep_the_order_asked_for() -> None:
    cohort = cohort_of(pictures())
    images = preprocess(cohort, (4, 1), Scaling(field_of_view=None, low=0, high=200), CONFIG)
    assert images.ids == ("4.png", "1.png")
    assert images.patients == ("p4", "p1")
    assert images.labels_N.tolist() == [0, 1]
    assert images.classes == ("a", "b")


def test_the_scaling_sees_training_images_only() -> None:
    first = pictures()
    second = [*first[:4], *(each * 50 for each in first[4:])]
    assert fit_scaling(cohort_of(first), range(4), CONFIG) == fit_scaling(cohort_of(second), range(4), CONFIG)
    assert fit_scaling(cohort_of(first), range(6), CONFIG) != fit_scaling(cohort_of(second), range(6), CONFIG)


def test_an_image_does_not_depend_on_the_others_or_on_threads() -> None:
    cohort = cohort_of(pictures())
    scaling = Scaling(field_of_view=None, low=20, high=190)
    together = preprocess(cohort, range(6), scaling, CONFIG).images_NCHW
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [preprocess(cohort, (number,), scaling, CONFIG).images_NCHW for number in range(6)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, torch.cat(alone))


def test_the_field_of_view_is_the_median_over_training_images() -> None:
    spacings: list[tuple[float, float] | None] = [(1.0, 1.0), (2.0, 2.0), (1.5, 0.5), (9.0, 9.0)]
    cohort = cohort_of([pictures(1)[0]] * 4, spacings)
    assert fit_scaling(cohort, range(3), CONFIG).field_of_view == 40.0
    spacings[1] = None
    assert fit_scaling(cohort_of([pictures(1)[0]] * 4, spacings), range(3), CONFIG).field_of_view is None


def test_regions_of_interest_have_no_say_in_the_field_of_view() -> None:
    cohort = cohort_of([pictures(1)[0]] * 3, [(1.0, 1.0), (3.0, 3.0), None])
    entries = (cohort.entries[0], *(replace(each, roi=(4, 4, 20, 20)) for each in cohort.entries[1:]))
    assert fit_scaling(replace(cohort, entries=entries), range(3), CONFIG).field_of_view == 40.0


def test_the_same_anatomy_at_two_spacings_gives_nearly_the_same_image() -> None:
    def disc(spacing: float, size: int) -> NDArray[np.float32]:
        axis = (np.arange(size) + 0.5 - size / 2) * spacing
        return np.exp(-(np.add.outer(axis**2, axis**2)) / 800).astype(np.float32)

    cohort = cohort_of([disc(1.0, 96), disc(0.75, 160)], [(1.0, 1.0), (0.75, 0.75)])
    scaling = Scaling(field_of_view=90.0, low=0, high=1)
    images = preprocess(cohort, (0, 1), scaling, CONFIG).images_NCHW
    assert float((images[0] - images[1]).abs().max()) < 0.01


def test_percentiles_that_coincide_are_refused() -> None:
    sparse = np.zeros((40, 40), np.float32)
    sparse[0, 0] = 1
    with pytest.raises(DataError, match=r"the percentiles 0\.5 and 99\.5 .* are both 0"):
        fit_scaling(cohort_of([sparse, sparse]), range(2), CONFIG)
