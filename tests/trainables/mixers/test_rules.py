"""The rules of the single mixers, on images that say which they are: image i is 1 at pixel i and 0 elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spaces.config import (
    AugmixConfig,
    BlendConfig,
    CutmixConfig,
    GenMixConfig,
    MixerConfig,
    MixupConfig,
    RealConfig,
)
from trainables.data.affine import affine, identity
from trainables.data.image_set import ImageSet
from trainables.errors import DataError, EmptyPoolError
from trainables.mixers.genmix import draw_partners
from trainables.mixers.registry import MIXER_VERSION, build
from trainables.seeding import generator

REAL, SYNTHETIC = 21, 30
WEIGHT = 0.25


def unit_images(start: int, count: int, *, synthetic: bool = False) -> ImageSet:
    return ImageSet(
        images_NCHW=torch.eye(64)[start : start + count].reshape(count, 1, 8, 8),
        labels_N=torch.arange(count) % 3,
        ids=tuple(f"{start + index}" for index in range(count)),
        patients=("" if synthetic else "p",) * count,
        classes=("a", "b", "c"),
    )


def epoch(  # type: ignore[no-untyped-def]
    config: MixerConfig, *, seed: int = 0, batch_size: int = 4, augment=identity, pool: int = SYNTHETIC
) -> tuple[Tensor, Tensor]:
    """Pixels (N, 64) and targets of one epoch."""
    real, synthetic = unit_images(0, REAL), unit_images(REAL, pool, synthetic=True)
    batches = list(build(config).epoch(real, synthetic, batch_size=batch_size, augment=augment, rng=generator(seed)))
    images = torch.cat([batch.images_NCHW for batch in batches])
    return images.reshape(len(images), 64), torch.cat([batch.targets_NK for batch in batches])


@pytest.fixture
def constant_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(alpha: float, count: int, *, rng: torch.Generator) -> Tensor:
        return torch.full((count,), WEIGHT)

    monkeypatch.setattr("trainables.mixers.genmix.beta_one", constant)
    monkeypatch.setattr("trainables.mixers.mixup.beta_symmetric", constant)


def test_real_visits_each_real_image_once_and_no_synthetic_one() -> None:
    pixels, targets = epoch(RealConfig())
    assert sorted(pixels.argmax(dim=1).tolist()) == list(range(REAL))
    assert torch.equal(targets.argmax(dim=1), pixels.argmax(dim=1) % 3)


def test_blend_visits_each_real_and_each_synthetic_image_once_and_mixes_their_order() -> None:
    pixels, _ = epoch(BlendConfig())
    order = pixels.argmax(dim=1).tolist()
    assert sorted(order) == list(range(REAL + SYNTHETIC))
    assert set(order[:REAL]) != set(range(REAL))


def test_the_order_of_an_epoch_is_random() -> None:
    orders = [tuple(epoch(RealConfig(), seed=seed)[0].argmax(dim=1).tolist()) for seed in range(3)]
    assert len(set(orders)) == 3
    assert tuple(range(REAL)) not in orders


@pytest.mark.usefixtures("constant_weight")
def test_genmix_gives_lambda_to_the_partner_and_the_rest_to_the_real_image() -> None:
    pixels, targets = epoch(GenMixConfig())
    real, partner = pixels[:, :REAL], pixels[:, REAL:]
    met_synthetic = partner.sum(dim=1) > 0
    assert met_synthetic.any()
    torch.testing.assert_close(
        partner[met_synthetic].max(dim=1).values, torch.full((int(met_synthetic.sum()),), WEIGHT)
    )
    torch.testing.assert_close(
        real[met_synthetic].max(dim=1).values, torch.full((int(met_synthetic.sum()),), 1 - WEIGHT)
    )
    for row, target in zip(pixels, targets, strict=True):
        expected = torch.zeros(3)
        for pixel in row.nonzero().flatten().tolist():
            label = pixel % 3 if pixel < REAL else (pixel - REAL) % 3
            expected[label] += row[pixel]
        torch.testing.assert_close(target, expected)


@pytest.mark.usefixtures("constant_weight")
@pytest.mark.parametrize("pool", [1, 8, 21, 30])
def test_genmix_with_synthetic_partners_meets_each_as_often_as_any_other(pool: int) -> None:
    pixels, _ = epoch(GenMixConfig(partner="synthetic"), pool=pool)
    torch.testing.assert_close(pixels[:, :REAL].sum(dim=0), torch.full((REAL,), 1 - WEIGHT))
    torch.testing.assert_close(pixels[:, REAL:].sum(dim=1), torch.full((REAL,), WEIGHT))
    met = pixels[:, REAL : REAL + pool].sum(dim=0) / WEIGHT
    assert met.sum().item() == pytest.approx(REAL)
    assert set(met.round().int().tolist()) <= {REAL // pool, -(-REAL // pool)}


def test_partners_are_uniform_and_their_order_is_random_also_beyond_one_round() -> None:
    rng = generator(0)
    partner_MN = torch.stack([draw_partners(7, 3, rng=rng) for _ in range(6000)])
    shares = torch.stack([torch.bincount(column, minlength=3) for column in partner_MN.T]) / 6000
    assert (shares - 1 / 3).abs().max() < 0.03


@pytest.mark.usefixtures("constant_weight")
@pytest.mark.parametrize("config", [MixupConfig(), GenMixConfig(), GenMixConfig(partner="synthetic")])
def test_each_real_image_takes_part_once_with_one_partner(config: MixerConfig) -> None:
    pixels, _ = epoch(config)
    strongest, position = pixels.max(dim=1)
    assert sorted(position.tolist()) == list(range(REAL))
    assert strongest.min() >= 1 - WEIGHT
    assert all(1 <= len(row.nonzero()) <= 2 for row in pixels)


@pytest.mark.usefixtures("constant_weight")
def test_mixup_partners_are_a_permutation_of_the_real_images() -> None:
    pixels, _ = epoch(MixupConfig())
    torch.testing.assert_close(pixels[:, :REAL].sum(dim=0), torch.ones(REAL))
    assert pixels[:, REAL:].sum() == 0


@pytest.mark.usefixtures("constant_weight")
def test_genmix_partners_are_uniform_over_synthetic_and_real_images() -> None:
    epochs = 400
    total = sum(epoch(GenMixConfig(), seed=seed)[0].sum(dim=0) for seed in range(epochs))
    assert isinstance(total, Tensor)
    visits = torch.cat([total[:REAL] - epochs * (1 - WEIGHT), total[REAL : REAL + SYNTHETIC]]) / WEIGHT
    share = REAL / (REAL + SYNTHETIC)
    error = (epochs * share * (1 - share)) ** 0.5
    assert (visits - epochs * share).abs().max() < 4 * error


@pytest.mark.usefixtures("constant_weight")
@pytest.mark.parametrize("config", [MixupConfig(), GenMixConfig()])
def test_sources_are_augmented_before_they_are_mixed(config: MixerConfig) -> None:
    pixels, _ = epoch(config, augment=lambda images, rng: 0.5 * images**2)
    values = {round(value, 4) for value in pixels.flatten().tolist()}
    assert values <= {0.0, 0.5, 0.5 * WEIGHT, 0.5 * (1 - WEIGHT)}


@pytest.mark.parametrize("config", [BlendConfig(), GenMixConfig()])
@pytest.mark.parametrize("pool", [None, unit_images(REAL, 0, synthetic=True)])
def test_an_empty_pool_is_an_error_at_once(config: MixerConfig, pool: ImageSet | None) -> None:
    with pytest.raises(EmptyPoolError, match=f"mixer.name={config.name}"):
        build(config).epoch(unit_images(0, REAL), pool, batch_size=4, augment=identity, rng=generator(0))


def test_sets_of_other_classes_are_not_mixed() -> None:
    real = unit_images(0, REAL)
    other = ImageSet(
        images_NCHW=real.images_NCHW,
        labels_N=real.labels_N,
        ids=real.ids,
        patients=real.patients,
        classes=("x", "y", "z"),
    )
    with pytest.raises(ValueError, match="same classes"):
        build(BlendConfig()).epoch(real, other, batch_size=4, augment=identity, rng=generator(0))


class Elsewhere:
    """Images without values on PyTorch's device for such, which refuses to compute with tensors of the CPU."""

    def __init__(self, count: int) -> None:
        self.images_NCHW = torch.empty(count, 1, 8, 8, device="meta")
        self.labels_N = torch.empty(count, dtype=torch.int64, device="meta")
        self.classes = ("a", "b", "c")

    def __len__(self) -> int:
        return len(self.images_NCHW)


@pytest.mark.parametrize(
    "config",
    [RealConfig(), BlendConfig(), MixupConfig(), CutmixConfig(), GenMixConfig(), GenMixConfig(partner="synthetic")],
)
def test_an_epoch_is_composed_on_the_device_of_its_images(config: MixerConfig) -> None:
    batches = build(config).epoch(
        Elsewhere(REAL),  # type: ignore[arg-type]
        Elsewhere(SYNTHETIC),  # type: ignore[arg-type]
        batch_size=4,
        augment=affine,
        rng=generator(0),
    )
    assert {each.device.type for batch in batches for each in (batch.images_NCHW, batch.targets_NK)} == {"meta"}


def test_a_single_training_image_is_an_error() -> None:
    mixer = build(RealConfig())
    with pytest.raises(DataError, match="at least 2 training images; got 1"):
        list(mixer.epoch(unit_images(0, 1), None, batch_size=4, augment=identity, rng=generator(0)))


GOLDEN: dict[str, list[float]] = {
    "real": [12.0, 13.0, 16.0, 5.0],
    "blend": [9.0, 43.0, 22.0, 41.0],
    "mixup": [13.3843, 19.9993, 16.0546, 5.0],
    "cutmix": [0.0, 13.0, 33.0, 5.0],
    "augmix": [14.3267, 11.091, 11.3603, -507.3092],
    "genmix": [11.7786, 13.149, 15.7292, 5.5651],
    "genmix synthetic": [28.1681, 19.7965, 21.0746, 21.3687],
}
"""Four first samples of an epoch, as the mean position of their pixels; of AugMix, one augmented version of each."""


@pytest.mark.parametrize("name", GOLDEN)
def test_the_batches_of_this_version_are_unchanged(name: str) -> None:
    """Where this fails on purpose, raise MIXER_VERSION and write the new numbers here."""
    assert MIXER_VERSION == 1
    config = {
        "real": RealConfig(),
        "blend": BlendConfig(),
        "mixup": MixupConfig(),
        "cutmix": CutmixConfig(),
        "augmix": AugmixConfig(js_weight=0.0),
        "genmix": GenMixConfig(),
        "genmix synthetic": GenMixConfig(partner="synthetic"),
    }[name]
    pixels, _ = epoch(config, seed=7)
    ramp = torch.arange(64.0)
    assert (pixels[:4] @ ramp).tolist() == pytest.approx(GOLDEN[name], rel=1e-4, abs=1e-4)
