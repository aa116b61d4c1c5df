from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from trainables.data.image_set import ImageSet
from trainables.metrics import copies
from trainables.metrics.copies import Copies, find_copies, nearest, turned
from trainables.seeding import generator

CPU = torch.device("cpu")
SLICES = 5


def heart_set(patients: int, *, seed: int, slices: int = SLICES) -> ImageSet:
    """Smooth random images, one a patient; a patient's slices differ by little more than noise."""
    rng = generator(seed)
    anatomy_NCHW = interpolate(torch.randn(patients, 1, 6, 6, generator=rng), size=(32, 32), mode="bicubic")
    images_NCHW = 0.4 * anatomy_NCHW.repeat_interleave(slices, dim=0)
    images_NCHW += 0.01 * torch.randn(images_NCHW.shape, generator=rng)
    names = [f"s{seed}p{number}" for number in range(patients)]
    return ImageSet(
        images_NCHW=images_NCHW.clamp(-1, 1),
        labels_N=torch.arange(patients).repeat_interleave(slices) % 2,
        ids=tuple(f"{name}/{level}" for name in names for level in range(slices)),
        patients=tuple(name for name in names for _ in range(slices)),
        classes=("a", "b"),
    )


def synthetic(images_NCHW: Tensor) -> ImageSet:
    count = len(images_NCHW)
    return ImageSet(
        images_NCHW=images_NCHW,
        labels_N=torch.arange(count) % 2,
        ids=tuple(f"synthetic/{index}" for index in range(count)),
        patients=("",) * count,
        classes=("a", "b"),
    )


def with_noise(images_NCHW: Tensor, *, std: float = 0.05) -> Tensor:
    return (images_NCHW + std * torch.randn(images_NCHW.shape, generator=generator(9))).clamp(-1, 1)


def coarse(images_NCHW: Tensor) -> Tensor:
    """Features that noise hardly changes."""
    return avg_pool2d(images_NCHW, 8).flatten(1)


def blind(images_NCHW: Tensor) -> Tensor:
    """Features in which every image is far from every other."""
    return 1e4 * images_NCHW.flatten(1)


def find(train: ImageSet, images: ImageSet) -> Copies:
    return find_copies(train, images, coarse, device=CPU)


@pytest.fixture(scope="module")
def train() -> ImageSet:
    return heart_set(40, seed=0)


@pytest.mark.parametrize("std", [0.0, 0.05, 0.1])
def test_copies_with_noise_are_found_among_patients_with_several_slices(train: ImageSet, std: float) -> None:
    found = find(train, synthetic(with_noise(train.images_NCHW, std=std)))
    assert found.rate_pixels == found.rate == 1.0


def test_leaving_out_only_the_image_itself_would_miss_them(train: ImageSet) -> None:
    each_its_own = replace(train, patients=train.ids)
    assert find(each_its_own, synthetic(with_noise(train.images_NCHW))).rate_pixels == 0.0


@pytest.mark.parametrize("orientation", [0, 2, 5])
def test_equal_images_of_two_patients_do_not_hide_copies(train: ImageSet, orientation: int) -> None:
    renamed = train.subset(torch.arange(2 * SLICES))
    twins = replace(
        train,
        images_NCHW=torch.cat([train.images_NCHW, turned(renamed.images_NCHW, orientation)]),
        labels_N=torch.cat([train.labels_N, renamed.labels_N]),
        ids=(*train.ids, *(f"{each} again" for each in renamed.ids)),
        patients=(*train.patients, *(f"{each} again" for each in renamed.patients)),
    )
    images = synthetic(with_noise(train.images_NCHW))
    found, alone = find(twins, images), find(train, images)
    assert (found.rate, found.rate_pixels, found.rate_features) == (1.0, 1.0, 1.0)
    assert found.pairs[0].threshold == pytest.approx(alone.pairs[0].threshold, rel=0.05)


def test_held_out_real_images_are_no_copies(train: ImageSet) -> None:
    found = find(train, heart_set(40, seed=1))
    assert found.rate is not None
    assert found.rate <= 0.05


@pytest.mark.parametrize("orientation", range(8))
def test_turned_copies_are_copies(train: ImageSet, orientation: int) -> None:
    found = find(train, synthetic(with_noise(turned(train.images_NCHW, orientation))))
    assert found.rate_pixels == 1.0
    for pair in found.pairs:
        assert np.abs(pair.images_2HW[0].astype(float) - pair.images_2HW[1]).mean() < 0.1 * 127.5


def test_the_rate_is_the_share_of_copies(train: ImageSet) -> None:
    others = heart_set(10, seed=2).images_NCHW
    copied = with_noise(train.images_NCHW[:30])
    assert find(train, synthetic(torch.cat([others, copied]))).rate_pixels == pytest.approx(30 / 80)


def test_the_rates_follow_their_definition_by_plain_loops() -> None:
    train, images = heart_set(20, seed=3, slices=2), heart_set(4, seed=4, slices=2)
    mixed = synthetic(torch.cat([images.images_NCHW, with_noise(train.images_NCHW[:3])]))

    def nearest_by_loops(image_HW: np.ndarray, patient: str) -> float:  # type: ignore[type-arg]
        return min(
            float(np.linalg.norm(image_HW - np.rot90(other_HW, quarter)))
            for original_HW, owner in zip(train.images_NCHW[:, 0].numpy(), train.patients, strict=True)
            if owner != patient
            for other_HW in (original_HW, original_HW[::-1])
            for quarter in range(4)
        )

    own = [nearest_by_loops(x, p) for x, p in zip(train.images_NCHW[:, 0].numpy(), train.patients, strict=True)]
    limit = float(np.quantile(own, 0.01))
    distances = [nearest_by_loops(image_HW, "") for image_HW in mixed.images_NCHW[:, 0].numpy()]
    found = find_copies(train, mixed, blind, device=CPU)
    assert found.rate_pixels == np.mean(np.array(distances) <= limit) > 0
    assert [pair.distance for pair in found.pairs] == pytest.approx(sorted(distances)[:5], rel=1e-5)
    assert [pair.threshold for pair in found.pairs] == pytest.approx([limit] * 5, rel=1e-5)


def test_the_larger_of_the_two_rates_counts(train: ImageSet) -> None:
    strong = synthetic(with_noise(train.images_NCHW, std=0.4))
    by_features = find(train, strong)
    assert (by_features.rate_pixels, by_features.rate_features, by_features.rate) == (0.0, 1.0, 1.0)
    assert {pair.space for pair in by_features.pairs} == {"features"}
    neither = find_copies(train, strong, blind, device=CPU)
    assert (neither.rate, {pair.space for pair in neither.pairs}) == (0.0, {"pixels"})


def test_the_five_closest_pairs_are_named_nearest_first(train: ImageSet) -> None:
    images = torch.cat([heart_set(10, seed=2).images_NCHW, train.images_NCHW[7:8], with_noise(train.images_NCHW[3:4])])
    pairs = find(train, synthetic(images)).pairs
    assert [(pair.synthetic, pair.training) for pair in pairs[:2]] == [
        ("synthetic/50", train.ids[7]),
        ("synthetic/51", train.ids[3]),
    ]
    assert pairs[0].distance == 0.0
    assert [pair.distance for pair in pairs] == sorted(pair.distance for pair in pairs)
    assert len({pair.synthetic for pair in pairs}) == 5
    for pair in pairs:
        assert (pair.images_2HW.shape, pair.images_2HW.dtype) == ((2, 32, 32), np.uint8)


def test_pictures_of_pairs_use_the_whole_range() -> None:
    train = heart_set(2, seed=0, slices=1)
    train.images_NCHW[0, 0, 0, :3] = torch.tensor([-1.0, 0.0, 1.0])
    pair = find(train, synthetic(train.images_NCHW[:1])).pairs[0]
    assert pair.images_2HW[0, 0, :3].tolist() == pair.images_2HW[1, 0, :3].tolist() == [0, 128, 255]


def test_with_one_patient_or_no_synthetic_images_the_rate_is_undefined(train: ImageSet) -> None:
    one = train.subset(torch.arange(SLICES))
    nothing = synthetic(train.images_NCHW[:0])
    twins = replace(one, images_NCHW=one.images_NCHW[:1].repeat(SLICES, 1, 1, 1), patients=one.ids)
    for found in (
        find(one, synthetic(train.images_NCHW)),
        find(twins, synthetic(train.images_NCHW)),
        find(train, nothing),
    ):
        assert (found.rate, found.rate_pixels, found.rate_features, found.pairs) == (None, None, None, ())


def test_images_of_another_size_are_refused(train: ImageSet) -> None:
    with pytest.raises(ValueError, match="images of one shape"):
        find(train, synthetic(train.images_NCHW[:, :, ::2, ::2]))


def test_the_eight_orientations_are_those_of_a_square() -> None:
    square_1CHW = torch.arange(9.0).reshape(1, 1, 3, 3)
    seen = {tuple(turned(square_1CHW, orientation).flatten().tolist()) for orientation in range(8)}
    transposed = square_1CHW.transpose(2, 3)
    expected = {
        tuple(image.flip(axes).flatten().tolist())
        for image, axes in itertools.product((square_1CHW, transposed), ((), (2,), (3,), (2, 3)))
    }
    assert seen == expected
    assert len(seen) == 8
    assert torch.equal(turned(square_1CHW, 0), square_1CHW)


@pytest.mark.parametrize("queries", [1, 3, 7, 512])
def test_the_nearest_reference_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch, queries: int) -> None:
    monkeypatch.setattr(copies, "_QUERIES", queries)
    rng = generator(0)
    queries_QD, references_ORD = torch.randn(20, 6, generator=rng), torch.randn(8, 15, 6, generator=rng)
    groups_Q, groups_R = torch.arange(20) % 5, torch.arange(15) % 4
    found = nearest(queries_QD, lambda each: references_ORD[each], query_groups_Q=groups_Q, reference_groups_R=groups_R)
    distance_OQR = torch.cdist(queries_QD.double()[None], references_ORD.double())
    distance_OQR[:, groups_Q[:, None] == groups_R] = torch.inf
    lowest_Q, place_Q = distance_OQR.permute(1, 0, 2).flatten(1).min(dim=1)
    torch.testing.assert_close(found.distance_Q, lowest_Q)
    assert torch.equal(found.orientation_Q * 15 + found.index_Q, place_Q)


def test_a_query_whose_group_owns_all_references_has_no_nearest() -> None:
    found = nearest(
        torch.zeros(2, 3),
        lambda orientation: torch.ones(4, 3),
        query_groups_Q=torch.tensor([0, 1]),
        reference_groups_R=torch.zeros(4, dtype=torch.int64),
    )
    assert found.distance_Q.tolist() == pytest.approx([torch.inf, 3**0.5])
