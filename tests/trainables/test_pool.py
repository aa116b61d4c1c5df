"""Which synthetic images a trial takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spaces.config import SyntheticConfig, TrialConfig
from trainables import pool
from trainables.data.splits import make_folds
from trainables.environment import Environment
from trainables.errors import EmptyPoolError
from trainables.fold_stages import FoldStages


@pytest.mark.parametrize(
    ("counts", "ratio", "balance", "expected"),
    [
        ((60, 40), 1.0, False, (60, 40)),
        ((60, 40), 0.5, False, (30, 20)),
        ((2, 1), 0.5, False, (1, 1)),
        ((7, 5, 3), 1 / 3, False, (2, 2, 1)),
        ((60, 40), 0.1, True, (0, 10)),
        ((60, 40), 0.4, True, (10, 30)),
        ((10, 20, 60), 0.5, True, (28, 17, 0)),
        ((10, 10), 0.05, True, (1, 0)),
    ],
)
def test_shares_keep_proportions_or_fill_the_smallest_classes_first(
    counts: tuple[int, ...], ratio: float, balance: bool, expected: tuple[int, ...]
) -> None:
    assert pool.shares(counts, SyntheticConfig(ratio=ratio, balance=balance)) == expected
    assert sum(expected) == round(ratio * sum(counts))


@pytest.mark.parametrize("balance", [False, True])
def test_a_ratio_that_gives_no_image_is_refused(balance: bool) -> None:
    with pytest.raises(EmptyPoolError) as raised:
        pool.shares((10, 10), SyntheticConfig(ratio=0.02, balance=balance))
    assert str(raised.value) == (
        "synthetic.ratio is 0.02, of 20 real training images, which gives no synthetic image; expected at least one. "
        "Raise synthetic.ratio, to 0.05 for one image."
    )


def test_a_share_of_no_image_is_refused_before_a_generator_is_trained(
    environment: Environment, tiny_trial: Callable[..., TrialConfig]
) -> None:
    config = tiny_trial(mixer__name="genmix", generator__name="dcgan", synthetic__ratio=0.001)
    stages = FoldStages(config, make_folds(environment.cohort, folds=3, seed=0)[0], environment)
    with pytest.raises(EmptyPoolError, match=r"synthetic\.ratio is 0\.001"):
        stages.train()
    assert [record.name for record in stages.records] == ["preprocess"]


def test_a_smaller_ratio_takes_the_first_images_of_a_larger_one(tmp_path: Path) -> None:
    def folder(label: int, start: int) -> Path:
        made = tmp_path / f"{label}-{start}"
        made.mkdir(exist_ok=True)
        pool.write_chunk(made, Counting(), label, start, seed=0)
        return made

    few, many = (3, 0), (300, 5)
    images = {
        counts: pool.take([folder(*chunk) for chunk in pool.chunks(counts)], counts, ("a", "b"))
        for counts in (few, many)
    }
    assert images[many].counts == many
    assert torch.equal(images[few].images_NCHW, images[many].images_NCHW[:3])
    assert images[many].ids[299] == "synthetic/a/000299"
    assert float(images[many].images_NCHW[299].mean()) == pytest.approx(299 / 1000)


class Counting:
    """Image i of class c is filled with (i + 500 c) / 1000."""

    history: dict[str, list[float]] = {}  # noqa: RUF012

    def sample(self, class_index: int, start: int, count: int, *, seed: int) -> Tensor:
        values = (torch.arange(start, start + count, dtype=torch.float32) + 500 * class_index) / 1000
        return values[:, None, None, None].expand(count, 1, 4, 4).contiguous()

    def state(self) -> dict[str, Tensor]:
        return {}
