from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from spaces import config as spaces_config
from spaces.config import ClassifierConfig
from trainables.classifiers.optimisation import SCHEDULES, cosine_decay, one_cycle, optimizer
from trainables.seeding import generator
from trainables.training.adam import set_rate


def test_every_configured_name_has_its_schedule_and_optimiser() -> None:
    assert set(SCHEDULES) == set(spaces_config.SCHEDULES)
    kinds = [
        type(optimizer(ClassifierConfig(optimizer=name), [nn.Parameter(torch.ones(1))]))
        for name in spaces_config.OPTIMIZERS
    ]
    assert kinds == [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adam, torch.optim.SGD]


def test_cosine_falls_from_all_to_nothing() -> None:
    assert cosine_decay(0.0) == 1
    assert cosine_decay(0.5) == pytest.approx(0.5)
    assert cosine_decay(1.0) == pytest.approx(0.0, abs=1e-12)
    assert SCHEDULES["cosine"](3, 12) == cosine_decay(0.25)


def test_constant_stays() -> None:
    assert {SCHEDULES["constant"](step, 7) for step in range(7)} == {1.0}


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 10, 37, 200])
def test_one_cycle_is_pytorchs(steps: int) -> None:
    sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=0.1, total_steps=steps, cycle_momentum=False)
    for step in range(steps):
        assert 0.1 * one_cycle(step, steps) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9)
        sgd.step()
        if step + 1 < steps:
            schedule.step()


GRADIENTS = (0.3, -1.2, 0.7)


def moved(name: str, *, decay: float) -> float:
    """Where a weight of 2 ends after three steps."""
    weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    moving = optimizer(ClassifierConfig(optimizer=name, learning_rate=0.1, weight_decay=decay), [weight])
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        moving.step()
    return weight.item()


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_rmsprop_is_that_of_keras(decay: float) -> None:
    """a <- .9 a + .1 g^2; w <- w - lr g / (sqrt(a) + 1e-7)."""
    weight, average = 2.0, 0.0
    for gradient in GRADIENTS:
        gradient += decay * weight
        average = 0.9 * average + 0.1 * gradient**2
        weight -= 0.1 * gradient / (math.sqrt(average) + 1e-7)
    assert moved("rmsprop", decay=decay) == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_sgd_has_a_momentum_of_nine_tenths(decay: float) -> None:
    weight, velocity = 2.0, 0.0
    for gradient in GRADIENTS:
        velocity = 0.9 * velocity + gradient + decay * weight
        weight -= 0.1 * velocity
    assert moved("sgd", decay=decay) == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize(("name", "decoupled"), [("adam", False), ("adamw", True)])
def test_adam_penalises_weights_and_adamw_decays_them(name: str, decoupled: bool) -> None:
    weight, mean, square, decay = 2.0, 0.0, 0.0, 0.05
    for step, gradient in enumerate(GRADIENTS, start=1):
        if decoupled:
            weight -= 0.1 * decay * weight
        else:
            gradient += decay * weight
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        weight -= 0.1 * (mean / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.999**step)) + 1e-8)
    assert moved(name, decay=decay) == pytest.approx(weight, rel=1e-9)


@pytest.mark.parametrize("name", spaces_config.OPTIMIZERS)
def test_every_optimiser_goes_downhill(name: str) -> None:
    centre: Tensor = torch.randn(5, generator=generator(0))
    weight = nn.Parameter(torch.zeros(5))
    moving = optimizer(ClassifierConfig(optimizer=name, learning_rate=0.02, weight_decay=0.0), [weight])
    for _ in range(300):
        moving.zero_grad()
        (weight - centre).square().sum().backward()
        moving.step()
    torch.testing.assert_close(weight.detach(), centre, atol=0.05, rtol=0)


@pytest.mark.parametrize("name", spaces_config.OPTIMIZERS)
def test_the_rate_that_is_set_is_that_of_the_next_step(name: str) -> None:
    ended = []
    for rate in (0.1, 0.5):
        weight = nn.Parameter(torch.tensor(2.0))
        moving = optimizer(ClassifierConfig(optimizer=name, learning_rate=0.5, weight_decay=0.0), [weight])
        set_rate(moving, rate)
        weight.grad = torch.tensor(1.0)
        moving.step()
        ended.append(2 - weight.item())
    assert ended[1] == pytest.approx(5 * ended[0], rel=1e-4)


def test_a_rate_that_lies_on_the_device_is_set_in_its_place() -> None:
    rate = torch.tensor(0.5)
    moving = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=rate, fused=True)
    set_rate(moving, 0.25)
    assert moving.param_groups[0]["lr"] is rate
    assert rate.item() == 0.25


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_fused_step_is_the_plain_one(name: str) -> None:
    start = torch.randn(33, 7, generator=generator(1))
    weights = [nn.Parameter(start.clone()) for _ in range(2)]
    config = ClassifierConfig(optimizer=name, learning_rate=1e-2, weight_decay=0.1)
    fused, plain = (optimizer(config, [weight]) for weight in weights)
    plain.param_groups[0].update(fused=False, foreach=False)
    for step in range(5):
        for weight, moving in zip(weights, (fused, plain), strict=True):
            weight.grad = torch.randn(33, 7, generator=generator(2, str(step)))
            moving.step()
    assert (weights[0] - start).abs().mean() > 1e-2
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-5)
