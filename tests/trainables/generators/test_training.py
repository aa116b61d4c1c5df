"""Batches, curves and the acceptance of what was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from spaces.generators import DcganConfig, DiffusionConfig
from tests.trainables.generators import whole_trainings
from trainables.data.image_set import ImageSet
from trainables.errors import DataError, DivergedError
from trainables.generators.acceptance import check_images, check_preview, displacement, spread
from trainables.generators.curves import CHECKED_EVERY, Curves, check_contest
from trainables.generators.dcgan import Dcgan
from trainables.generators.diffusion import Diffusion
from trainables.generators.fitted import FittedNetworks
from trainables.generators.networks.dcgan import DcganGenerator, create
from trainables.generators.networks.denoiser import DiffusionNetwork
from trainables.generators.previews import is_due
from trainables.generators.settling import settle
from trainables.generators.training import Deck, affine_set
from trainables.training import loop

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 12) -> ImageSet:
    pixels_NCHW = (0.5 + 0.3 * torch.randn(count, 1, 32, 32, generator=rng())).clamp(-1, 1)
    names = tuple(f"image{index}" for index in range(count))
    return ImageSet(
        images_NCHW=pixels_NCHW, labels_N=torch.arange(count) % 2, ids=names, patients=names, classes=("liver", "mass")
    )


class Fixed(FittedNetworks):
    """A fitted generator whose images are given."""

    def __init__(self, pools: tuple[Tensor, ...]) -> None:
        super().__init__(networks={}, seen=(True,) * len(pools), per_class=False, history={})
        self._pools = pools

    def sample(self, class_index: int, start: int, count: int, *, seed: int) -> Tensor:
        return self._pools[class_index][start : start + count]


def test_every_image_is_dealt_once_before_any_is_dealt_again() -> None:
    deck = Deck(10, rng=rng())
    dealt = torch.cat([deck.deal(4) for _ in range(5)])
    assert sorted(dealt[:10].tolist()) == list(range(10))
    assert sorted(dealt[10:].tolist()) == list(range(10))
    assert dealt[:10].tolist() != dealt[10:].tolist()


def test_a_batch_may_be_larger_than_the_training_set() -> None:
    assert sorted(Deck(3, rng=rng()).deal(7).tolist())[0] == 0


def test_curves_keep_scalars_and_vectors() -> None:
    curves = Curves("loss", "fitness")
    for step in range(CHECKED_EVERY + 3):
        curves.record(torch.tensor(float(step)), torch.tensor([step, -step]))
    recorded = curves.lists()
    assert recorded["loss"] == [float(step) for step in range(CHECKED_EVERY + 3)]
    assert recorded["fitness"][2] == [2.0, -2.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_found_and_named(value: float) -> None:
    curves = Curves("loss")
    curves.record(torch.tensor(value))
    with pytest.raises(DivergedError, match=r"the training diverged: loss was (nan|inf)"):
        curves.lists()


def test_a_number_that_is_not_finite_ends_a_long_training_early() -> None:
    curves = Curves("loss")
    with pytest.raises(DivergedError, match=r"loss was nan in step 4"):
        for step in range(CHECKED_EVERY):
            curves.record(torch.tensor(1.0 if step < 3 else float("nan")))


def test_the_reason_of_a_failure_does_not_depend_on_when_a_checkpoint_was_written() -> None:
    curves = Curves("loss")
    curves.record(torch.tensor(1.0))
    curves.state()
    curves.record(torch.tensor(2.0))
    curves.record(torch.tensor(float("inf")))
    with pytest.raises(DivergedError, match=r"loss was inf in step 3"):
        curves.state()


def test_images_that_are_not_numbers_end_as_a_recorded_failure() -> None:
    train = images()
    broken = dataclasses.replace(train, images_NCHW=torch.full_like(train.images_NCHW, float("nan")))
    config = DcganConfig(steps=2, batch_size=4, width=4, latent_size=4)
    with pytest.raises(DivergedError, match="discriminator_loss was nan"):
        whole_trainings.fit(Dcgan(config), 2, broken, seed=0, device=CPU, on_step=lambda done, total: None)


def test_no_images_at_all_are_refused() -> None:
    empty = images().subset(torch.empty(0, dtype=torch.int64))
    with pytest.raises(DataError, match="the training fold has no images"):
        Dcgan(DcganConfig(steps=1)).begin(empty, seed=0, device=CPU)


def test_a_collapsed_pool_is_refused_and_its_class_named() -> None:
    train = images(200)
    alike_NCHW = train.images_NCHW[:1] + 0.001 * torch.randn(64, 1, 32, 32, generator=rng(1))
    with pytest.raises(DivergedError, match=r"all alike: at the end, those of class 'mass' differ by 0\.001"):
        check_images(Fixed((train.images_NCHW[:64], alike_NCHW)), train, steps=1, batch_size=8, seed=0)


def test_a_pool_of_noise_is_refused_after_a_training_of_some_length() -> None:
    train = images(200)
    noise_NCHW = 0.3 * torch.randn(64, 1, 32, 32, generator=rng(2))
    fitted = Fixed((noise_NCHW, noise_NCHW))
    check_images(fitted, train, steps=799, batch_size=4, seed=0)
    with pytest.raises(DivergedError, match="the generator makes noise: after 800 steps, its mean"):
        check_images(fitted, train, steps=800, batch_size=4, seed=0)


def test_a_training_is_not_judged_by_a_sampling_that_its_trials_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    def black(self: nn.Module, noise_NM: Tensor, labels_N: Tensor) -> Tensor:
        return torch.full((len(noise_NM), 1, 32, 32), -1.0)

    monkeypatch.setattr(DiffusionNetwork, "forward", black)
    sampled_by_trials = Diffusion(DiffusionConfig(width=4, batch_size=2)).begin(images(), seed=0, device=CPU)
    for _ in range(200):
        sampled_by_trials.step()
    assert float(sampled_by_trials.fitted().sample(0, 0, 2, seed=0).max()) == -1.0
    monkeypatch.setattr(DcganGenerator, "forward", black)
    sampled_alike = Dcgan(DcganConfig(width=4, latent_size=4)).begin(images(), seed=0, device=CPU)
    with pytest.raises(DivergedError, match="all alike: at the end"):
        sampled_alike.fitted()


def test_a_discriminator_that_has_won_is_found() -> None:
    won, contested = [1.0] * 300 + [1e-5] * 100, [1e-5] * 300 + [0.1] * 100
    check_contest({"discriminator_loss": contested})
    check_contest({"discriminator_loss": [1e-5] * 99})
    with pytest.raises(DivergedError, match=r"the discriminator has won .* over the last 100 of 400 steps"):
        check_contest({"discriminator_loss": won})


def test_a_discriminator_that_finds_no_child_likely_to_be_real_has_won() -> None:
    doubted, believed = [[1e-5]] * 400, [[0.2]] * 400
    curves = {"discriminator_loss": [0.5] * 400, "quality/minimax": doubted, "quality/heuristic": believed}
    check_contest(curves)
    with pytest.raises(DivergedError, match=r"the discriminator has won"):
        check_contest({**curves, "quality/heuristic": doubted})


def test_a_discriminator_that_has_won_ends_a_long_training_early() -> None:
    curves = Curves("discriminator_loss")
    with pytest.raises(DivergedError, match=r"over the last 100 of 100 steps"):
        for _ in range(5000):
            curves.record(torch.tensor(1e-6))


def test_images_all_alike_at_two_looks_in_a_row_end_a_training() -> None:
    train = images(200)
    alike = {0: train.images_NCHW[:16], 1: train.images_NCHW[:1].expand(16, -1, -1, -1)}
    assert check_preview({0: alike[0]}, train, steps=100, were_alike=frozenset({0})) == frozenset()
    assert check_preview(alike, train, steps=100, were_alike=frozenset()) == {1}
    assert check_preview(alike, train, steps=100, were_alike=frozenset({0})) == {1}
    lost = {1: torch.full_like(alike[1], float("nan"))}
    assert check_preview(lost, train, steps=100, were_alike=frozenset()) == {1}
    with pytest.raises(DivergedError, match=r"all alike: after 200 steps, those of class 'mass' differ by 0\.0000"):
        check_preview(alike, train, steps=200, were_alike=frozenset({1}))


def test_looks_come_ever_more_rarely_whatever_the_length() -> None:
    assert [step for step in range(2000) if is_due(step)] == [0, 25, 50, 100, 200, 400, 800, 1600]


def test_the_affine_set_has_the_originals_first_and_new_copies_after_them() -> None:
    train = images(6)
    expanded = affine_set(train.images_NCHW, copies=2, rng=rng())
    assert expanded.shape == (18, 1, 32, 32)
    assert torch.equal(expanded[:6], train.images_NCHW)
    assert not torch.equal(expanded[6:12], train.images_NCHW)
    assert not torch.equal(expanded[6:12], expanded[12:])


def test_a_checkpoint_is_written_whenever_the_time_has_come_not_by_steps() -> None:
    class Kept:
        def __init__(self) -> None:
            self.done: list[int] = []

        def latest(self, steps: int) -> None:
            return None

        def save(self, state: Mapping[str, Tensor]) -> None:
            self.done.append(int(state["done"]))

    ticks = iter([0.0, 30.0, 59.0, 61.0, 61.0, 100.0, 130.0, 130.0, 140.0])
    training = Dcgan(DcganConfig(batch_size=4, width=4, latent_size=4)).begin(images(), seed=0, device=CPU)
    kept = Kept()
    loop.advance(training, 6, on_step=lambda done, total: None, checkpoints=kept, every=60.0, clock=lambda: next(ticks))
    assert kept.done == [3, 5]


def test_real_images_are_accepted() -> None:
    train = images(200)
    check_images(Fixed((train.images_NCHW[:64], train.images_NCHW[64:128])), train, steps=500, batch_size=32, seed=0)


def test_identical_real_images_may_be_generated() -> None:
    train = images(2)
    alike = tuple(train.images_NCHW[index : index + 1].expand(64, -1, -1, -1) for index in (0, 1))
    check_images(Fixed(alike), train, steps=500, batch_size=32, seed=0)


def test_spread_and_displacement_are_relative_to_what_they_say() -> None:
    real_NCHW = torch.tensor([-0.5, 0.5])[:, None, None, None].expand(2, 1, 4, 4)
    assert spread(real_NCHW) == pytest.approx(0.5)
    assert spread(real_NCHW[:1]) == 0
    assert displacement(real_NCHW, real_NCHW) == 0
    assert displacement(real_NCHW + 0.25, real_NCHW) == pytest.approx(0.5)


def test_settled_statistics_are_those_of_the_final_weights() -> None:
    network = create(lambda: DcganGenerator(pixels=32, latent_size=8, width=4, n_classes=2), rng=rng(), device=CPU)
    labels_N = torch.arange(512) % 2
    latents_NL = torch.randn(512, 8, generator=rng(1))
    with torch.no_grad():
        batch_NCHW = network.train()(latents_NL, labels_N)
        settle(network, images().labels_N, rng=rng(2))
        assert not network.training
        assert float((network(latents_NL, labels_N) - batch_NCHW).abs().mean()) < 0.05 * float(batch_NCHW.std())
    assert [m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)] == [None] * 3
