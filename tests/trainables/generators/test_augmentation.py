"""DiffAugment and ADA: what they do to images, that they can be differentiated twice, and ADA's controller."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainables.generators.augmentation import (
    ADJUSTED_EVERY,
    SAFE_PROBABILITY,
    AdaController,
    apply_ada,
    apply_diffaugment,
    draw_ada,
    draw_diffaugment,
    resample,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 4, pixels: int = 16, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, pixels, pixels, generator=rng(seed), dtype=torch.float64) * 2 - 1


def augmented(seed: int) -> Tensor:
    return apply_diffaugment(images(), draw_diffaugment(4, 16, rng=rng(seed)))


def by_loops(image_HW: Tensor, brightness: float, contrast: float, shift: list[int], corner: list[int]) -> Tensor:
    """DiffAugment of one image, pixel by pixel, after the text of Zhao et al. 2020."""
    pixels = len(image_HW)
    coloured_HW = image_HW + brightness
    coloured_HW = (coloured_HW - coloured_HW.mean()) * contrast + coloured_HW.mean()
    out_HW = torch.zeros_like(image_HW)
    for row in range(pixels):
        for column in range(pixels):
            read_row, read_column = row + shift[0], column + shift[1]
            inside = 0 <= read_row < pixels and 0 <= read_column < pixels
            cut = 0 <= row - corner[0] < pixels // 2 and 0 <= column - corner[1] < pixels // 2
            if inside and not cut:
                out_HW[row, column] = coloured_HW[read_row, read_column]
    return out_HW


def test_diffaugment_is_brightness_contrast_translation_and_cutout() -> None:
    images_NCHW, draws = images(), draw_diffaugment(4, 16, rng=rng())
    expected_NHW = torch.stack(
        [
            by_loops(image, float(brightness), float(contrast), shift.tolist(), corner.tolist())
            for image, brightness, contrast, shift, corner in zip(
                images_NCHW[:, 0],
                draws["brightness_N"],
                draws["contrast_N"],
                draws["shifts_N2"],
                draws["corners_N2"],
                strict=True,
            )
        ]
    )
    assert torch.allclose(apply_diffaugment(images_NCHW, draws)[:, 0], expected_NHW, atol=1e-12)


def test_diffaugments_draws_fill_the_published_ranges() -> None:
    draws = draw_diffaugment(4000, 32, rng=rng())
    assert -0.5 <= float(draws["brightness_N"].min()) < -0.49 < 0.49 < float(draws["brightness_N"].max()) < 0.5
    assert 0.5 <= float(draws["contrast_N"].min()) < 0.51 < 1.49 < float(draws["contrast_N"].max()) < 1.5
    assert sorted(set(draws["shifts_N2"].flatten().tolist())) == list(range(-4, 5))
    assert sorted(set(draws["corners_N2"].flatten().tolist())) == list(range(-8, 25))


def test_the_same_draws_augment_two_batches_alike() -> None:
    draws = draw_diffaugment(4, 16, rng=rng())
    left_NCHW, right_NCHW = images(seed=1), images(seed=2)
    both_NCHW = apply_diffaugment(left_NCHW + right_NCHW, draws) - apply_diffaugment(right_NCHW, draws)
    without_NCHW = apply_diffaugment(left_NCHW, draws) - apply_diffaugment(torch.zeros_like(left_NCHW), draws)
    assert torch.allclose(both_NCHW, without_NCHW, atol=1e-12)


def test_diffaugment_draws_from_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two = augmented(3), augmented(3)
    assert torch.equal(one, two)
    assert not torch.equal(one, augmented(4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", ["diffaugment", "ada"])
def test_augmentations_have_first_and_second_derivatives(method: str) -> None:
    pixels = 4

    def augmented(images_NCHW: Tensor) -> Tensor:
        if method == "diffaugment":
            return apply_diffaugment(images_NCHW, draw_diffaugment(2, pixels, rng=rng())).tanh()
        return apply_ada(images_NCHW, draw_ada(2, pixels, probability=1.0, rng=rng())).tanh()

    images_NCHW = images(2, pixels).requires_grad_()
    assert torch.autograd.gradcheck(augmented, images_NCHW)
    assert torch.autograd.gradgradcheck(augmented, images_NCHW)


def test_resampling_agrees_with_torchs_grid_sample() -> None:
    images_NCHW = images(6, 12)
    draws = draw_ada(6, 12, probability=1.0, rng=rng(5))
    # From pixels to grid_sample's coordinates, in which the outermost pixels' centres lie at -1 and 1.
    half = (12 - 1) / 2
    theta_N23 = draws["matrices_N33"][:, :2].clone()
    theta_N23[:, :, 2] /= half
    grid_NHW2 = functional.affine_grid(theta_N23, [6, 1, 12, 12], align_corners=True)
    expected_NCHW = functional.grid_sample(images_NCHW, grid_NHW2, padding_mode="reflection", align_corners=True)
    assert torch.allclose(resample(images_NCHW, draws["matrices_N33"]), expected_NCHW, atol=1e-9)


def test_resampling_adds_up_in_the_same_order_with_any_number_of_threads() -> None:
    images_NCHW = images(64, 32).float().requires_grad_()
    matrices_N33 = draw_ada(64, 32, probability=1.0, rng=rng())["matrices_N33"]
    weights_NCHW = images(64, 32, seed=7).float()
    threads, gradients = torch.get_num_threads(), []
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        gradients.append(torch.autograd.grad((resample(images_NCHW, matrices_N33) * weights_NCHW).sum(), images_NCHW))
    torch.set_num_threads(threads)
    assert all(torch.equal(gradient[0], gradients[0][0]) for gradient in gradients)


def test_ada_without_probability_leaves_images_as_they_are() -> None:
    assert torch.equal(apply_ada(images(), draw_ada(4, 16, probability=0.0, rng=rng())), images())


def test_ada_draws_as_many_numbers_whatever_the_probability() -> None:
    never, always = rng(), rng()
    draw_ada(5, 16, probability=0.0, rng=never)
    draw_ada(5, 16, probability=1.0, rng=always)
    assert torch.equal(never.get_state(), always.get_state())


@pytest.mark.parametrize("probability", [0.2, 0.7])
def test_each_of_adas_operations_comes_with_the_given_probability(probability: float) -> None:
    draws = draw_ada(20_000, 32, probability=probability, rng=rng())
    assert math.isclose(float((draws["brightness_N"] != 0).double().mean()), probability, abs_tol=0.01)
    assert math.isclose(float((draws["contrast_N"] != 1).double().mean()), probability, abs_tol=0.01)
    # Neither rotation, of probability 1 - sqrt(1 - p) each, nor any other operation that is not a quarter turn,
    # leaves entries that are not 0; mirror images and quarter turns alone leave whole numbers.
    axis_aligned_N = draws["matrices_N33"][:, :2, :2].abs().amin(dim=(1, 2)) < 1e-9
    assert math.isclose(float((~axis_aligned_N).double().mean()), probability, abs_tol=0.01)
    area_N = torch.linalg.det(draws["matrices_N33"])
    assert math.isclose(float(((area_N.abs() - 1).abs() > 1e-9).double().mean()), probability, abs_tol=0.01)
    assert math.isclose(float((area_N < 0).double().mean()), probability / 2, abs_tol=0.01)
    log_zoom_N = area_N.abs()[(area_N.abs() - 1).abs() > 1e-9].log2() / 2
    assert math.isclose(float(log_zoom_N.std()), 0.2, rel_tol=0.03)


def forward_matrix(kind: str, x: float, y: float = 0.0) -> Tensor:
    """An operation on coordinates in pixels from the centre, from input to output."""
    cosine, sine = math.cos(x), math.sin(x)
    rows = {
        "scale": [[x, 0, 0], [0, y, 0], [0, 0, 1]],
        "turn": [[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]],
        "shift": [[1, 0, -x], [0, 1, -y], [0, 0, 1]],
    }[kind]
    return torch.tensor(rows, dtype=torch.float64)


def test_ada_transforms_in_the_published_order() -> None:
    draws, again = draw_ada(1, 32, probability=1.0, rng=rng(8)), rng(8)
    torch.rand(10, 1, generator=again, dtype=torch.float64)
    uniforms = torch.rand(6, 1, generator=again, dtype=torch.float64)[:, 0].tolist()
    normals = torch.randn(6, 1, generator=again, dtype=torch.float64)[:, 0].tolist()
    zoom, stretch = 2 ** (0.2 * normals[0]), 2 ** (0.2 * normals[1])
    shifts = [round(4 * (2 * uniform - 1)) for uniform in uniforms[2:4]]
    image_to_output = torch.eye(3, dtype=torch.float64)
    for step in (
        forward_matrix("scale", 1 - 2 * math.floor(2 * uniforms[0]), 1.0),
        forward_matrix("turn", math.floor(4 * uniforms[1]) * math.pi / 2),
        forward_matrix("shift", *shifts),
        forward_matrix("scale", zoom, zoom),
        forward_matrix("turn", math.pi * (2 * uniforms[4] - 1)),
        forward_matrix("scale", stretch, 1 / stretch),
        forward_matrix("turn", math.pi * (2 * uniforms[5] - 1)),
        forward_matrix("shift", 4 * normals[2], 4 * normals[3]),
    ):
        image_to_output = step @ image_to_output
    assert torch.allclose(draws["matrices_N33"][0], torch.linalg.inv(image_to_output), atol=1e-9)


def test_quarter_turns_and_whole_shifts_move_pixels_without_blurring_them() -> None:
    image_NCHW = images(1, 8)
    turn_133 = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    assert torch.equal(resample(image_NCHW, turn_133), image_NCHW.rot90(dims=(2, 3)).view_as(image_NCHW))
    shift_133 = torch.eye(3, dtype=torch.float64)[None].clone()
    shift_133[0, 0, 2] = 2
    shifted_NCHW = resample(image_NCHW, shift_133)
    assert torch.equal(shifted_NCHW[..., :6], image_NCHW[..., 2:])
    assert torch.equal(shifted_NCHW[..., 6:], image_NCHW[..., [6, 5]])


def test_ada_brightens_before_it_changes_contrast() -> None:
    draws = {
        "matrices_N33": torch.eye(3, dtype=torch.float64).expand(2, 3, 3),
        "brightness_N": torch.tensor([0.5, 0.0]),
        "contrast_N": torch.tensor([2.0, 1.0]),
    }
    images_NCHW = images(2)
    assert torch.equal(apply_ada(images_NCHW, draws), torch.stack([(images_NCHW[0] + 0.5) * 2, images_NCHW[1]]))


def fed(controller: AdaController, logits_N: Tensor, steps: int) -> AdaController:
    for _ in range(steps):
        controller.observe(logits_N)
    return controller


SURE_N = torch.tensor([3.0, 1.0, 2.0, 5.0])
UNSURE_N = torch.tensor([3.0, -1.0, 2.0, -5.0])


def test_probability_rises_at_the_ramps_speed_while_the_discriminator_is_too_sure() -> None:
    controller = AdaController(target=0.6, ramp=40)
    assert controller.probability == 0
    fed(controller, SURE_N, ADJUSTED_EVERY - 1)
    assert controller.probability == 0
    fed(controller, SURE_N, 1)
    assert math.isclose(controller.probability, ADJUSTED_EVERY / 40)
    fed(controller, SURE_N, 16)
    assert math.isclose(controller.probability, 20 / 40)
    fed(controller, SURE_N, 100)
    assert controller.probability == SAFE_PROBABILITY


def test_probability_falls_to_zero_while_the_discriminator_is_unsure() -> None:
    controller = fed(AdaController(target=0.6, ramp=40), SURE_N, 8)
    fed(controller, UNSURE_N, ADJUSTED_EVERY)
    assert math.isclose(controller.probability, 4 / 40)
    fed(controller, UNSURE_N, 40)
    assert controller.probability == 0


def test_the_signs_of_all_steps_since_the_last_adjustment_count() -> None:
    controller = AdaController(target=0.6, ramp=40)
    fed(fed(controller, UNSURE_N, 2), SURE_N, 2)  # mean sign .5: below the target
    assert controller.probability == 0
    fed(fed(controller, UNSURE_N, 1), SURE_N, 3)  # .75
    assert math.isclose(controller.probability, ADJUSTED_EVERY / 40)


def test_a_restored_controller_goes_on_as_if_never_stopped() -> None:
    whole = fed(fed(AdaController(target=0.6, ramp=40), SURE_N, 6), UNSURE_N, 3)
    saved = fed(AdaController(target=0.6, ramp=40), SURE_N, 6).state()
    resumed = AdaController(target=0.6, ramp=40)
    resumed.restore(saved)
    fed(resumed, UNSURE_N, 3)
    assert {key: float(value) for key, value in resumed.state().items()} == {
        key: float(value) for key, value in whole.state().items()
    }
