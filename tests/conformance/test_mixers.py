"""What every mixer keeps; a mixer joins by its line in the registry."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spaces.config import MIXERS as CONFIGS
from spaces.config import SYNTHETIC_MIXERS
from trainables.data.affine import affine
from trainables.data.image_set import ImageSet
from trainables.mixers.base import Batch
from trainables.mixers.registry import MIXERS, build
from trainables.seeding import generator

NAMES = sorted(MIXERS)


def image_set(count: int, *, seed: int, synthetic: bool) -> ImageSet:
    return ImageSet(
        images_NCHW=torch.rand(count, 1, 16, 16, generator=generator(seed)) * 2 - 1,
        labels_N=torch.arange(count) % 2,
        ids=tuple(f"{seed}/{index}" for index in range(count)),
        patients=("" if synthetic else "p",) * count,
        classes=("a", "b"),
    )


def epoch(name: str, *, count: int = 17, pool: int = 9, batch_size: int = 4, seed: int = 0) -> list[Batch]:
    real, synthetic = image_set(count, seed=1, synthetic=False), image_set(pool, seed=2, synthetic=True)
    mixer = build(CONFIGS[name]())
    return list(mixer.epoch(real, synthetic, batch_size=batch_size, augment=affine, rng=generator(seed)))


def digests() -> str:
    """One digest per mixer over an epoch's bytes."""
    lines = []
    for name in NAMES:
        hasher = hashlib.blake2b(digest_size=8)
        for batch in epoch(name):
            for tensor in (batch.images_NCHW, batch.targets_NK, *batch.views):
                hasher.update(tensor.numpy().tobytes())
        lines.append(f"{name} {hasher.hexdigest()}")
    return "\n".join(lines)


def test_every_configuration_has_its_mixer() -> None:
    assert set(MIXERS) == set(CONFIGS)


@pytest.mark.parametrize("name", NAMES)
def test_images_and_targets_are_in_range(name: str) -> None:
    for batch in epoch(name):
        assert batch.images_NCHW.dtype == batch.targets_NK.dtype == torch.float32
        assert batch.images_NCHW.shape[1:] == (1, 16, 16)
        assert torch.isfinite(batch.images_NCHW).all()
        assert batch.targets_NK.shape == (len(batch.images_NCHW), 2)
        assert batch.images_NCHW.abs().max() <= 1
        assert batch.targets_NK.min() >= 0
        torch.testing.assert_close(batch.targets_NK.sum(dim=1), torch.ones(len(batch.targets_NK)))


@pytest.mark.parametrize("name", NAMES)
def test_further_views_are_images_in_range_and_have_a_weight(name: str) -> None:
    for batch in epoch(name):
        assert bool(batch.views) == (batch.consistency > 0)
        for view_NCHW in batch.views:
            assert view_NCHW.dtype == torch.float32
            assert view_NCHW.shape == batch.images_NCHW.shape
            assert torch.isfinite(view_NCHW).all()
            assert view_NCHW.abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_real_image_takes_part_in_every_epoch(name: str) -> None:
    count = 12
    real, synthetic = (
        replace(
            image_set(count, seed=seed, synthetic=seed == 2),
            labels_N=torch.arange(count) + (seed - 1) * count,
            classes=tuple(str(index) for index in range(2 * count)),
        )
        for seed in (1, 2)
    )
    for seed in range(5):
        rng = generator(seed)
        batches = build(CONFIGS[name]()).epoch(real, synthetic, batch_size=4, augment=affine, rng=rng)
        weight_K = torch.cat([batch.targets_NK for batch in batches]).sum(dim=0)
        assert weight_K[:count].min() > 0
        assert (weight_K[count:].sum() > 0) == (name in SYNTHETIC_MIXERS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [2, 3, 4, 8, 64])
def test_no_batch_has_a_single_image_and_none_is_lost(name: str, batch_size: int) -> None:
    for count in range(2, 20):
        sizes = [len(batch.images_NCHW) for batch in epoch(name, count=count, pool=3, batch_size=batch_size)]
        assert min(sizes) >= 2
        assert max(sizes) <= batch_size + 1
        assert all(size == batch_size for size in sizes[:-1])
        assert sum(sizes) == (count + 3 if name == "blend" else count)


@pytest.mark.parametrize("name", NAMES)
def test_every_source_image_is_augmented_once(name: str) -> None:
    real, synthetic = image_set(17, seed=1, synthetic=False), image_set(9, seed=2, synthetic=True)
    seen: list[bytes] = []

    def spy(images: Tensor, rng: torch.Generator) -> Tensor:
        seen.extend(image.numpy().tobytes() for image in images)
        return images

    list(build(CONFIGS[name]()).epoch(real, synthetic, batch_size=4, augment=spy, rng=generator(0)))
    sets = (real, synthetic) if name in SYNTHETIC_MIXERS else (real,)
    assert sorted(seen) == sorted(image.numpy().tobytes() for each in sets for image in each.images_NCHW)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_another_epoch(name: str) -> None:
    assert not torch.equal(epoch(name, seed=0)[0].images_NCHW, epoch(name, seed=1)[0].images_NCHW)


@pytest.mark.parametrize("name", NAMES)
def test_the_sets_and_the_global_random_states_stay_as_they_are(name: str) -> None:
    real, synthetic = image_set(17, seed=1, synthetic=False), image_set(9, seed=2, synthetic=True)
    before = real.digest, synthetic.digest, torch.get_rng_state().tolist(), repr(np.random.get_state())
    list(build(CONFIGS[name]()).epoch(real, synthetic, batch_size=4, augment=affine, rng=generator(0)))
    after = real.digest, synthetic.digest, torch.get_rng_state().tolist(), repr(np.random.get_state())
    assert before == after


def test_the_same_seed_gives_the_same_bytes_also_in_a_fresh_process() -> None:
    fresh = subprocess.run(
        [sys.executable, "-c", f"import runpy; print(runpy.run_path({__file__!r})['digests']())"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert fresh.stdout.strip() == digests()
