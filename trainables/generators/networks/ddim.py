"""Noise schedules, what a denoiser predicts, guidance and deterministic sampling (Song et al. 2021, DDIM)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from trainables.errors import DataError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
COSINE: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": True,
}
"""From random weights: the cosine schedule (Nichol & Dhariwal 2021, equation 17), which ends in pure noise, where only
the velocity (Salimans & Ho 2022) is a target that says something; sampled from its end (Lin et al. 2024, table 2)."""
_UNDERSTOOD = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "set_alpha_to_one",
    "steps_offset",
    "prediction_type",
    "timestep_spacing",
    "rescale_betas_zero_snr",
)

Predict: TypeAlias = Callable[[Tensor, int], Tensor]
"""A denoiser's prediction for noised images (N, ...) at one time step."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """How images are noised, and at which time steps noise is taken away again.

    Args:
        alphas_T: float32, alpha-bar of each training time step: the share of the image in the variance.
        timesteps: of sampling, from the noisiest.
        last_alpha: alpha-bar after the last of these.
        prediction: what the denoiser predicts, one of ``PREDICTIONS``.
        clip: the clean image is held in [-clip, clip] while sampling; None: not at all.
    """

    alphas_T: Tensor
    timesteps: tuple[int, ...]
    last_alpha: float
    prediction: str
    clip: float | None

    def alpha(self, timestep: int) -> float:
        """Alpha-bar of one time step."""
        return float(self.alphas_T[timestep])


def schedule_of(config: Mapping[str, Any], *, sampling_steps: int, clips: bool) -> Schedule:
    """The schedule of a ``diffusers`` scheduler's configuration; whatever the scheduler, it is sampled with DDIM.

    Args:
        config: such as a pipeline's ``scheduler_config.json``.
        sampling_steps: how many; at most as many as in training.
        clips: whether clean images are clipped where the configuration does not say.

    Raises:
        DataError: a scheduler of another kind, or more sampling steps than training steps.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    name = config.get("_class_name", "scheduler")
    known = {key: value for key, value in config.items() if key in _UNDERSTOOD}
    prediction = known.get("prediction_type", "epsilon")
    if not ({"beta_schedule", "trained_betas"} & set(known)) or prediction not in PREDICTIONS:
        raise DataError(
            f"generator.pretrained has a {name} predicting '{prediction}'; expected a scheduler with discrete betas "
            f"and one of {', '.join(PREDICTIONS)}. Pass a DDPM, DDIM or PNDM pipeline."
        )
    try:
        with torch.device("cpu"):
            scheduler = DDIMScheduler(**known)
            scheduler.set_timesteps(sampling_steps)
    except (NotImplementedError, ValueError) as error:
        raise DataError(
            f"generator.pretrained has a {name} that cannot be sampled with DDIM in {sampling_steps} steps: {error}. "
            "Lower generator.sampling_steps or pass another pipeline."
        ) from error
    return Schedule(
        alphas_T=scheduler.alphas_cumprod,
        timesteps=tuple(min(int(step), len(scheduler.alphas_cumprod) - 1) for step in scheduler.timesteps),
        last_alpha=float(scheduler.final_alpha_cumprod),
        prediction=prediction,
        clip=float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", clips) else None,
    )


def noised(clean_N: Tensor, noise_N: Tensor, alphas_N: Tensor) -> Tensor:
    """sqrt(alpha) clean + sqrt(1 - alpha) noise, one alpha-bar per image. Source: Ho et al. 2020, equation 4."""
    alphas_N = _per_image(alphas_N, clean_N)
    return alphas_N.sqrt() * clean_N + (1 - alphas_N).sqrt() * noise_N


def target(clean_N: Tensor, noise_N: Tensor, alphas_N: Tensor, prediction: str) -> Tensor:
    """What the denoiser should predict: the noise, the clean image, or the velocity (Salimans & Ho 2022, section 4)."""
    if prediction == "epsilon":
        return noise_N
    if prediction == "sample":
        return clean_N
    alphas_N = _per_image(alphas_N, clean_N)
    return alphas_N.sqrt() * noise_N - (1 - alphas_N).sqrt() * clean_N


def clean_of(predicted_N: Tensor, noised_N: Tensor, alpha: float, prediction: str) -> Tensor:
    """The clean images that a prediction stands for; undoes ``noised`` and ``target``.

    Args:
        predicted_N: what the denoiser predicted.
        noised_N: what it was given.
        alpha: alpha-bar of the time step, more than 0 where noise is predicted.
        prediction: one of ``PREDICTIONS``.
    """
    if prediction == "sample":
        return predicted_N
    image, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
    if prediction == "epsilon":
        return (noised_N - noise * predicted_N) / image
    return image * noised_N - noise * predicted_N


def guided(unconditional_N: Tensor, conditional_N: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: unconditional + guidance (conditional - unconditional).

    Source: Ho & Salimans 2022, equation 6, whose w is ``guidance`` - 1.
    """
    return unconditional_N + guidance * (conditional_N - unconditional_N)


def ddim(predict: Predict, start_N: Tensor, schedule: Schedule, *, skipped: int = 0) -> Tensor:
    """Take the noise away, deterministically (eta = 0).

    Args:
        predict: the denoiser.
        start_N: pure noise N(0, I); or images noised to the first time step that is not skipped.
        schedule: the time steps, and what is predicted.
        skipped: how many of its first time steps are left out.

    Returns:
        Clean images, like ``start_N``.

    Source: Song et al. 2021, equation 12, with the noise derived anew from the clipped clean image, as in the code of
    Dhariwal & Nichol 2021.
    """
    timesteps = schedule.timesteps[skipped:]
    alphas = [schedule.alpha(timestep) for timestep in timesteps]
    image_N = start_N
    for timestep, alpha, following in zip(timesteps, alphas, (*alphas[1:], schedule.last_alpha), strict=True):
        clean_N = clean_of(predict(image_N, timestep), image_N, alpha, schedule.prediction)
        if schedule.clip is not None:
            clean_N = clean_N.clamp(-schedule.clip, schedule.clip)
        noise_N = (image_N - math.sqrt(alpha) * clean_N) / math.sqrt(1 - alpha)
        image_N = math.sqrt(following) * clean_N + math.sqrt(1 - following) * noise_N
    return image_N


def _per_image(alphas_N: Tensor, images_N: Tensor) -> Tensor:
    return alphas_N.reshape(-1, *[1] * (images_N.ndim - 1))
