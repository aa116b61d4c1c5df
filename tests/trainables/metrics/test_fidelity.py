from __future__ import annotations

import contextlib
import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from prdc import compute_prdc
from torch import nn
from torchmetrics.image.kid import KernelInceptionDistance

from trainables.data.image_set import ImageSet
from trainables.metrics.extractor import RECIPE_DIGEST, Extractor, train_extractor
from trainables.metrics.fidelity import (
    Fidelity,
    equal_neighbourhoods,
    fidelity,
    kid,
    neighbourhoods,
    read_fidelity,
    read_pairs,
    squared_mmd,
    write_fidelity,
)
from trainables.seeding import generator

Floats = npt.NDArray[np.float64]


def points(count: int, *, seed: int, shift: float = 0.0, scale: float = 1.0, size: int = 8) -> Floats:
    return np.random.default_rng(seed).normal(shift, scale, (count, size))


def column(*values: float) -> Floats:
    return np.array(values)[:, None]


def torchmetrics_kid(real_ND: Floats, synthetic_MD: Floats, *, subsets: int, size: int) -> tuple[float, float]:
    with warnings.catch_warnings(action="ignore"):  # that it keeps all features
        metric = KernelInceptionDistance(feature=nn.Identity(), subsets=subsets, subset_size=size)
    metric.update(torch.from_numpy(real_ND), real=True)
    metric.update(torch.from_numpy(synthetic_MD), real=False)
    mean, std = metric.compute()
    return float(mean), float(std)


@pytest.mark.parametrize("seed", range(3))
def test_the_discrepancy_of_two_sets_is_torchmetrics_with_one_subset(seed: int) -> None:
    real, synthetic = points(40, seed=seed), points(40, seed=seed + 10, shift=0.3)
    expected, _ = torchmetrics_kid(real, synthetic, subsets=1, size=40)
    assert squared_mmd(real, synthetic) == pytest.approx(expected, rel=1e-5)


def test_the_discrepancy_of_a_case_done_by_hand() -> None:
    """k(x, y) = (x y + 1)^3: within 1 and 27, between the mean of 1, 1, 8 and 27."""
    assert squared_mmd(column(0, 1), column(1, 2)) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_the_discrepancy_of_equal_distributions_is_zero_on_average_also_for_few_images() -> None:
    estimates = [squared_mmd(points(6, seed=seed), points(9, seed=1000 + seed)) for seed in range(400)]
    assert abs(np.mean(estimates)) < 3 * np.std(estimates) / 400**0.5


def test_kid_is_the_mean_over_subsets_of_half_the_smaller_set() -> None:
    real, synthetic = points(60, seed=0), points(41, seed=1, shift=0.5)
    found = kid(real, synthetic, rng=generator(0))
    assert found is not None
    mean, std = torchmetrics_kid(real, synthetic, subsets=1000, size=20)
    assert found.mean == pytest.approx(mean, abs=4 * std / 100**0.5)
    assert found.std == pytest.approx(std, rel=0.25)


def test_the_deviation_of_kid_is_about_its_standard_error() -> None:
    found = [
        kid(points(60, seed=seed), points(60, seed=900 + seed, shift=0.5), rng=generator(seed)) for seed in range(24)
    ]
    estimates = [each for each in found if each is not None]
    spread = np.std([each.mean for each in estimates])
    assert 0.5 < np.mean([each.std for each in estimates]) / spread < 2


@pytest.mark.parametrize(
    ("real", "synthetic", "defined"), [(4, 4, True), (3, 50, False), (50, 3, False), (50, 0, False)]
)
def test_kid_of_fewer_than_four_images_is_undefined(real: int, synthetic: int, defined: bool) -> None:
    assert (kid(points(real, seed=0), points(synthetic, seed=1), rng=generator(0)) is not None) == defined


@pytest.mark.parametrize(("n", "m", "k"), [(50, 50, 5), (30, 70, 5), (70, 30, 3), (7, 7, 5)])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_precision_recall_density_and_coverage_are_those_of_the_prdc_package(
    n: int, m: int, k: int, shift: float
) -> None:
    real, synthetic = points(n, seed=n), points(m, seed=m + 1, shift=shift, scale=0.8)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = compute_prdc(real, synthetic, nearest_k=k)
    found = neighbourhoods(real, synthetic, k=k)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)


def test_the_neighbourhoods_of_a_case_done_by_hand() -> None:
    """Real radii 1, 1, 2 and 6, synthetic radii .25, .25 and 19.5: .5 and .75 are near 0 and 1; 1 to 9 near 20.25."""
    found = neighbourhoods(column(0, 1, 3, 9), column(0.5, 0.75, 20.25), k=1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.density == pytest.approx((2 + 2 + 0) / 3)
    assert found.coverage == pytest.approx(2 / 4)
    assert found.recall == pytest.approx(3 / 4)


def test_a_collapsed_set_is_precise_but_covers_little() -> None:
    real = points(100, seed=0)
    collapsed = real[:1] + points(100, seed=1, scale=1e-3)
    found = neighbourhoods(real, collapsed, k=5)
    assert found.precision == 1.0
    assert found.coverage < 0.2
    assert found.recall < 0.05


def test_what_equal_distributions_score_does_not_depend_on_how_many_synthetic_images_there_are() -> None:
    real = points(100, seed=0)
    scores = {}
    for count in (50, 100, 800):
        found = equal_neighbourhoods(real, points(count, seed=count), rng=generator(0))
        assert found is not None
        scores[count] = found
    for name in ("precision", "recall", "coverage"):
        values = [getattr(each, name) for each in scores.values()]
        assert max(values) - min(values) < 0.08
    uncut = {count: neighbourhoods(real, points(count, seed=count), k=5) for count in scores}
    assert uncut[800].coverage - uncut[50].coverage > 0.1


@pytest.mark.parametrize(
    ("real", "synthetic", "defined"), [(6, 6, True), (5, 50, False), (50, 5, False), (50, 0, False)]
)
def test_neighbourhoods_of_no_more_images_than_neighbours_are_undefined(
    real: int, synthetic: int, defined: bool
) -> None:
    found = equal_neighbourhoods(points(real, seed=0), points(synthetic, seed=1), rng=generator(0))
    assert (found is not None) == defined


def image_set(*, counts: tuple[int, int], seed: int, contrast: float = 0.3) -> ImageSet:
    """Bright and dark noise; two images a patient."""
    labels_N = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
    noise_NCHW = contrast * torch.randn(len(labels_N), 1, 32, 32, generator=generator(seed))
    return ImageSet(
        images_NCHW=(noise_NCHW + (labels_N - 0.5)[:, None, None, None]).clamp(-1, 1),
        labels_N=labels_N,
        ids=tuple(f"{seed}/{index}" for index in range(len(labels_N))),
        patients=tuple(f"{seed}/{index // 2}" for index in range(len(labels_N))),
        classes=("dark", "bright"),
    )


@pytest.fixture(scope="module")
def real() -> ImageSet:
    return image_set(counts=(40, 24), seed=0)


@pytest.fixture(scope="module")
def extractor(real: ImageSet) -> Extractor:
    return train_extractor(real, seed=0, device=torch.device("cpu"), on_step=lambda done, total: None)


def values_of(real: ImageSet, synthetic: ImageSet, extractor: Extractor) -> dict[str, float]:
    found = fidelity(real, synthetic, extractor, seed=0).values
    defined = {name: value for name, value in found.items() if value is not None}
    assert len(defined) == len(found)
    return defined


def test_images_like_the_real_ones_are_more_faithful_than_others(real: ImageSet, extractor: Extractor) -> None:
    alike = values_of(real, image_set(counts=(40, 24), seed=1), extractor)
    different = values_of(real, image_set(counts=(40, 24), seed=1, contrast=0.6), extractor)
    assert alike["kid"] < different["kid"] / 10
    for name in ("precision", "density", "coverage", "density_dark", "coverage_bright"):
        assert alike[name] > different[name]


def test_a_generator_that_swaps_the_classes_is_not_faithful(real: ImageSet, extractor: Extractor) -> None:
    alike = image_set(counts=(40, 24), seed=1)
    swapped = values_of(real, replace(alike, labels_N=1 - alike.labels_N), extractor)
    assert swapped["coverage"] == swapped["precision"] == swapped["density"] == 0.0


def test_fidelity_has_the_names_that_a_trial_logs(real: ImageSet, extractor: Extractor) -> None:
    found = fidelity(real, image_set(counts=(40, 24), seed=1), extractor, seed=0)
    assert list(found.values) == [
        *("kid", "kid_std", "precision", "recall", "density", "coverage"),
        *("density_dark", "density_bright", "coverage_dark", "coverage_bright"),
        *("copy_rate", "copy_rate_pixels", "copy_rate_features"),
    ]
    assert found.counts == {"real": (40, 24), "synthetic": (40, 24)}


def test_means_are_over_classes(real: ImageSet, extractor: Extractor) -> None:
    found = values_of(real, image_set(counts=(30, 30), seed=1), extractor)
    for name in ("density", "coverage"):
        assert found[name] == pytest.approx((found[f"{name}_dark"] + found[f"{name}_bright"]) / 2)


def test_a_class_with_too_few_images_is_undefined_and_left_out_of_the_means(
    real: ImageSet, extractor: Extractor
) -> None:
    found = fidelity(real, image_set(counts=(40, 5), seed=1), extractor, seed=0).values
    assert found["density_bright"] is None
    assert found["coverage_bright"] is None
    assert found["coverage"] == found["coverage_dark"] is not None


def test_nothing_is_defined_of_no_images(real: ImageSet, extractor: Extractor) -> None:
    found = fidelity(real, image_set(counts=(0, 0), seed=1), extractor, seed=0)
    assert set(found.values.values()) == {None}
    assert found.pairs == ()


def test_the_same_seed_gives_the_same_values(real: ImageSet, extractor: Extractor) -> None:
    synthetic = image_set(counts=(30, 30), seed=1)
    first, again, other = (fidelity(real, synthetic, extractor, seed=seed).values for seed in (1, 1, 2))
    assert first == again
    assert first["kid"] != other["kid"]
    assert first["copy_rate"] == other["copy_rate"]


def test_sets_of_other_classes_are_refused(real: ImageSet, extractor: Extractor) -> None:
    synthetic = replace(image_set(counts=(8, 8), seed=1), classes=("bright", "dark"))
    with pytest.raises(ValueError, match="same classes"):
        fidelity(real, synthetic, extractor, seed=0)


@pytest.fixture(scope="module")
def written(real: ImageSet, extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fidelity]:
    folder = tmp_path_factory.mktemp("fidelity")
    found = fidelity(real, image_set(counts=(40, 5), seed=1), extractor, seed=0)
    write_fidelity(folder, found, real.classes)
    return folder, found


def test_what_is_written_is_read_back(written: tuple[Path, Fidelity]) -> None:
    folder, found = written
    assert read_fidelity(folder) == found.values
    pairs = read_pairs(folder)
    assert len(pairs) == len(found.pairs) == 5
    for pair, expected in zip(pairs, found.pairs, strict=True):
        assert np.array_equal(pair.images_2HW, expected.images_2HW)
        assert replace(pair, images_2HW=expected.images_2HW).distance == expected.distance
        assert (pair.synthetic, pair.training, pair.space) == (expected.synthetic, expected.training, expected.space)


def test_the_files_say_how_many_images_and_which_extractor(written: tuple[Path, Fidelity]) -> None:
    folder, _ = written
    stored = json.loads((folder / "fidelity.json").read_text())
    assert stored["counts"] == {"real": {"dark": 40, "bright": 24}, "synthetic": {"dark": 40, "bright": 5}}
    assert stored["extractor"] == RECIPE_DIGEST
    assert stored["coverage_bright"] is None
    pictures = np.load(folder / "pairs.npy", allow_pickle=False)
    assert (pictures.shape, pictures.dtype) == ((5, 2, 32, 32), np.uint8)


def test_undefined_copies_are_written_as_no_pairs(real: ImageSet, extractor: Extractor, tmp_path: Path) -> None:
    found = fidelity(real, image_set(counts=(0, 0), seed=1), extractor, seed=0)
    write_fidelity(tmp_path, found, real.classes)
    assert read_fidelity(tmp_path) == found.values
    assert read_pairs(tmp_path) == ()
